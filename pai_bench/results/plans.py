"""Plans: records of the cells that each sweep was asked for."""

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
    """Return the name of a new plan: the file server's time, at least one second later than every existing plan.

    Names sort by time and the last one counts, so a wrong clock of a host must not affect the order.
    """
    folder = root / "plans"
    now = datetime.fromtimestamp(server_time(folder), UTC)
    for place in folder.glob("*.json"):
        with suppress(ValueError, OverflowError):
            before = datetime.strptime(place.name.partition("-")[0], _STAMP).replace(tzinfo=UTC)
            now = max(now, before + timedelta(seconds=1))
    return f"{now:{_STAMP}}-{uuid.uuid4().hex[:6]}.json"


def write_plan(root: Path, name: str, plan: Mapping[str, Any]) -> None:
    """Write a plan, unless the newest plan has the same cells.

    The last key of the file is the SHA-256 of the preceding bytes, which detects any change.
    """
    newest = max((root / "plans").glob("*.json"), default=None)
    if newest is not None:
        with suppress(OSError, ValueError):
            if parse_plan(newest.read_bytes())["cells"] == parse_json(as_json(plan))["cells"]:
                return
    body = as_json(plan)[:-1]
    with replacing(root / "plans" / name) as file:
        file.write(body + _SEAL + hashlib.sha256(body).hexdigest().encode() + b'"}')


_SEAL = b',"sha256":"'


@dataclass(frozen=True)
class Plans:
    """The plans of a results folder."""

    found: tuple[dict[str, Any], ...]
    """Valid plans, oldest first."""
    damaged: tuple[str, ...]
    """One line for each skipped file that is unreadable or invalid."""


def read_plans(root: Path) -> Plans:
    """Read all plans."""
    found, damaged = [], []
    for place in sorted((root / "plans").glob("*.json")):
        try:
            found.append(parse_plan(place.read_bytes()))
        except GONE:
            if place.is_symlink():
                damaged.append(f"{shapes.below(root, place)} is a broken symbolic link: this plan is left out")
        except OSError as error:
            damaged.append(f"{shapes.below(root, place)} cannot be read ({reason(error)}): this plan is left out")
        except ValueError as error:
            damaged.append(f"{shapes.below(root, place)} is damaged ({error}): this plan is left out")
    return Plans(tuple(found), tuple(damaged))


def plans(root: Path) -> list[dict[str, Any]]:
    """Return all valid plans, oldest first."""
    return list(read_plans(root).found)


def parse_plan(content: bytes) -> dict[str, Any]:
    """Parse and check the content of a plan file.

    Raises: ValueError when it is not a valid plan.
    """
    body, separator, rest = content.rpartition(_SEAL)
    # Plans of earlier versions have no checksum.
    if separator and rest != hashlib.sha256(body).hexdigest().encode() + b'"}':
        raise ValueError("wrong checksum")
    plan = shapes.table(content)
    if type(plan.get("cells")) is not list:
        raise ValueError("it has no list of cells")
    methods: dict[str, bool] = {}
    for line in plan["cells"]:
        shapes.check_key(line, methods)
    return plan
