"""Layout of the results root: its folders, and the paths of files that do not belong to one cell."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

ROOT_VARIABLE = "PAI_BENCH_RESULTS"


def resolve_root(option: Path | None = None) -> Path:
    """Return the results root: the option, else PAI_BENCH_RESULTS, else ./results."""
    return Path(option or os.environ.get(ROOT_VARIABLE) or "results").expanduser().absolute()


def name_of(result_path: Path) -> str:
    """Return the name of the cell from the path of its result, for any results root."""
    return "/".join((*result_path.parts[-4:-1], result_path.name.removesuffix(".json")))


def names(folder: Path, ending: str) -> set[str]:
    """Return the names of the cells with a file of that ending below a folder (such as runs/ or `failures_folder`).

    Only file names are read, so that thousands of files take little time."""
    top = len(str(folder)) + 1
    found = set()
    for place, _, files in os.walk(folder):
        inside = f"{place}/"[top:]
        found |= {f"{inside}{file.removesuffix(ending)}" for file in files if file.endswith(ending)}
    return found


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


def beat_path(claim: Path, owner: str) -> Path:
    """Return the path of the heartbeat of a claim's owner."""
    return claim.with_name(f"{claim.name.removesuffix('.claim')}.{owner}.beat")


def all_checkpoints_folder(root: Path) -> Path:
    """Return the parent of all checkpoint folders, which have the names of the results below runs/."""
    return root / "state" / "checkpoints"


def failures_folder(root: Path) -> Path:
    """Return the folder of the failure records."""
    return root / "state" / "failed"


def duplicates_folder(root: Path) -> Path:
    """Return the folder of the records of duplicate results, which are never counted."""
    return root / "state" / "duplicates"


def fixed_masks_path(root: Path, name: str) -> Path:
    """Return the path of the copy of a mask file that was given to a sweep."""
    return root / "state" / "masks" / f"{name}.npz"


def data_copy_path(root: Path, dataset: str) -> Path:
    """Return the path of the record of the data set copy that the results are based on."""
    return root / "state" / "data" / f"{dataset}.json"


def trainings_folder(root: Path) -> Path:
    """Return the folder of the dense trainings shared by cells; it may be deleted at any time."""
    return root / "state" / "trainings"


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
