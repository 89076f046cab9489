"""Data sets on disk: list, download, verify and read them. Never imports torch.

Names are imported on first use, so that the command line lists data sets without loading NumPy.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pai_bench.datasets.files.checksums import Check, accept, check, refuse
    from pai_bench.datasets.files.http import FetchFailed, Observer, Patience
    from pai_bench.datasets.files.install import GOOD, add, fetch
    from pai_bench.datasets.files.loading import DataChanged, Loaded, content_hash, listing, load, present, require
    from pai_bench.datasets.files.paths import data_root
    from pai_bench.datasets.files.sources import info, is_builtin, names, register_dataset, register_source, source
    from pai_bench.datasets.files.types import Archive, Arrays, File, Images, Info, Listing, Source, damaged

__all__ = [
    "GOOD",
    "Archive",
    "Arrays",
    "Check",
    "DataChanged",
    "FetchFailed",
    "File",
    "Images",
    "Info",
    "Listing",
    "Loaded",
    "Observer",
    "Patience",
    "Source",
    "accept",
    "add",
    "check",
    "content_hash",
    "damaged",
    "data_root",
    "fetch",
    "info",
    "is_builtin",
    "listing",
    "load",
    "names",
    "present",
    "refuse",
    "register_dataset",
    "register_source",
    "require",
    "source",
]

_HOMES = {
    **dict.fromkeys(("Check", "accept", "check", "refuse"), "checksums"),
    **dict.fromkeys(("FetchFailed", "Observer", "Patience"), "http"),
    **dict.fromkeys(("GOOD", "add", "fetch"), "install"),
    **dict.fromkeys(("DataChanged", "Loaded", "content_hash", "listing", "load", "present", "require"), "loading"),
    "data_root": "paths",
    **dict.fromkeys(("info", "is_builtin", "names", "register_dataset", "register_source", "source"), "sources"),
    **dict.fromkeys(("Archive", "Arrays", "File", "Images", "Info", "Listing", "Source", "damaged"), "types"),
}
"""Module of each name that is imported on first use."""


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
