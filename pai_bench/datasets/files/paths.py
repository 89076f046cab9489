"""Locations of data sets and of the user's cache."""

from __future__ import annotations

import os
from pathlib import Path


def user_cache() -> Path:
    """Return the folder of pai-bench in the user's cache, for files that can be recreated."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "pai-bench"


def data_root(root: Path | None = None) -> Path:
    """Return the folder of the data sets: `root`, else PAI_BENCH_DATA, else pai-bench/data in the user's cache."""
    if root is not None:
        return Path(root).expanduser()
    if os.environ.get("PAI_BENCH_DATA"):
        return Path(os.environ["PAI_BENCH_DATA"]).expanduser()
    return user_cache() / "data"


def option(root: Path | None) -> str:
    """Return the option for the data root in recommended commands; empty when the user did not set one."""
    return "" if root is None else f" --data-dir {root}"


def find(path: Path, gzipped: bool) -> Path | None:
    """Find a file, or NAME.gz if `gzipped` is set; return None if neither exists or is accessible."""
    candidates = (path, path.with_name(path.name + ".gz")) if gzipped else (path,)
    for candidate in candidates:
        try:
            if candidate.is_file():
                return candidate
        except PermissionError:  # no permission to enter the folder
            continue
    return None
