"""Notes beside the results: failed cells, attempts, plans."""

from __future__ import annotations

import errno
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pai_bench.cells import Cell
from pai_bench.core.atomic import GONE, read_bytes, reason, write_json
from pai_bench.results import paths, shapes

UNREAD = "unread"


@dataclass(frozen=True)
class Failure:
    """Why a cell has no result."""

    cause: str
    traceback: str
    attempts: int
    """How often it has failed in a row in this way (kind), in all sweeps."""
    kind: str
    """"error", "oom", "hang" or "died"; UNREAD where there is a note that cannot be read."""


def write_failure(
    root: Path, cell: Cell, recipe: str, fingerprint: str, *, cause: str, traceback: str, kind: str = "error"
) -> Failure:
    """Note that a cell failed, and why; counts how often it has failed so."""
    before = read_failure(root, cell, recipe, fingerprint)
    attempts = before.attempts + 1 if before is not None and before.kind == kind else 1
    failure = Failure(cause, traceback, attempts, kind)
    note = {**asdict(cell), "recipe": recipe, "fingerprint": fingerprint, **asdict(failure)}
    write_json(paths.failure_path(root, cell, recipe, fingerprint), note)
    return failure


def read_failure(root: Path, cell: Cell, recipe: str, fingerprint: str) -> Failure | None:
    """The note that a cell failed, if there is one; what cannot be read of it is left empty."""
    try:
        text = read_bytes(paths.failure_path(root, cell, recipe, fingerprint))
    except GONE:
        return None
    except OSError as error:
        if error.errno == errno.ESTALE:
            return None
        return Failure(f"the note of its failure cannot be read: {reason(error)}", "", 1, UNREAD)
    note: dict[str, Any] = {}
    try:
        note = shapes.table(text)
    except ValueError as error:
        place = shapes.below(root, paths.failure_path(root, cell, recipe, fingerprint))
        note = {"cause": f"the note {place} is damaged ({error})"}
    attempts = note.get("attempts")
    return Failure(
        str(note.get("cause", "")),
        str(note.get("traceback", "")),
        attempts if type(attempts) is int else 1,
        str(note.get("kind", "error")),
    )


def has_failed(root: Path, cell: Cell, recipe: str, fingerprint: str) -> bool:
    """Whether there is a note that a cell failed."""
    return paths.failure_path(root, cell, recipe, fingerprint).is_file()


def clear_failure(root: Path, cell: Cell, recipe: str, fingerprint: str) -> None:
    """Forget that a cell failed."""
    paths.failure_path(root, cell, recipe, fingerprint).unlink(missing_ok=True)
