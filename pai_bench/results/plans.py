"""plans."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from pai_bench.core.atomic import GONE, as_json, parse_json, reason, replacing, server_time
from pai_bench.results import shapes

_STAMP = "%Y%m%dT%H%M%S"


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
