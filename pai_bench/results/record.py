"""What is recorded of a finished cell, and how it is read back."""

from __future__ import annotations

import io
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pai_bench.cells import Cell
from pai_bench.core.atomic import parse_json, read_bytes
from pai_bench.errors import PaiBenchError
from pai_bench.results import mask_files
from pai_bench.results.paths import masks_path

SCHEMA = 1
STATUSES = ("ok", "collapsed", "diverged")


class DamagedResult(PaiBenchError):
    """A result file that holds what cannot have been written there; one that cannot be read is none of these."""


@dataclass(frozen=True)
class Epoch:
    """A point of the training curve: epoch from 1, mean training loss, test accuracy (None where not measured)."""

    epoch: int
    loss: float | None
    accuracy: float | None


@dataclass(frozen=True)
class Layer:
    """A prunable layer: its parameter's name, its number of weights, and how many the mask keeps."""

    name: str
    size: int
    kept: int


@dataclass(frozen=True)
class Result:
    """All that is recorded of a finished cell; the fields are the top-level keys of its file."""

    method: str
    dataset: str
    model: str
    sparsity: float
    """As asked for."""
    seed: int
    accuracy: float | None
    """Of the last epoch on the test set, a fraction."""
    status: str
    """"ok", "collapsed" (a prunable layer kept no weight) or "diverged" (a loss or an output was not finite)."""
    actual_sparsity: float
    effective_sparsity: float
    """With the weights that lie on no path from input to output counted as removed."""
    init_hash: str
    mask_hash: str
    fingerprint: str
    recipe: str
    recipe_values: dict[str, Any]
    hyperparameters: dict[str, Any]
    method_version: int
    n_prunable: int
    n_kept: int
    layers: tuple[Layer, ...]
    empty_layers: tuple[str, ...]
    curve: tuple[Epoch, ...]
    costs: dict[str, float | None]
    """Seconds and peak bytes of scoring and of training, FLOPs of a forward pass dense and sparse."""
    chance: float
    """The accuracy of guessing."""
    finished_at: str
    provenance: dict[str, Any]
    schema: int = SCHEMA
    float64_overlap: float | None = None
    """Intersection over union of a mask that was scored in float32 with float64's; None where it was not measured."""

    @property
    def cell(self) -> Cell:
        """Its point of the grid."""
        return Cell(self.method, self.dataset, self.model, self.sparsity, self.seed)


_FIELDS = [field.name for field in fields(Result)]
_TYPES: dict[str, tuple[type, ...]] = {
    **{"str": (str,), "int": (int,), "float": (float, int), "float | None": (float, int, type(None))},
    **{"tuple": (list,), "dict": (dict,)},
}
_KINDS = {field.name: _TYPES[str(field.type).partition("[")[0]] for field in fields(Result)}
"""What JSON makes of each field."""
_ADDED = {"float64_overlap": None}
"""Fields that older results lack, and what they stand for there."""


def read(place: Path) -> Result:
    """The result in a file.

    Raises: DamagedResult when it is not one, PaiBenchError when a newer pai-bench wrote it, OSError when it cannot be
        read now.
    """
    plain = read_plain(place)
    values = {name: plain[name] for name in _FIELDS}
    values["layers"] = tuple(Layer(**layer) for layer in plain["layers"])
    values["empty_layers"] = tuple(plain["empty_layers"])
    values["curve"] = tuple(Epoch(**epoch) for epoch in plain["curve"])
    return Result(**values)


def read_plain(place: Path) -> dict[str, Any]:
    """What `read` reads as plain data by field, checked; much faster for many files."""
    try:
        plain = parse_json(read_bytes(place))
        if type(plain) is dict:
            plain = {**_ADDED, **plain}
        _check(plain)
    except (IsADirectoryError, ValueError, KeyError, TypeError) as error:
        raise DamagedResult(
            f"result {place} is damaged: {type(error).__name__}: {error}",
            "it is not counted; the next sweep sets it aside and runs the cell again",
        ) from None
    if plain["schema"] > SCHEMA:
        raise PaiBenchError(f"{place} was written by a newer pai-bench (schema {plain['schema']})", "upgrade this one")
    found: dict[str, Any] = plain
    return found


def _check(plain: Any) -> None:
    if type(plain) is not dict:
        raise TypeError(f"it holds a {type(plain).__name__}, not an object")
    for name, kinds in _KINDS.items():
        if type(plain[name]) not in kinds:
            raise TypeError(f"{name} is {plain[name]!r}")
    for name, value in plain["costs"].items():
        if type(value) not in (float, int, type(None)):
            raise TypeError(f"costs.{name} is {value!r}")
    if plain["status"] not in STATUSES:
        raise ValueError(f"status is {plain['status']!r}")
    if plain["accuracy"] is not None and not 0 <= plain["accuracy"] <= 1:
        raise ValueError(f"accuracy is {plain['accuracy']!r}")
    if not 0 <= plain["sparsity"] < 1:
        raise ValueError(f"sparsity is {plain['sparsity']!r}")
    if plain["seed"] < 0:
        raise ValueError(f"seed is {plain['seed']!r}")


def read_masks(result_path: Path) -> dict[str, NDArray[np.bool_]]:
    """The masks of a result, bool by parameter name.

    Raises: DamagedResult when they are missing or cut short, OSError when they cannot be read now.
    """
    place = masks_path(result_path)
    try:
        file = io.BytesIO(read_bytes(place))
    except FileNotFoundError:
        raise DamagedResult(f"masks {place} are missing", "--redo makes them again") from None
    try:
        with np.load(file, allow_pickle=False) as content:
            return mask_files.unpack(content)
    except Exception as error:  # a damaged archive raises nearly anything
        raise DamagedResult(f"masks {place} are damaged: {error}", "--redo makes them again") from None
