"""Parsing and validation of claim and heartbeat files."""

from __future__ import annotations

from typing import Any

from pai_bench.results import shapes
from pai_bench.results.key import ResultKey
from pai_bench.sweep.execution.owner import Owner

_OWNER: shapes.Kinds = {
    **dict.fromkeys(("id", "host", "machine"), (str,)),
    **dict.fromkeys(("pid", "restart"), (int,)),
    "ticks": (int, type(None)),
    **dict.fromkeys(("job", "sweep"), (str, type(None))),
}
_BEAT: shapes.Kinds = {
    "phase": (str, type(None)),
    **dict.fromkeys(("epoch", "epochs", "progress"), (int, type(None))),
    **dict.fromkeys(("seconds_per_epoch", "seconds"), (int, float, type(None))),
}


def parse(content: bytes) -> tuple[ResultKey, Owner] | None:
    """Return the cell and the owner recorded in a claim; None if the content is not a valid claim."""
    try:
        plain = shapes.table(content)
        shapes.check_key(plain, {})
        shapes.check(plain["owner"], _OWNER)
        return ResultKey.of(plain), Owner(**plain["owner"])
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def parse_beat(content: bytes) -> dict[str, Any] | None:
    """Return the fields of a heartbeat; None if the content is not a valid heartbeat."""
    try:
        plain = shapes.table(content)
        shapes.check(plain, _BEAT)
    except ValueError:
        return None
    return plain
