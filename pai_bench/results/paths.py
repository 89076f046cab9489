"""Where everything lies below the results root."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from pai_bench.cells import Cell

ROOT_VARIABLE = "PAI_BENCH_RESULTS"

_NAME = re.compile(r"([^/]+)/([^/]+)/([^/]+)/s([0-9.e-]+)-seed(\d+)-([^/]+)-([0-9a-f]{8})")


def resolve_root(option: Path | None = None) -> Path:
    """The results root: the option, else PAI_BENCH_RESULTS, else ./results."""
    return Path(option or os.environ.get(ROOT_VARIABLE) or "results").expanduser().absolute()


NAME_BYTES = 255
"""What file systems have room for in one name."""

_LONGEST_ENDING = len(f".{'0' * 16}.beat") + len(f"..{'0' * 32}.tmp")
"""Bytes that a cell's own name is longer by in the draft of its owner's heartbeat, the longest of its files."""


def excess(cell: Cell, recipe: str) -> tuple[int, int]:
    """By how many bytes names are too long for a disk: that of the folder of the method, and of the files of a cell."""
    file = f"{name_prefix(cell, recipe)}{'0' * 8}"
    lengths = len(os.fsencode(cell.method)), len(os.fsencode(file)) + _LONGEST_ENDING
    return max(0, lengths[0] - NAME_BYTES), max(0, lengths[1] - NAME_BYTES)


def name_prefix(cell: Cell, recipe: str) -> str:
    """What the names of all results of a cell and a recipe begin with, whatever their fingerprint."""
    return f"s{cell.sparsity!r}-seed{cell.seed}-{recipe}-"


def name(cell: Cell, recipe: str, fingerprint: str) -> str:
    """What a cell is called in every folder: the path of its result below runs/, without .json."""
    return f"{cell.dataset}/{cell.model}/{cell.method}/{name_prefix(cell, recipe)}{fingerprint[:8]}"


def name_of(result_path: Path) -> str:
    """The name of the cell whose result a file is, wherever the results root is."""
    return "/".join((*result_path.parts[-4:-1], result_path.name.removesuffix(".json")))


def parse_name(name: str) -> tuple[Cell, str, str] | None:
    """Cell, recipe and the first digits of the fingerprint from what `name` made; None for what it did not make."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    dataset, model, method, sparsity, seed, recipe, fingerprint = match.groups()
    return Cell(method, dataset, model, float(sparsity), int(seed)), recipe, fingerprint


def names(folder: Path, ending: str) -> set[str]:
    """What is called so below a folder (such as runs/ or `failures_folder`) and has that ending; by name alone, so
    that thousands take no time."""
    top = len(str(folder)) + 1
    found = set()
    for place, _, files in os.walk(folder):
        inside = f"{place}/"[top:]
        found |= {f"{inside}{file.removesuffix(ending)}" for file in files if file.endswith(ending)}
    return found


def _below(folder: Path, cell: Cell, recipe: str, fingerprint: str, ending: str) -> Path:
    return folder / f"{name(cell, recipe, fingerprint)}{ending}"


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


def index_path(root: Path) -> Path:
    """Where the columns of all results are kept, to be read at once."""
    return root / "state" / "index.jsonl"


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
    return all_checkpoints_folder(root) / name(cell, recipe, fingerprint)


def all_checkpoints_folder(root: Path) -> Path:
    """Where the folders of checkpoints lie, named as the results below runs/ are."""
    return root / "state" / "checkpoints"


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


def given_masks_path(root: Path, name: str) -> Path:
    """Where the copy lies of a file of masks that a sweep was given."""
    return root / "state" / "masks" / f"{name}.npz"


def data_copy_path(root: Path, dataset: str) -> Path:
    """Where it is noted which copy of a data set the results are of."""
    return root / "state" / "data" / f"{dataset}.json"


def scores_folder(root: Path) -> Path:
    """Where workers leave scores for each other; all of it may go at any time."""
    return root / "state" / "scores"


def sweeps_folder(root: Path) -> Path:
    """Where each sweep that was submitted has a folder of its own."""
    return root / "state" / "sweeps"


def log_path(root: Path, name: str) -> Path:
    """The log file `name`; its folder exists."""
    folder = root / "state" / "logs"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{name}.log"
