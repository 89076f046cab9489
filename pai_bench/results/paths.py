"""Layout of the results root: the path of every file below it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from pai_bench.cells import Cell

ROOT_VARIABLE = "PAI_BENCH_RESULTS"

_NAME = re.compile(r"([^/]+)/([^/]+)/([^/]+)/s([0-9.e-]+)-seed(\d+)-([^/]+)-([0-9a-f]{8})")


def resolve_root(option: Path | None = None) -> Path:
    """Return the results root: the option, else PAI_BENCH_RESULTS, else ./results."""
    return Path(option or os.environ.get(ROOT_VARIABLE) or "results").expanduser().absolute()


NAME_BYTES = 255
"""Maximal length of a file name in bytes on common file systems."""

_LONGEST_ENDING = len(f".{'0' * 16}.beat") + len(f"..{'0' * 32}.tmp")
"""Longest suffix in bytes added to a cell's name: a temporary file of a heartbeat."""


def excess(cell: Cell, recipe: str) -> tuple[int, int]:
    """Return the bytes by which names exceed NAME_BYTES: the method's folder, and the longest file of the cell."""
    file = f"{name_prefix(cell, recipe)}{'0' * 8}"
    lengths = len(os.fsencode(cell.method)), len(os.fsencode(file)) + _LONGEST_ENDING
    return max(0, lengths[0] - NAME_BYTES), max(0, lengths[1] - NAME_BYTES)


def name_prefix(cell: Cell, recipe: str) -> str:
    """Return the common prefix of the names of all results of a cell and a recipe, for any fingerprint."""
    return f"s{cell.sparsity!r}-seed{cell.seed}-{recipe}-"


def name(cell: Cell, recipe: str, fingerprint: str) -> str:
    """Return the name of a cell used in every folder: the path of its result below runs/, without .json."""
    return f"{cell.dataset}/{cell.model}/{cell.method}/{name_prefix(cell, recipe)}{fingerprint[:8]}"


def name_of(result_path: Path) -> str:
    """Return the name of the cell from the path of its result, for any results root."""
    return "/".join((*result_path.parts[-4:-1], result_path.name.removesuffix(".json")))


def parse_name(name: str) -> tuple[Cell, str, str] | None:
    """Parse a name from `name` into cell, recipe and first digits of the fingerprint; None if it has another form."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    dataset, model, method, sparsity, seed, recipe, fingerprint = match.groups()
    return Cell(method, dataset, model, float(sparsity), int(seed)), recipe, fingerprint


def names(folder: Path, ending: str) -> set[str]:
    """Return the names of the cells with a file of that ending below a folder (such as runs/ or `failures_folder`).

    Only file names are read, so that thousands of files take little time."""
    top = len(str(folder)) + 1
    found = set()
    for place, _, files in os.walk(folder):
        inside = f"{place}/"[top:]
        found |= {f"{inside}{file.removesuffix(ending)}" for file in files if file.endswith(ending)}
    return found


def _below(folder: Path, cell: Cell, recipe: str, fingerprint: str, ending: str) -> Path:
    return folder / f"{name(cell, recipe, fingerprint)}{ending}"


def path(root: Path, cell: Cell, recipe: str, fingerprint: str) -> Path:
    """Return the path of a cell's result; results of other settings are in the same folder."""
    return _below(root / "runs", cell, recipe, fingerprint, ".json")


def masks_path(result_path: Path) -> Path:
    """Return the path of the masks of a result."""
    return result_path.with_suffix(".masks.npz")


def result_paths(root: Path) -> Iterator[Path]:
    """Yield the paths of all results below the root, sorted by name."""
    for folder, folders, files in os.walk(root / "runs"):
        folders.sort()
        for name in sorted(files):
            if name.endswith(".json"):
                yield Path(folder, name)


def index_path(root: Path) -> Path:
    """Return the path of the cached index of all results."""
    return root / "state" / "index.jsonl"


def claims_folder(root: Path) -> Path:
    """Return the folder of the claims."""
    return root / "state" / "claims"


def claim_path(root: Path, cell: Cell, recipe: str, fingerprint: str) -> Path:
    """Return the path of a cell's claim, which names the process that runs the cell."""
    return _below(claims_folder(root), cell, recipe, fingerprint, ".claim")


def beat_path(claim: Path, owner: str) -> Path:
    """Return the path of the heartbeat of a claim's owner."""
    return claim.with_name(f"{claim.name.removesuffix('.claim')}.{owner}.beat")


def checkpoints_folder(root: Path, cell: Cell, recipe: str, fingerprint: str) -> Path:
    """Return the folder of a cell's checkpoints, shared by all attempts."""
    return all_checkpoints_folder(root) / name(cell, recipe, fingerprint)


def all_checkpoints_folder(root: Path) -> Path:
    """Return the parent of all checkpoint folders, which have the names of the results below runs/."""
    return root / "state" / "checkpoints"


def failures_folder(root: Path) -> Path:
    """Return the folder of the failure records."""
    return root / "state" / "failed"


def failure_path(root: Path, cell: Cell, recipe: str, fingerprint: str) -> Path:
    """Return the path of a cell's failure record."""
    return _below(failures_folder(root), cell, recipe, fingerprint, ".json")


def duplicates_folder(root: Path) -> Path:
    """Return the folder of the records of duplicate results, which are never counted."""
    return root / "state" / "duplicates"


def duplicate_path(root: Path, cell: Cell, recipe: str, fingerprint: str, owner: str) -> Path:
    """Return the path of the record of an owner's duplicate result of a cell."""
    return _below(duplicates_folder(root), cell, recipe, fingerprint, f".{owner}.json")


def cell_log_path(root: Path, cell: Cell, recipe: str, fingerprint: str) -> Path:
    """Return the path of a cell's log, shared by all attempts."""
    return _below(root / "state" / "logs" / "cells", cell, recipe, fingerprint, ".log")


def fixed_masks_path(root: Path, name: str) -> Path:
    """Return the path of the copy of a mask file that was given to a sweep."""
    return root / "state" / "masks" / f"{name}.npz"


def data_copy_path(root: Path, dataset: str) -> Path:
    """Return the path of the record of the data set copy that the results are based on."""
    return root / "state" / "data" / f"{dataset}.json"


def scores_folder(root: Path) -> Path:
    """Return the folder of the scores shared by workers; it may be deleted at any time."""
    return root / "state" / "scores"


def sweeps_folder(root: Path) -> Path:
    """Return the folder with one subfolder per submitted sweep."""
    return root / "state" / "sweeps"


def log_path(root: Path, name: str) -> Path:
    """Return the path of the log file `name`; creates its folder."""
    folder = root / "state" / "logs"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{name}.log"
