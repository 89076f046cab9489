"""Where everything lies below the results root."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from pai_bench.cells import Cell

ROOT_VARIABLE = "PAI_BENCH_RESULTS"


def resolve_root(option: Path | None = None) -> Path:
    """The results root: the option, else PAI_BENCH_RESULTS, else ./results."""
    return Path(option or os.environ.get(ROOT_VARIABLE) or "results").expanduser().absolute()


def name_prefix(cell: Cell, recipe: str) -> str:
    """What the names of all results of a cell and a recipe begin with, whatever their fingerprint."""
    return f"s{cell.sparsity!r}-seed{cell.seed}-{recipe}-"


def _name(cell: Cell, recipe: str, fingerprint: str) -> Path:
    """What a cell is called in every folder: the path of its result below runs/, without .json."""
    return Path(cell.dataset, cell.model, cell.method, f"{name_prefix(cell, recipe)}{fingerprint[:8]}")


def _below(folder: Path, cell: Cell, recipe: str, fingerprint: str, ending: str) -> Path:
    name = _name(cell, recipe, fingerprint)
    return folder / name.with_name(name.name + ending)


def path(root: Path, cell: Cell, recipe: str, fingerprint: str) -> Path:
    """Where the result of a cell lies; variants of other settings lie beside it."""
    return _below(root / "runs", cell, recipe, fingerprint, ".json")


def masks_path(result_path: Path) -> Path:
    """Where the masks of a result lie."""
    return result_path.with_suffix(".masks.npz")


def result_paths(root: Path) -> Iterator[Path]:
    """All result files below the root, in the order of their names."""
    for folder, folders, files in os.walk(root / "runs"):
        folders.sort()
        for name in sorted(files):
            if name.endswith(".json"):
                yield Path(folder, name)


def claims_folder(root: Path) -> Path:
    """Where it is noted who works on which cell."""
    return root / "state" / "claims"


def claim_path(root: Path, cell: Cell, recipe: str, fingerprint: str) -> Path:
    """Where the one who works on a cell says so."""
    return _below(claims_folder(root), cell, recipe, fingerprint, ".claim")


def beat_path(claim: Path, owner: str) -> Path:
    """Where the owner of a claim shows that it is alive."""
    return claim.with_name(f"{claim.name.removesuffix('.claim')}.{owner}.beat")


def checkpoints_folder(root: Path, cell: Cell, recipe: str, fingerprint: str) -> Path:
    """Where the checkpoints of a cell lie, those of all attempts."""
    return root / "state" / "checkpoints" / _name(cell, recipe, fingerprint)


def failures_folder(root: Path) -> Path:
    """Where notes on failed cells lie."""
    return root / "state" / "failed"


def failure_path(root: Path, cell: Cell, recipe: str, fingerprint: str) -> Path:
    """Where it is noted that a cell failed."""
    return _below(failures_folder(root), cell, recipe, fingerprint, ".json")


def duplicates_folder(root: Path) -> Path:
    """Where second results of a cell are noted; they are never counted."""
    return root / "state" / "duplicates"


def duplicate_path(root: Path, cell: Cell, recipe: str, fingerprint: str, owner: str) -> Path:
    """Where an owner's second result of a cell is noted."""
    return _below(duplicates_folder(root), cell, recipe, fingerprint, f".{owner}.json")


def cell_log_path(root: Path, cell: Cell, recipe: str, fingerprint: str) -> Path:
    """Where the log of a cell lies, all its attempts in one file."""
    return _below(root / "state" / "logs" / "cells", cell, recipe, fingerprint, ".log")


def sweeps_folder(root: Path) -> Path:
    """Where each sweep that was submitted has a folder of its own."""
    return root / "state" / "sweeps"


def log_path(root: Path, name: str) -> Path:
    """The log file `name`; its folder exists."""
    folder = root / "state" / "logs"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{name}.log"
