"""The columns of all results at once, from a cache of the files that have not changed; never the source of truth.

The cache is made anew when it is missing, damaged or of another version, and done without where none can be written.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from pai_bench import results
from pai_bench.atomic import replacing
from pai_bench.cells import Cell
from pai_bench.errors import PaiBenchError

COLUMNS = (
    *("method", "dataset", "model", "recipe", "sparsity", "seed", "accuracy", "status", "actual_sparsity"),
    *("effective_sparsity", "fingerprint", "init_hash", "mask_hash", "method_version", "n_prunable", "n_kept"),
    *("chance", "finished_at", "schema", "costs", "float64_overlap"),
)
"""Keys of a result that a row has; `costs` is a dict. A row has `device`, `scoring_dtype` and `path` besides."""

WORTH_WRITING = 20
"""With fewer new files than that, reading them again next time costs less than writing all rows."""

Stamp = tuple[int, int, int]
"""Of a file: its number, time of change in ns, and size. Each writer of a result makes a new file."""

Known = dict[str, tuple[Stamp, list[Any]]]


@dataclass(frozen=True)
class Index:
    """What a results folder holds."""

    rows: tuple[dict[str, Any], ...]
    """One a readable result, ordered by path: COLUMNS, `device`, `scoring_dtype`, and `path` (a string)."""
    damaged: tuple[str, ...]
    """What is wrong with each file that cannot be read."""


def read(root: Path) -> Index:
    """All results below the root; parses only the files that are new or have changed since the cache was written."""
    top = root / "runs"
    known = _load(results.index_path(root))
    current: Known = {}
    rows, damaged, parsed = [], [], 0
    for name, stamp in _files(str(top)):
        entry = known.get(name)
        if entry is None or entry[0] != stamp:
            try:
                entry = stamp, _values(results.read_plain(top / name))
            except FileNotFoundError:
                continue  # replaced or set aside while we read
            except PaiBenchError as error:
                damaged.append(error.cause)
                continue
            parsed += 1
        current[name] = entry
        row = dict(zip(_KEYS, entry[1], strict=True))
        row["path"] = f"{top}/{name}"
        rows.append(row)
    if parsed >= WORTH_WRITING:
        with suppress(OSError):
            _save(results.index_path(root), current)
    return Index(tuple(rows), tuple(damaged))


def finished(root: Path) -> set[tuple[Cell, str, str]]:
    """Cell, recipe and fingerprint of every readable result that lies where it belongs."""
    found = set()
    for row in read(root).rows:
        cell = Cell(*(row[field.name] for field in fields(Cell)))
        address = cell, row["recipe"], row["fingerprint"]
        if row["path"] == str(results.path(root, *address)):
            found.add(address)
    return found


_KEYS = (*COLUMNS, "device", "scoring_dtype")


def _values(plain: dict[str, Any]) -> list[Any]:
    dtype = plain["recipe_values"].get("scoring", {}).get("dtype")
    return [*(plain[key] for key in COLUMNS), plain["provenance"].get("device"), dtype]


def _files(top: str) -> Iterator[tuple[str, Stamp]]:
    """Names below `top`, and stamps, of all results; in the order of `results.result_paths`."""
    folders = [("", top)]
    while folders:
        inside, folder = folders.pop()
        try:
            with os.scandir(folder) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
        except OSError:
            continue
        within = []
        for entry in entries:
            if entry.name.endswith(".json"):
                try:
                    about = entry.stat()
                except FileNotFoundError:
                    continue  # replaced or set aside while we read
                yield f"{inside}{entry.name}", (about.st_ino, about.st_mtime_ns, about.st_size)
            elif entry.is_dir(follow_symlinks=False):
                within.append((f"{inside}{entry.name}/", entry.path))
        folders += reversed(within)


def _save(place: Path, known: Known) -> None:
    lines = [json.dumps([name, *stamp, *values], separators=(",", ":")) for name, (stamp, values) in known.items()]
    body = "\n".join(lines).encode()
    with replacing(place) as file:
        file.write(f"{_header(body)}\n".encode() + body)


def _header(body: bytes) -> str:
    """What the first line must be for the rest to be believed."""
    version = [*_KEYS, str(results.SCHEMA)]
    return json.dumps({"columns": version, "sha256": hashlib.sha256(body).hexdigest()})


def _load(place: Path) -> Known:
    try:
        head, _, body = place.read_bytes().partition(b"\n")
    except OSError:
        return {}
    if head.decode(errors="replace") != _header(body):
        return {}
    entries = json.loads(b"[" + body.replace(b"\n", b",") + b"]")
    return {name: ((number, changed, size), values) for name, number, changed, size, *values in entries}
