"""Ledger of submissions: an append-only log per sweep with the fate of each chunk submitted to SLURM.

A chunk is the unit of one call of sbatch: a group of tasks, each with one or more cells. The submitter writes the
chunk's specification, appends a line to the ledger, calls sbatch, and appends the id of the job. Because of this order,
a later command can complete the record of a submitter that was killed between two steps.
"""

from __future__ import annotations

import json
import os
import pwd
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from pai_bench import results
from pai_bench.core.atomic import GONE, reason
from pai_bench.errors import PaiBenchError
from pai_bench.results import shapes
from pai_bench.sweep.slurm import specification, trust
from pai_bench.sweep.slurm.specification import Spec

PASSING = ("code", "environment")
"""Kinds of failure that the cell did not cause: the next sweep retries such a cell without --retry."""

PAUSES = (0.1, 0.3, 0.5, 0.0)
"""Seconds to wait after each failed attempt to read a file."""

_STR = (str,)
_LINES: Mapping[str, shapes.Kinds] = {
    "submitting": {"token": _STR, "at": _STR, "user": _STR, "cluster": _STR, "owner": (dict,)},
    "submitted": {"token": _STR, "job": _STR},
    "adopted": {"token": _STR, "job": _STR},
    "refused": {"token": _STR},
    "unanswered": {"token": _STR},
    "closed": {},
    "reopened": {},
}
"""Required fields of a ledger line, by event."""

_T = TypeVar("_T")


def _ledger_path(root: Path, sweep: str) -> Path:
    return results.sweeps_folder(root) / sweep / specification.LEDGER


@dataclass(frozen=True)
class Chunk:
    """State of a chunk according to the ledger."""

    root: Path
    sweep: str
    token: str
    user: str
    cluster: str
    owner: Mapping[str, Any]
    """The submitting process: the fields of Owner."""
    at: datetime
    """Time just before the submission."""
    job: str | None = None
    """The id of the job; None until sbatch has returned it."""
    refused: bool = False
    unanswered: bool = False
    """True when sbatch's reply was lost."""
    closed: bool = False
    """True when all jobs of the sweep were found to have ended."""
    redo: bool = False
    """True when cells with a result are run again."""

    @property
    def open(self) -> bool:
        """True when, according to the ledger, tasks of the chunk may be in flight."""
        return not self.closed and not self.refused

    def tasks(self) -> tuple[tuple[str, ...], ...]:
        """Return the names of the cells of each task; empty when the specification is missing or damaged, because then
        no task can run.

        Raises: PaiBenchError when the specification cannot be read.
        """
        return specification.names(_seen(Path.read_bytes, self.specification) or b"") or ()

    @property
    def specification(self) -> Path:
        """The path of the chunk's specification."""
        return specification.path_of(self.root, self.sweep, self.token)


class Ledger:
    """Writer of the ledger of one sweep."""

    def __init__(self, root: Path, sweep: str) -> None:
        self.root = root
        self.sweep = sweep
        self._place = _ledger_path(root, sweep)

    @staticmethod
    def new_sweep() -> str:
        """Return a new name for a sweep; names sort by time."""
        return f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:6]}"

    def submitting(self, spec: Spec, cluster: str, owner: Mapping[str, Any]) -> None:
        """Record that sbatch is about to be called."""
        sizes = {"n_tasks": len(spec.tasks), "n_cells": sum(len(task) for task in spec.tasks)}
        more = {"cluster": cluster, "owner": dict(owner), "redo": spec.settings.redo}
        self._append("submitting", token=spec.token, user=user(), **more, **sizes)

    def submitted(self, token: str, job: str) -> None:
        """Record the job that sbatch created."""
        self._append("submitted", token=token, job=job)

    def refused(self, token: str, cause: str) -> None:
        """Record that SLURM refused the chunk."""
        self._append("refused", token=token, cause=cause)

    def unanswered(self, token: str, cause: str) -> None:
        """Record that sbatch's reply was lost, so that SLURM may or may not have accepted the chunk."""
        self._append("unanswered", token=token, cause=cause)

    def adopted(self, token: str, job: str) -> None:
        """Record the job of a chunk whose submitter could not record it."""
        self._append("adopted", token=token, job=job)

    def close(self) -> None:
        """Record that all jobs of the sweep have ended, so that later commands do not query them."""
        self._append("closed")

    def reopen(self) -> None:
        """Record that a job of a closed sweep is still in the queue."""
        self._append("reopened")

    def _append(self, event: str, **fields: Any) -> None:
        line = {"event": event, "at": datetime.now(UTC).isoformat(timespec="seconds"), **fields}
        trust.make_folder(self._place.parent)
        # Begin with a newline: a writer that was killed may have left an incomplete line. A single write with O_APPEND
        # keeps the lines of concurrent writers apart on local disks; NFS does not guarantee it, so readers skip
        # damaged lines.
        text = "\n" + json.dumps(line, separators=(",", ":")) + "\n"
        descriptor = os.open(self._place, os.O_WRONLY | os.O_CREAT | os.O_APPEND, trust.FILE_MODE)
        try:
            trust.close_file(descriptor)
            os.write(descriptor, text.encode())
            # After a crash of this host, another submitter must find the line, or it would submit the cells twice.
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def user() -> str:
    """Return the name of the process's user, to whom SLURM assigns its jobs; LOGNAME may differ from it."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def all_chunks(root: Path) -> list[Chunk]:
    """Return all chunks of a results folder, oldest first, including refused chunks and closed sweeps.

    Raises: PaiBenchError when a ledger cannot be read.
    """
    # Path.glob ignores errors, so an unreadable folder would look empty; os.listdir raises.
    sweeps = sorted(_seen(os.listdir, results.sweeps_folder(root)) or ())
    return [chunk for sweep in sweeps for chunk in sweep_chunks(root, sweep)]


def open_chunks(root: Path) -> list[Chunk]:
    """Return the chunks whose tasks may be in flight."""
    return [chunk for chunk in all_chunks(root) if chunk.open]


def sweep_chunks(root: Path, sweep: str) -> list[Chunk]:
    """Return all chunks of one sweep, closed or not.

    Raises: PaiBenchError when the ledger cannot be read.
    """
    chunks: dict[str, Chunk] = {}
    closed = False
    for line in _lines(root, sweep):
        token, event = line.get("token", ""), line["event"]
        # A line about an unknown chunk is skipped: the chunk's first line may be damaged.
        with suppress(KeyError, ValueError):
            if event == "submitting":
                at = datetime.fromisoformat(line["at"])
                known = (line["user"], line["cluster"], line["owner"], at)
                chunks[token] = Chunk(root, sweep, token, *known, redo=bool(line.get("redo")))
            elif event in ("submitted", "adopted"):
                chunks[token] = replace(chunks[token], job=line["job"], refused=False, unanswered=False)
            elif event in ("refused", "unanswered"):
                chunks[token] = replace(chunks[token], refused=event == "refused", unanswered=event != "refused")
        # A closed sweep opens again with its next submission.
        closed = event == "closed" or (closed and event not in ("submitting", "reopened"))
    return [replace(chunk, closed=closed) for chunk in chunks.values()]


def _seen(look: Callable[[Path], _T], place: Path) -> _T | None:
    """Return `look(place)`, or None when the file does not exist.

    Other errors are retried for a fraction of a second, because NFS reports transient ones (ESTALE).

    Raises: PaiBenchError when the file stays unreadable. If an unreadable ledger counted as empty, queued cells would
        be submitted a second time.
    """
    cause = ""
    for pause in PAUSES:
        try:
            return look(place)
        except (*GONE, IsADirectoryError):
            return None
        except OSError as error:
            cause = reason(error)
            time.sleep(pause)
    raise PaiBenchError(
        f"{place} cannot be read: {cause}",
        "the jobs recorded in it are unknown until then: try again later, or ask the owner to make it readable",
    )


def complaints(root: Path) -> list[str]:
    """Return a message for each ledger and specification that is damaged or that users other than its owner can modify.

    Only sweeps with tasks that may be in flight are checked.

    Raises: PaiBenchError when a file cannot be read.
    """
    found = []
    for sweep in sorted(_seen(os.listdir, results.sweeps_folder(root)) or ()):
        chunks, place = sweep_chunks(root, sweep), _ledger_path(root, sweep)
        name = shapes.below(root, place)
        if place.is_dir() or (place.is_symlink() and not place.exists()):
            found.append(f"{name} is not a regular file: the jobs recorded in it are left out")
            continue
        damaged: list[str] = []
        list(_lines(root, sweep, damaged.append))
        if damaged and (not chunks or any(chunk.open for chunk in chunks)):
            found.append(f"{len(damaged)} lines of {name} are left out: {damaged[0]}")
        for chunk in chunks:
            if not chunk.open:
                continue
            text = _seen(Path.read_bytes, chunk.specification)
            if text is None or specification.names(text) is None:
                found.append(f"{shapes.below(root, chunk.specification)} is missing or damaged: its job can do nothing")
            for place in (_ledger_path(root, sweep), chunk.specification):
                with suppress(OSError):
                    status = place.stat()
                    # The owner is taken as given, because a shared folder holds sweeps of several users.
                    if error := trust.fault(place, status, status.st_uid):
                        found.append(f"{error.cause}; {error.remedy}")
    return list(dict.fromkeys(found))


def _ignore(_text: str) -> None:
    pass


def _lines(root: Path, sweep: str, complain: Callable[[str], None] = _ignore) -> Iterator[Mapping[str, Any]]:
    """Yield the valid lines of a ledger; call `complain` with the error of each invalid line."""
    place = _ledger_path(root, sweep)
    text = _seen(Path.read_bytes, place) or b""
    owner = _owner(place)
    for line in text.splitlines():
        if not line.strip():
            continue
        try:
            plain = shapes.table(line)
            shapes.check(plain, _LINES[str(plain.get("event"))])
            if plain["event"] == "submitting" and owner is not None and plain["user"] != owner:
                raise ValueError(f"it names the user {plain['user']}, and the file belongs to {owner}")
        except KeyError:
            complain("an unknown event")
        except ValueError as error:
            complain(str(error))
        else:
            yield plain


def _owner(place: Path) -> str | None:
    """Return the name of the file's owner; None for root or an unknown owner."""
    with suppress(OSError, KeyError):
        uid = place.stat().st_uid
        return pwd.getpwuid(uid).pw_name if uid else None
    return None
