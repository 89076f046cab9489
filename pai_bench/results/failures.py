"""Records of failed cells, stored separately from the results."""

from __future__ import annotations

import errno
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pai_bench.core.atomic import GONE, read_bytes, reason, write_json
from pai_bench.results import shapes
from pai_bench.results.key import ResultKey

UNREAD = "unread"


@dataclass(frozen=True)
class Failure:
    """Reason why a cell has no result."""

    cause: str
    traceback: str
    attempts: int
    """Number of consecutive failures of this kind, over all sweeps."""
    kind: str
    """"error", "oom", "hang" or "died"; UNREAD when the record exists but cannot be read."""


def write_failure(root: Path, key: ResultKey, *, cause: str, traceback: str, kind: str = "error") -> Failure:
    """Record the failure of a cell and its cause, and count the consecutive failures of this kind."""
    before = read_failure(root, key)
    attempts = before.attempts + 1 if before is not None and before.kind == kind else 1
    failure = Failure(cause, traceback, attempts, kind)
    write_json(key.failure_path(root), {**key.as_dict(), **asdict(failure)})
    return failure


def read_failure(root: Path, key: ResultKey) -> Failure | None:
    """Read the failure record of a cell, or return None; unreadable parts of the record are left empty."""
    try:
        text = read_bytes(key.failure_path(root))
    except GONE:
        return None
    except OSError as error:
        # On NFS, a file that another client has deleted may give ESTALE instead of ENOENT.
        if error.errno == errno.ESTALE:
            return None
        return Failure(f"its failure record cannot be read: {reason(error)}", "", 1, UNREAD)
    note: dict[str, Any] = {}
    try:
        note = shapes.table(text)
    except ValueError as error:
        place = shapes.below(root, key.failure_path(root))
        note = {"cause": f"the failure record {place} is damaged ({error})"}
    attempts = note.get("attempts")
    return Failure(
        str(note.get("cause", "")),
        str(note.get("traceback", "")),
        attempts if type(attempts) is int else 1,
        str(note.get("kind", "error")),
    )


def has_failed(root: Path, key: ResultKey) -> bool:
    """Return True if the cell has a failure record."""
    return key.failure_path(root).is_file()


def clear_failure(root: Path, key: ResultKey) -> None:
    """Delete the failure record of a cell."""
    key.failure_path(root).unlink(missing_ok=True)
