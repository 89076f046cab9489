"""A result, and the one place that knows where things lie below the results root.

One JSON file a finished cell, with its masks beside it; written to a neighbour and moved into place, without locks, so
that many writers and readers on a shared disk never see half a file.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pai_bench.atomic import replacing, write_json
from pai_bench.cells import Cell
from pai_bench.errors import PaiBenchError

SCHEMA = 1
STATUSES = ("ok", "collapsed", "diverged")
ROOT_VARIABLE = "PAI_BENCH_RESULTS"


class DamagedResult(PaiBenchError):
    """A result file that cannot be what was written there."""


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

    @property
    def cell(self) -> Cell:
        """Its point of the grid."""
        return Cell(self.method, self.dataset, self.model, self.sparsity, self.seed)


_FIELDS = [field.name for field in fields(Result)]
_TYPES = {"str": (str,), "int": (int,), "float": (float, int), "float | None": (float, int, type(None))}
_KINDS = {field.name: _TYPES.get(str(field.type).partition("[")[0], (list, dict)) for field in fields(Result)}
"""What JSON makes of each field."""


def resolve_root(option: Path | None = None) -> Path:
    """The results root: the option, else PAI_BENCH_RESULTS, else ./results."""
    return Path(option or os.environ.get(ROOT_VARIABLE) or "results").expanduser().absolute()


def _name(cell: Cell, recipe: str) -> str:
    return f"s{cell.sparsity!r}-seed{cell.seed}-{recipe}-"


def path(root: Path, cell: Cell, recipe: str, fingerprint: str) -> Path:
    """Where the result of a cell lies; variants of other settings lie beside it."""
    return root / "runs" / cell.dataset / cell.model / cell.method / f"{_name(cell, recipe)}{fingerprint[:8]}.json"


def masks_path(result_path: Path) -> Path:
    """Where the masks of a result lie."""
    return result_path.with_suffix(".masks.npz")


def write(root: Path, result: Result, masks: Mapping[str, NDArray[np.bool_]]) -> Path:
    """Write a result and its masks (bool by parameter name); returns the path of the result.

    The masks come first: where a result is, its masks are. Numbers that do not exist are written as null.
    """
    place = path(root, result.cell, result.recipe, result.fingerprint)
    shapes = json.dumps({name: mask.shape for name, mask in masks.items()})
    packed = {name: np.packbits(mask) for name, mask in masks.items()}
    with replacing(masks_path(place)) as file:
        np.savez_compressed(file, __shapes__=np.array(shapes), **packed)  # type: ignore[arg-type]
    write_json(place, asdict(result))
    return place


def read(place: Path) -> Result:
    """The result in a file.

    Raises: DamagedResult when it is not one, PaiBenchError when a newer pai-bench wrote it.
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
        plain = json.loads(place.read_bytes())
        _check(plain)
    except FileNotFoundError:
        raise
    except (OSError, ValueError, KeyError, TypeError) as error:
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
    if plain["status"] not in STATUSES:
        raise ValueError(f"status is {plain['status']!r}")
    if plain["accuracy"] is not None and not 0 <= plain["accuracy"] <= 1:
        raise ValueError(f"accuracy is {plain['accuracy']!r}")


def read_masks(result_path: Path) -> dict[str, NDArray[np.bool_]]:
    """The masks of a result, bool by parameter name.

    Raises: DamagedResult when they are missing or cut short.
    """
    place = masks_path(result_path)
    try:
        with place.open("rb") as file, np.load(file, allow_pickle=False) as content:
            shapes = json.loads(str(content["__shapes__"]))
            return {
                name: np.unpackbits(content[name], count=math.prod(shape)).reshape(shape).astype(bool)
                for name, shape in shapes.items()
            }
    except Exception as error:  # a damaged archive raises nearly anything
        raise DamagedResult(f"masks {place} are damaged: {error}", "--redo makes them again") from None


def set_aside(place: Path) -> Path:
    """Give a damaged file a name under which nobody reads it; it is never deleted. Returns the new path."""
    for number in range(1, 1_000_000):
        aside = place.with_name(f"{place.name}.damaged-{number}")
        if not aside.exists():
            break
    place.rename(aside)
    return aside


def state(root: Path, cell: Cell, recipe: str, fingerprint: str) -> str:
    """What is on disk of a cell: "done", "failed", "stale" (only of other settings) or "missing".

    Raises: DamagedResult when its file is not its result.
    """
    place = path(root, cell, recipe, fingerprint)
    try:
        found = read(place)
    except (FileNotFoundError, NotADirectoryError):
        pass
    else:
        if (found.cell, found.recipe, found.fingerprint) != (cell, recipe, fingerprint):
            raise DamagedResult(
                f"result {place} is damaged: it is of {found.cell}, recipe {found.recipe}, fingerprint"
                f" {found.fingerprint[:8]}",
                "it is not counted",
            )
        return "done"
    if has_failed(root, cell, recipe, fingerprint):
        return "failed"
    with suppress(FileNotFoundError, NotADirectoryError):
        prefix = _name(cell, recipe)
        for name in os.listdir(place.parent):  # noqa: PTH208 - names alone, from folders of thousands
            if name.startswith(prefix) and re.fullmatch(r"[0-9a-f]{8}\.json", name[len(prefix) :]):
                return "stale"
    return "missing"


def result_paths(root: Path) -> Iterator[Path]:
    """All result files below the root, in the order of their names."""
    for folder, folders, files in os.walk(root / "runs"):
        folders.sort()
        for name in sorted(files):
            if name.endswith(".json"):
                yield Path(folder, name)


def failures_folder(root: Path) -> Path:
    """Where notes on failed cells lie."""
    return root / "state" / "failed"


def _failure_path(root: Path, cell: Cell, recipe: str, fingerprint: str) -> Path:
    return failures_folder(root) / path(root, cell, recipe, fingerprint).relative_to(root / "runs")


def write_failure(root: Path, cell: Cell, recipe: str, fingerprint: str, *, cause: str, traceback: str) -> None:
    """Note that a cell failed, and why."""
    place = _failure_path(root, cell, recipe, fingerprint)
    note = {**asdict(cell), "recipe": recipe, "fingerprint": fingerprint, "cause": cause, "traceback": traceback}
    write_json(place, note)


def has_failed(root: Path, cell: Cell, recipe: str, fingerprint: str) -> bool:
    """Whether there is a note that a cell failed."""
    return _failure_path(root, cell, recipe, fingerprint).is_file()


def clear_failure(root: Path, cell: Cell, recipe: str, fingerprint: str) -> None:
    """Forget that a cell failed."""
    _failure_path(root, cell, recipe, fingerprint).unlink(missing_ok=True)


def log_path(root: Path, name: str) -> Path:
    """The log file `name`; its folder exists."""
    folder = root / "state" / "logs"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{name}.log"


def write_plan(root: Path, name: str, plan: Mapping[str, Any]) -> Path:
    """Note what a sweep was asked for; names sort by time."""
    place = root / "plans" / name
    write_json(place, plan)
    return place


def plans(root: Path) -> list[dict[str, Any]]:
    """All readable plans, oldest first."""
    found = []
    for place in sorted((root / "plans").glob("*.json")):
        with suppress(OSError, ValueError):
            found.append(json.loads(place.read_bytes()))
    return found
