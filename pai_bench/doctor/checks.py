"""Outcome of a check, and the wrapper that turns exceptions into failed checks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

OK, WARNING, FAILED = "ok", "warning", "failed"


@dataclass(frozen=True)
class Check:
    """Outcome of one check: its name, the state ("ok", "warning" or "failed"), the findings, and a remedy."""

    name: str
    state: str
    found: str
    remedy: str | None = None


def tried(name: str, remedy: str, attempt: Callable[[], Check]) -> Check:
    """Return the check that `attempt` makes; when it raises, return a failed check with the error and the remedy."""
    try:
        return attempt()
    except Exception as error:  # doctor reports any fault of the machine instead of ending with it
        text = str(error).strip().splitlines()
        return Check(name, FAILED, f"{type(error).__name__}: {text[0] if text else 'no message'}", remedy)


Checks = Iterator[Check]
