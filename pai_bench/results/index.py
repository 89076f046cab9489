"""Index of all results: their main columns, with a cache for unchanged files. The result files stay authoritative.

The cache is rebuilt when it is missing, damaged or of another version; if it cannot be written, it is not used.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pai_bench import results
from pai_bench.core.atomic import GONE, reason, replacing
from pai_bench.core.garbage import uncollected
from pai_bench.errors import PaiBenchError
from pai_bench.results.key import ResultKey

COLUMNS = (
    *("method", "dataset", "model", "recipe", "sparsity", "seed", "accuracy", "status", "actual_sparsity"),
    *("effective_sparsity", "fingerprint", "init_hash", "mask_hash", "method_version", "n_prunable", "n_kept"),
    *("chance", "finished_at", "schema", "costs", "float64_overlap", "tied_at_cut", "saw"),
    *("measures", "class_accuracy"),
)
"""Keys of a result that a row has; `costs` and `measures` are dicts.

A row has `device`, `scoring_dtype`, `effective` and `path` besides."""

WORTH_WRITING = 20
"""Minimal number of new files for which the cache is rewritten; for fewer, reading them again is cheaper."""

Stamp = list[int]
"""Stamp of a file: inode, modification time in ns, and size. Every write of a result creates a new inode."""

Line = list[Any]
"""Cache line of a result: name, stamp (three numbers), values."""


@dataclass(frozen=True)
class Index:
    """Content of a results folder."""

    rows: tuple[dict[str, Any], ...]
    """One row per readable result, ordered by path: COLUMNS, `device`, `scoring_dtype`, `effective`, `path` (str)."""
    damaged: tuple[str, ...]
    """Description of each damaged file."""
    unreadable: Mapping[str, str] = field(default_factory=dict)
    """Files and folders that could not be read, and the reason; they may contain valid results."""

    def hides(self, place: Path) -> bool:
        """Return True if the file or a folder above it is unreadable, so that it may contain a result."""
        return bool(self.unreadable) and any(str(path) in self.unreadable for path in (place, *place.parents))


@uncollected()
def read(root: Path) -> Index:
    """Read all results below the root; only files that are new or changed since the last cache write are parsed."""
    top = str(root / "runs")
    known = _load(results.index_path(root))
    lines: list[Line] = []
    rows, damaged, parsed = [], [], 0
    unreadable: dict[str, str] = {}
    for name, stamp in _files(top, unreadable):
        line = known.get(name)
        if line is None or line[1:4] != stamp:
            try:
                line = [name, *stamp, *_values(results.read_plain(Path(top, name)))]
            except GONE:
                continue  # replaced or renamed by another process during the scan
            except PaiBenchError as error:
                damaged.append(error.cause)
                continue
            except OSError as error:
                unreadable[f"{top}/{name}"] = reason(error)
                continue
            parsed += 1
        lines.append(line)
        row = dict(zip(_KEYS, line[4:], strict=True))
        row["path"] = f"{top}/{name}"
        rows.append(row)
    if parsed >= WORTH_WRITING:
        with suppress(OSError):
            _save(results.index_path(root), lines)
    return Index(tuple(rows), tuple(damaged), unreadable)


def finished(root: Path) -> set[ResultKey]:
    """Return the key of every readable result at its correct path."""
    keyed = ((ResultKey.of(row), row["path"]) for row in read(root).rows)
    return {key for key, path in keyed if path == str(key.path(root))}


_KEYS = (*COLUMNS, "device", "scoring_dtype", "effective")


def _values(plain: dict[str, Any]) -> list[Any]:
    scoring = plain["recipe_values"].get("scoring")
    scoring = scoring if isinstance(scoring, dict) else {}
    derived = (plain["provenance"].get("device"), scoring.get("dtype"), scoring.get("effective") is True)
    return [*(plain[key] for key in COLUMNS), *derived]


def _files(top: str, unreadable: dict[str, str]) -> Iterator[tuple[str, Stamp]]:
    """Yield the names below `top` and the stamps of all results, in the order of `results.result_paths`.

    Adds inaccessible files and folders to `unreadable`.
    """
    folders = [("", top)]
    while folders:
        inside, folder = folders.pop()
        try:
            with os.scandir(folder) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
        except GONE:
            continue
        except OSError as error:
            unreadable[folder] = reason(error)
            continue
        within = []
        for entry in entries:
            try:
                if entry.name.endswith(".json"):
                    about = entry.stat()
                    if stat.S_ISFIFO(about.st_mode):  # to open it would wait for a writer
                        unreadable[entry.path] = "is a named pipe"
                        continue
                    yield f"{inside}{entry.name}", [about.st_ino, about.st_mtime_ns, about.st_size]
                elif entry.is_dir(follow_symlinks=False):
                    # Links are not followed, because a link to a parent folder would repeat the whole scan.
                    within.append((f"{inside}{entry.name}/", entry.path))
            except GONE:
                continue  # replaced or renamed by another process during the scan
            except OSError as error:
                unreadable[entry.path] = reason(error)
        folders += reversed(within)


def _save(place: Path, lines: list[Line]) -> None:
    body = "\n".join(json.dumps(line, separators=(",", ":")) for line in lines).encode()
    with replacing(place) as file:
        file.write(f"{_header(body)}\n".encode() + body)


def _header(body: bytes) -> str:
    """Return the first line of a valid cache with this body."""
    version = [*_KEYS, str(results.SCHEMA)]
    return json.dumps({"columns": version, "sha256": hashlib.sha256(body).hexdigest()})


def _load(place: Path) -> dict[str, Line]:
    """Return the cache lines by name; empty if the cache is not valid."""
    try:
        head, _, body = place.read_bytes().partition(b"\n")
    except OSError:
        return {}
    if head.decode(errors="replace") != _header(body):
        return {}
    return {line[0]: line for line in json.loads(b"[" + body.replace(b"\n", b",") + b"]")}
