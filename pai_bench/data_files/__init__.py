"""Data sets on disk: which there are, whether a copy is the original, how to fetch and to read one (no torch here)."""

from pai_bench.data_files.checksums import Check, accept, check, refuse
from pai_bench.data_files.downloads import FetchFailed, Observer, Patience
from pai_bench.data_files.fetching import GOOD, add, fetch
from pai_bench.data_files.kinds import Archive, Arrays, File, Images, Info, Listing, Source, damaged
from pai_bench.data_files.places import data_root
from pai_bench.data_files.reading import DataChanged, Loaded, content_hash, listing, load, present, require
from pai_bench.data_files.sources import info, names, register_dataset, register_source, source

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
