"""Where data sets lie, and the user's cache."""

from __future__ import annotations

import os
from pathlib import Path


def user_cache() -> Path:
    """The user's own folder for what can be made again."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "pai-bench"


def data_root(root: Path | None = None) -> Path:
    """Where data sets lie: `root`, else PAI_BENCH_DATA, else pai-bench/data in the user's cache."""
    if root is not None:
        return Path(root).expanduser()
    if os.environ.get("PAI_BENCH_DATA"):
        return Path(os.environ["PAI_BENCH_DATA"]).expanduser()
    return user_cache() / "data"


def option(root: Path | None) -> str:
    """How a command that is recommended names the data root, where it was named."""
    return "" if root is None else f" --data-dir {root}"
