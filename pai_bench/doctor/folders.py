"""Checks of the results folder and its file system: write permission, hard links, free space, and the clock."""

from __future__ import annotations

import os
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pai_bench.doctor.checks import FAILED, OK, WARNING, Check, Checks, tried

SCARCE_BYTES, NONE_BYTES = 5 * 2**30, 100 * 2**20
SCARCE_FILES, NONE_FILES = 100_000, 1_000
SKEW = 30.0
"""Seconds by which the clocks of this host and of the file server may differ without a warning."""


def checks(root: Path) -> Checks:
    """Run all checks of the folder; when it does not exist yet, check its nearest existing parent."""
    if root.exists() and not root.is_dir():
        yield Check("results folder", FAILED, f"{root} is not a folder", "name a folder with --results")
        return
    folder = next(place for place in (root, *root.parents) if place.is_dir())
    yield tried("results folder", f"choose another with --results, or change the permissions of {folder}",
                lambda: _writable(root, folder))  # fmt: skip
    if not os.access(folder, os.W_OK):
        return  # the other checks write to the folder, and would fail for the same reason
    yield tried("hard links", "results are moved into place instead", lambda: _links(folder))
    yield tried("disk space", "see df", lambda: _space(folder))
    yield tried("clock", "see date", lambda: _clock(folder))


@contextmanager
def _probe(folder: Path) -> Iterator[Path]:
    """Create a small file in the folder, and remove it at the end of the context."""
    place = folder / f".doctor-{uuid.uuid4().hex}"
    try:
        with place.open("xb") as file:
            file.write(b"pai-bench doctor\n")
            file.flush()
            # On NFS, a full disk is reported only when the data reach the server.
            os.fsync(file.fileno())
        yield place
    finally:
        place.unlink(missing_ok=True)


def _writable(root: Path, folder: Path) -> Check:
    with _probe(folder) as place:
        place.read_bytes()
    note = "" if folder == root else f"; it does not exist yet, {folder} can be written to"
    return Check("results folder", OK, f"{root}{note}")


def _links(folder: Path) -> Check:
    with _probe(folder) as place:
        other = place.with_name(f"{place.name}-link")
        try:
            other.hardlink_to(place)
        except OSError as error:
            return Check(
                "hard links",
                WARNING,
                f"not supported ({error.strerror})",
                "none is needed: if two results of one cell are written at the same instant, the later one may win",
            )
        finally:
            other.unlink(missing_ok=True)
    return Check("hard links", OK, "supported, so the first result of a cell always wins")


def _space(folder: Path) -> Check:
    free = shutil.disk_usage(folder).free
    numbers = os.statvfs(folder)
    files = numbers.f_favail if numbers.f_files else None  # some file systems have no fixed number of files
    found = f"{free / 2**30:.1f} GiB free" + ("" if files is None else f", room for {files:,} files")
    least = min(free / NONE_BYTES, 1e9 if files is None else files / NONE_FILES)
    if least < 1:
        return Check("disk space", FAILED, found, "free space (checkpoints are in state/checkpoints)")
    scarce = free < SCARCE_BYTES or (files is not None and files < SCARCE_FILES)
    return Check("disk space", WARNING if scarce else OK, found, "free space before a large sweep" if scarce else None)


def _clock(folder: Path) -> Check:
    before = time.time()
    with _probe(folder) as place:
        written = place.stat().st_mtime
    after = time.time()
    # If the clocks agree, the file server's time stamp is between the two times; some file systems truncate it to whole
    # seconds.
    offset = written - after if written > after else min(0.0, written + 1 - before)
    if abs(offset) > SKEW:
        remedy = "inform your administrator (NTP); sweeps use the disk's clock, so no result is lost"
        return Check("clock", WARNING, f"the disk's clock differs from this host's by {offset:+.0f} s", remedy)
    return Check("clock", OK, f"this host and the disk agree within {max(1.0, abs(offset)):.0f} s")
