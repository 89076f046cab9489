"""Notes beside the results: failed cells, attempts, plans."""

from __future__ import annotations

import errno
import hashlib
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from pai_bench.atomic import GONE, as_json, parse_json, read_bytes, reason, replacing, server_time, write_json
from pai_bench.cells import Cell
from pai_bench.results import paths, shapes

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
    """Note what a sweep was asked for, unless the newest plan has the same cells; names sort by time.

    The last key of the file is the SHA-256 of all that precedes it, so that one changed letter is noticed.
    """
    newest = max((root / "plans").glob("*.json"), default=None)
    if newest is not None:
        with suppress(OSError, ValueError):
            if _read_plan(newest)["cells"] == parse_json(as_json(plan))["cells"]:
                return
    body = as_json(plan)[:-1]
    with replacing(root / "plans" / name) as file:
        file.write(body + _SEAL + hashlib.sha256(body).hexdigest().encode() + b'"}')


_SEAL = b',"sha256":"'


@dataclass(frozen=True)
class Plans:
    """The plans of a results folder."""

    found: tuple[dict[str, Any], ...]
    """Oldest first."""
    damaged: tuple[str, ...]
    """A line for each file that is left out: it cannot be read, or is no plan."""


def read_plans(root: Path) -> Plans:
    """Read all plans."""
    found, damaged = [], []
    for place in sorted((root / "plans").glob("*.json")):
        try:
            found.append(_read_plan(place))
        except GONE:
            if place.is_symlink():
                damaged.append(f"{shapes.below(root, place)} is a link to nothing: this plan is left out")
        except OSError as error:
            damaged.append(f"{shapes.below(root, place)} cannot be read ({reason(error)}): this plan is left out")
        except ValueError as error:
            damaged.append(f"{shapes.below(root, place)} is damaged ({error}): this plan is left out")
    return Plans(tuple(found), tuple(damaged))


def plans(root: Path) -> list[dict[str, Any]]:
    """All valid plans, oldest first."""
    return list(read_plans(root).found)


def _read_plan(place: Path) -> dict[str, Any]:
    """Raises: ValueError when the file is no plan, OSError when it cannot be read."""
    content = place.read_bytes()
    body, seal, rest = content.rpartition(_SEAL)
    # Plans of earlier versions have no seal.
    if seal and rest != hashlib.sha256(body).hexdigest().encode() + b'"}':
        raise ValueError("its checksum is another")
    plan = shapes.table(content)
    if type(plan.get("cells")) is not list:
        raise ValueError("it has no list of cells")
    methods: dict[str, bool] = {}
    for line in plan["cells"]:
        shapes.check_address(line, methods)
    return plan
