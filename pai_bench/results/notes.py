"""Notes beside the results: failed cells, attempts, plans."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pai_bench.atomic import write_json
from pai_bench.cells import Cell
from pai_bench.results import paths


@dataclass(frozen=True)
class Failure:
    """Why a cell has no result."""

    cause: str
    traceback: str
    attempts: int
    """How often it has failed in a row in this way (kind), in all sweeps."""
    kind: str
    """"error", "oom", "hang" or "died"."""


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
        text = paths.failure_path(root, cell, recipe, fingerprint).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
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
