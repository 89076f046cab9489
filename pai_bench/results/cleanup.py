"""Removal of files that dead processes left below the results root; results are never deleted."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Container
from contextlib import suppress
from pathlib import Path

from pai_bench.core.atomic import server_time
from pai_bench.results import paths
from pai_bench.results.key import ResultKey

DAY = 24 * 3600.0
"""Age in seconds, by the file server's clock, from which a temporary file is orphaned: no write takes so long."""

_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{32}\.tmp")
_KEPT = "kept"


def keep_checkpoints(root: Path, key: ResultKey) -> None:
    """Mark the checkpoints of a cell to be kept after it is finished."""
    with suppress(OSError):
        (key.checkpoints_folder(root) / _KEPT).touch()


def drop_checkpoints(root: Path, key: ResultKey) -> None:
    """Remove all checkpoints of a cell, including kept ones, so that it restarts from the beginning."""
    shutil.rmtree(key.checkpoints_folder(root), ignore_errors=True)


def tidy(root: Path, spared: Container[str] = ()) -> None:
    """Remove temporary files older than a day, scores and trainings unused for a day, and checkpoints of finished
    cells.

    Checkpoints of cells with a claim, of cells whose names are in `spared`, and kept checkpoints stay."""
    now = server_time(root)
    shared = {str(paths.scores_folder(root)), str(paths.trainings_folder(root))}
    for folder, _, names in os.walk(root):
        for name in names:
            if _TEMPORARY.fullmatch(name) or folder in shared:
                path = Path(folder, name)
                with suppress(OSError):
                    if now - path.stat().st_mtime > DAY:
                        path.unlink()
    checkpoints = paths.all_checkpoints_folder(root)
    for folder, folders, names in os.walk(checkpoints, topdown=False):
        if not folders and names and _KEPT not in names:
            cell = Path(folder).relative_to(checkpoints)
            if str(cell) in spared:
                continue
            result = root / "runs" / cell.with_name(f"{cell.name}.json")
            claim = paths.claims_folder(root) / cell.with_name(f"{cell.name}.claim")
            with suppress(OSError):
                # A cell with a result may run again (--redo); a claim shows that its checkpoints are in use.
                if result.exists() and not claim.exists():
                    shutil.rmtree(folder, ignore_errors=True)
