"""Data sets on disk: list, download, verify and read them. Never imports torch."""

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
