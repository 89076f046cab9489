"""Record of a finished cell, and its reader."""

from __future__ import annotations

import io
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pai_bench.cells import Cell
from pai_bench.core.atomic import parse_json, read_bytes
from pai_bench.errors import PaiBenchError
from pai_bench.results import mask_files
from pai_bench.results.key import ResultKey
from pai_bench.results.paths import masks_path

SCHEMA = 1
STATUSES = ("ok", "collapsed", "diverged")


class DamagedResult(PaiBenchError):
    """A result file with invalid content; a file that cannot be read raises OSError instead."""


@dataclass(frozen=True)
class Epoch:
    """A point of the training curve: epoch from 1, mean training loss, test accuracy (None where not measured)."""

    epoch: int
    loss: float | None
    accuracy: float | None


@dataclass(frozen=True)
class Layer:
    """A prunable layer: name of its parameter, number of weights, and number of kept weights."""

    name: str
    size: int
    kept: int


@dataclass(frozen=True)
class Result:
    """Record of a finished cell; the fields are the top-level keys of its JSON file."""

    method: str
    dataset: str
    model: str
    sparsity: float
    """Requested sparsity (fraction removed)."""
    seed: int
    accuracy: float | None
    """Accuracy of the last epoch on the test set (fraction)."""
    status: str
    """"ok", "collapsed" (a prunable layer kept no weight) or "diverged" (a loss or an output was not finite)."""
    actual_sparsity: float
    effective_sparsity: float
    """Sparsity when weights on no path from input to output count as removed."""
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
    """Seconds and peak bytes of scoring and training; FLOPs of a dense and a sparse forward pass."""
    chance: float
    """Chance accuracy: 1 / number of classes."""
    finished_at: str
    provenance: dict[str, Any]
    schema: int = SCHEMA
    float64_overlap: float | None = None
    """Intersection over union of the masks from float32 and float64 scores; None where it was not measured."""
    tied_at_cut: int | None = None
    """Number of kept weights whose score equals the score of pruned ones, so that their position decides which stay.

    None in older results, and for methods whose ties do not matter (magnitude, masks from files)."""
    saw: str | None = None
    """Data that decided the masks: "nothing", "inputs", "labels", a number of epochs of training such as "9 epochs", or
    "unknown" (masks from files); None in older results."""
    mask_updates: dict[str, list[int]] = field(default_factory=dict)
    """For masks that change during training: numbers of the steps (`step`, from 1), of the weights kept after each
    (`kept`) and of those that grew in it (`grown`)."""
    measures: dict[str, float | None] = field(default_factory=dict)
    """Measures of the masked network by name (see `results.measures`); empty in older results."""
    unmeasured: dict[str, str] = field(default_factory=dict)
    """Reasons of the measures that are absent, by name."""
    class_accuracy: tuple[float | None, ...] = ()
    """Accuracy of the last epoch by class (fraction); None for a class without test images; empty in older results."""

    @property
    def cell(self) -> Cell:
        """Cell of the result."""
        return Cell(self.method, self.dataset, self.model, self.sparsity, self.seed)

    @property
    def key(self) -> ResultKey:
        """Key of the result."""
        return ResultKey(self.cell, self.recipe, self.fingerprint)


_FIELDS = [each.name for each in fields(Result)]
_TYPES: dict[str, tuple[type, ...]] = {
    **{"str": (str,), "int": (int,), "float": (float, int), "float | None": (float, int, type(None))},
    "int | None": (int, type(None)),
    "str | None": (str, type(None)),
    **{"tuple": (list,), "dict": (dict,)},
}
_KINDS = {each.name: _TYPES[str(each.type).partition("[")[0]] for each in fields(Result)}
"""Python types of each field after JSON decoding."""


def _defaults() -> dict[str, Any]:
    """Return the fields that older results may lack, which are all with a default but the schema, as plain data."""
    found: dict[str, Any] = {}
    for each in fields(Result):
        made = each.default if each.default_factory is MISSING else each.default_factory()
        if made is not MISSING and each.name != "schema":
            found[each.name] = list(made) if isinstance(made, tuple) else made
    return found


_ADDED = _defaults()


def read(place: Path) -> Result:
    """Read a result file.

    Raises: DamagedResult for invalid content, PaiBenchError for a file of a newer pai-bench, OSError when the file
        cannot be read at present.
    """
    plain = read_plain(place)
    values = {name: plain[name] for name in _FIELDS}
    values["layers"] = tuple(Layer(**layer) for layer in plain["layers"])
    values["empty_layers"] = tuple(plain["empty_layers"])
    values["class_accuracy"] = tuple(plain["class_accuracy"])
    values["curve"] = tuple(Epoch(**epoch) for epoch in plain["curve"])
    return Result(**values)


def read_plain(place: Path) -> dict[str, Any]:
    """Read and check a result file as plain data by field; much faster than `read` for many files."""
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
        raise PaiBenchError(
            f"{place} was written by a newer pai-bench (schema {plain['schema']})", "upgrade this installation"
        )
    found: dict[str, Any] = plain
    return found


def _check(plain: Any) -> None:
    if type(plain) is not dict:
        raise TypeError(f"it holds a {type(plain).__name__}, not an object")
    for name, kinds in _KINDS.items():
        # isinstance would accept true and false as numbers, because bool is a subclass of int.
        if type(plain[name]) not in kinds:
            raise TypeError(f"{name} is {plain[name]!r}")
    for field_name in ("costs", "measures"):
        for name, value in plain[field_name].items():
            if type(value) not in (float, int, type(None)):
                raise TypeError(f"{field_name}.{name} is {value!r}")
    for value in plain["class_accuracy"]:
        if type(value) not in (float, int, type(None)) or (value is not None and not 0 <= value <= 1):
            raise ValueError(f"class_accuracy holds {value!r}")
    if plain["status"] not in STATUSES:
        raise ValueError(f"status is {plain['status']!r}")
    if plain["accuracy"] is not None and not 0 <= plain["accuracy"] <= 1:
        raise ValueError(f"accuracy is {plain['accuracy']!r}")
    if not 0 <= plain["sparsity"] < 1:
        raise ValueError(f"sparsity is {plain['sparsity']!r}")
    if plain["seed"] < 0:
        raise ValueError(f"seed is {plain['seed']!r}")


def read_masks(result_path: Path) -> dict[str, NDArray[np.bool_]]:
    """Read the masks of a result (bool by parameter name).

    Raises: DamagedResult when the masks are missing or truncated, OSError when they cannot be read at present.
    """
    place = masks_path(result_path)
    try:
        # The file is read at once, so that a disk error raises OSError and is not reported as damage.
        file = io.BytesIO(read_bytes(place))
    except FileNotFoundError:
        raise DamagedResult(f"masks {place} are missing", "--redo computes them again") from None
    try:
        with np.load(file, allow_pickle=False) as content:
            return mask_files.unpack(content)
    except Exception as error:  # a damaged archive raises nearly anything
        raise DamagedResult(f"masks {place} are damaged: {error}", "--redo computes them again") from None
