"""What a check says, and how checks are run one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

OK, WARNING, FAILED = "ok", "warning", "failed"


@dataclass(frozen=True)
class Check:
    """One thing that was tried: its name, "ok", "warning" or "failed", what was found, and what to do about it."""

    name: str
    state: str
    found: str
    remedy: str | None = None


def tried(name: str, remedy: str, attempt: Callable[[], Check]) -> Check:
    """What the attempt says; where it raises instead, the check has failed."""
    try:
        return attempt()
    except Exception as error:  # whatever is wrong with a machine is what doctor is asked for
        text = str(error).strip().splitlines()
        return Check(name, FAILED, f"{type(error).__name__}: {text[0] if text else 'no message'}", remedy)


Checks = Iterator[Check]
