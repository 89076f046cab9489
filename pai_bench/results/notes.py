"""Notes beside the results: failed cells, attempts, plans."""

from __future__ import annotations

import errno
import json
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from pai_bench.atomic import GONE, read_bytes, reason, server_time, write_json
from pai_bench.cells import Cell
from pai_bench.results import paths

UNREAD = "unread"

_STAMP = "%Y%m%dT%H%M%S"


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
    note: Any = None
    with suppress(ValueError):
        note = json.loads(text)
    if not isinstance(note, dict):
        note = {}
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


def plan_name(root: Path) -> str:
    """What a plan written now is called: the time of the file server, and later than every plan before it.

    Names sort by time, and the last one counts: no host's clock, be it ahead or set back, may change that.
    """
    folder = root / "plans"
    now = datetime.fromtimestamp(server_time(folder), UTC)
    for place in folder.glob("*.json"):
        with suppress(ValueError, OverflowError):
            before = datetime.strptime(place.name.partition("-")[0], _STAMP).replace(tzinfo=UTC)
            now = max(now, before + timedelta(seconds=1))
    return f"{now:{_STAMP}}-{uuid.uuid4().hex[:6]}.json"


def write_plan(root: Path, name: str, plan: Mapping[str, Any]) -> None:
    """Note what a sweep was asked for, unless the newest plan has the same cells; names sort by time."""
    newest = max((root / "plans").glob("*.json"), default=None)
    if newest is not None:
        with suppress(OSError, ValueError, KeyError, TypeError):
            if json.loads(newest.read_bytes())["cells"] == plan["cells"]:
                return
    write_json(root / "plans" / name, plan)


def plans(root: Path) -> list[dict[str, Any]]:
    """All readable plans, oldest first."""
    found = []
    for place in sorted((root / "plans").glob("*.json")):
        with suppress(OSError, ValueError):
            found.append(json.loads(place.read_bytes()))
    return found
