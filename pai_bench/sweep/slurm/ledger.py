"""What has been handed to SLURM, on disk: a specification for each chunk, and a ledger of what became of it.

A chunk is what one sbatch takes: tasks, each of some cells. Its specification is written first, then a line in the
ledger, then sbatch is called, then its job is noted. Whoever is killed in between leaves enough to tell the rest.
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
"""Kinds of failure that are none of the cell's: the next sweep tries again by itself."""

PAUSES = (0.1, 0.3, 0.5, 0.0)
"""Seconds after each of the tries to read what cannot be read."""

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
"""What the line of each event must hold."""

_T = TypeVar("_T")


def _ledger_path(root: Path, sweep: str) -> Path:
    return results.sweeps_folder(root) / sweep / specification.LEDGER


@dataclass(frozen=True)
class Chunk:
    """What the ledger says of a chunk."""

    root: Path
    sweep: str
    token: str
    user: str
    cluster: str
    owner: Mapping[str, Any]
    """The submitting process, as Owner has it."""
    at: datetime
    """When it was about to be submitted."""
    job: str | None = None
    """The job, once it is known; None: sbatch was about to be called."""
    refused: bool = False
    unanswered: bool = False
    """Whether sbatch's answer got lost."""
    closed: bool = False
    """Whether the sweep was taken for ended."""
    redo: bool = False
    """Whether cells that have a result are run again."""

    @property
    def open(self) -> bool:
        """Whether tasks of the chunk may be on their way, as far as the ledger tells."""
        return not self.closed and not self.refused

    def tasks(self) -> tuple[tuple[str, ...], ...]:
        """The names of the cells of each task; empty when its specification is gone or damaged: no task can run it.

        Raises: PaiBenchError when it cannot be read.
        """
        return specification.names(_seen(Path.read_bytes, self.specification) or b"") or ()

    @property
    def specification(self) -> Path:
        """The path of its specification."""
        return specification.path_of(self.root, self.sweep, self.token)


class Ledger:
    """The ledger of one sweep, to write to."""

    def __init__(self, root: Path, sweep: str) -> None:
        self.root = root
        self.sweep = sweep
        self._place = _ledger_path(root, sweep)

    @staticmethod
    def new_sweep() -> str:
        """A name for a sweep; names sort by time."""
        return f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:6]}"

    def submitting(self, spec: Spec, cluster: str, owner: Mapping[str, Any]) -> None:
        """Before sbatch."""
        sizes = {"n_tasks": len(spec.tasks), "n_cells": sum(len(task) for task in spec.tasks)}
        more = {"cluster": cluster, "owner": dict(owner), "redo": spec.redo}
        self._append("submitting", token=spec.token, user=user(), **more, **sizes)

    def submitted(self, token: str, job: str) -> None:
        """After sbatch."""
        self._append("submitted", token=token, job=job)

    def refused(self, token: str, cause: str) -> None:
        """SLURM did not take the chunk."""
        self._append("refused", token=token, cause=cause)

    def unanswered(self, token: str, cause: str) -> None:
        """Nobody can tell if SLURM has taken the chunk."""
        self._append("unanswered", token=token, cause=cause)

    def adopted(self, token: str, job: str) -> None:
        """Somebody else found the job of a submitter that could not note it."""
        self._append("adopted", token=token, job=job)

    def close(self) -> None:
        """All of the sweep's jobs have ended; nobody needs to ask for them again."""
        self._append("closed")

    def reopen(self) -> None:
        """A job of the sweep lives after all."""
        self._append("reopened")

    def _append(self, event: str, **fields: Any) -> None:
        line = {"event": event, "at": datetime.now(UTC).isoformat(timespec="seconds"), **fields}
        trust.make_folder(self._place.parent)
        # A line of its own, also behind one that was cut off.
        text = "\n" + json.dumps(line, separators=(",", ":")) + "\n"
        descriptor = os.open(self._place, os.O_WRONLY | os.O_CREAT | os.O_APPEND, trust.FILE_MODE)
        try:
            trust.close_file(descriptor)
            os.write(descriptor, text.encode())
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def user() -> str:
    """Whose jobs they are: SLURM goes by the process's user, whatever LOGNAME says."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def all_chunks(root: Path) -> list[Chunk]:
    """All chunks of a results folder, oldest first, those of closed sweeps and refused ones too.

    Raises: PaiBenchError when a ledger cannot be read.
    """
    # No glob: it takes a folder that cannot be read for an empty one.
    sweeps = sorted(_seen(os.listdir, results.sweeps_folder(root)) or ())
    return [chunk for sweep in sweeps for chunk in sweep_chunks(root, sweep)]


def open_chunks(root: Path) -> list[Chunk]:
    """The chunks of `all_chunks` whose tasks may be on their way."""
    return [chunk for chunk in all_chunks(root) if chunk.open]


def sweep_chunks(root: Path, sweep: str) -> list[Chunk]:
    """All chunks of one sweep, closed or not.

    Raises: PaiBenchError when its ledger cannot be read.
    """
    chunks: dict[str, Chunk] = {}
    closed = False
    for line in _lines(root, sweep):
        token, event = line.get("token", ""), line["event"]
        with suppress(KeyError, ValueError):
            if event == "submitting":
                at = datetime.fromisoformat(line["at"])
                known = (line["user"], line["cluster"], line["owner"], at)
                chunks[token] = Chunk(root, sweep, token, *known, redo=bool(line.get("redo")))
            elif event in ("submitted", "adopted"):
                chunks[token] = replace(chunks[token], job=line["job"], refused=False, unanswered=False)
            elif event in ("refused", "unanswered"):
                chunks[token] = replace(chunks[token], refused=event == "refused", unanswered=event != "refused")
        closed = event == "closed" or (closed and event not in ("submitting", "reopened"))
    return [replace(chunk, closed=closed) for chunk in chunks.values()]


def _seen(look: Callable[[Path], _T], place: Path) -> _T | None:
    """What `look` finds at a place, None where no file is; tries again for a second, as a file server may stumble.

    Raises: PaiBenchError when it cannot be read: that is not nothing, and what is queued would be submitted again.
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
        "what it says is on its way is unknown: try again later, or let its owner make it readable",
    )


def complaints(root: Path) -> list[str]:
    """Return a line for each ledger and specification that is damaged, or that others than its owner can have written,
    of sweeps whose tasks may be on their way.

    Raises: PaiBenchError when one cannot be read.
    """
    found = []
    for sweep in sorted(_seen(os.listdir, results.sweeps_folder(root)) or ()):
        chunks, place = sweep_chunks(root, sweep), _ledger_path(root, sweep)
        name = shapes.below(root, place)
        if place.is_dir() or (place.is_symlink() and not place.exists()):
            found.append(f"{name} is no file: what it held of submitted jobs is left out")
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
                    if error := trust.fault(place, status, status.st_uid):
                        found.append(f"{error.cause}; {error.remedy}")
    return list(dict.fromkeys(found))


def _ignore(_text: str) -> None:
    pass


def _lines(root: Path, sweep: str, complain: Callable[[str], None] = _ignore) -> Iterator[Mapping[str, Any]]:
    """The valid lines of a ledger; `complain` is told of the others."""
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
            complain("an event that is not known")
        except ValueError as error:
            complain(str(error))
        else:
            yield plain


def _owner(place: Path) -> str | None:
    """The name of the user whose file it is; None where root's, or where that cannot be told."""
    with suppress(OSError, KeyError):
        uid = place.stat().st_uid
        return pwd.getpwuid(uid).pw_name if uid else None
    return None
