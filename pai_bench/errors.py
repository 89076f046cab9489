"""The one error that users see: a line of cause and a line of remedy."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class PaiBenchError(Exception):
    """Bad input or a bad environment, told in one line of cause and one of remedy (exit code 2)."""

    def __init__(self, cause: str, remedy: str) -> None:
        super().__init__(cause, remedy)
        self.cause = cause
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.cause}\n{self.remedy}"


def unknown(kind: str, name: str, known: Iterable[str]) -> PaiBenchError:
    """The error for a name that is not known, with the nearest ones, whatever their case, and the whole list."""
    names = sorted(known)
    by_lower = {known_name.lower(): known_name for known_name in names}
    near = [by_lower[match] for match in difflib.get_close_matches(name.lower(), by_lower, n=3, cutoff=0.5)]
    if name.lower() in by_lower:
        near = near[:1]
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    return PaiBenchError(f"unknown {kind} {name!r}", f"{hint}known: {', '.join(names)}")
