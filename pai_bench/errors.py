"""The error that users see: one line with the cause and one line with the remedy."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class PaiBenchError(Exception):
    """Bad input or a bad environment (exit code 2), described by one line of cause and one line of remedy."""

    def __init__(self, cause: str, remedy: str) -> None:
        super().__init__(cause, remedy)
        self.cause = cause
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.cause}\n{self.remedy}"


def unknown(kind: str, name: str, known: Iterable[str]) -> PaiBenchError:
    """Return the error for an unknown name; its remedy suggests similar names (ignoring case) and lists all names."""
    names = sorted(known)
    near = similar(name, names)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    return PaiBenchError(f"unknown {kind} {name!r}", f"{hint}known: {', '.join(names)}")


def similar(name: str, known: Iterable[str], cutoff: float = 0.5) -> list[str]:
    """Return up to three known names that are similar to a name (ignoring case), the most similar one first."""
    by_lower = {known_name.lower(): known_name for known_name in known}
    matches = difflib.get_close_matches(name.lower(), by_lower, n=3, cutoff=cutoff)
    if name.lower() in by_lower:
        return [by_lower[name.lower()]]
    likeness = {match: difflib.SequenceMatcher(None, match, name.lower()).ratio() for match in matches}
    # A name that is much less similar than the best one would only distract.
    return [by_lower[match] for match in matches if likeness[match] > likeness[matches[0]] - 0.2]
