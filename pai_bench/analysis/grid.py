"""Tables before they are written as Markdown or LaTeX: plain text in rows and columns, with emphasis and notes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

NONE = "–"
"""Entry of a combination that was not run."""

MARKS = ("†", "‡", "§", "¶")


class Cell(NamedTuple):
    """An entry: a number and what qualifies it."""

    number: str
    spread: str = ""
    """"± 0.12", or an interval "[-0.10, 0.25]"."""
    extra: str = ""
    """Text in parentheses, as "3" or "1c of 3"."""
    mark: str = ""
    """Sign behind the entry, as a dagger or ≈."""
    bold: bool = False
    underlined: bool = False
    superscript: str = ""


EMPTY = Cell(NONE)


@dataclass(frozen=True)
class Column:
    """A column: the lines of its head; equal leading lines of neighbours are headings of a group."""

    group: tuple[str, ...]
    head: str


@dataclass(frozen=True)
class Row:
    """A row: its label and one cell per column. A row without cells is a heading across the table."""

    label: str
    cells: tuple[Cell, ...]
    by_group: bool = False
    """True if there is one cell per group of columns, centred over its columns."""


@dataclass(frozen=True)
class Grid:
    """A table with its caption."""

    title: str
    caption: str
    corner: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()
    """Texts below the table; the first character of each is its mark."""

    @cached_property
    def groups(self) -> list[tuple[tuple[str, ...], int, int]]:
        """Heading, first column and end of each group of columns."""
        found: list[tuple[tuple[str, ...], int, int]] = []
        for index, column in enumerate(self.columns):
            if found and found[-1][0] == column.group:
                found[-1] = (column.group, found[-1][1], index + 1)
            else:
                found.append((column.group, index, index + 1))
        return found


class Notes:
    """Marks for texts: equal texts share a mark."""

    def __init__(self) -> None:
        self._marks: dict[str, str] = {}

    def mark(self, text: str) -> str:
        """Return the mark of a text, "" for an empty one."""
        if not text:
            return ""
        count = len(self._marks)
        return self._marks.setdefault(text, MARKS[count % len(MARKS)] * (count // len(MARKS) + 1))

    def lines(self) -> tuple[str, ...]:
        """Return the notes in the order of their marks."""
        return tuple(f"{mark} {text}" for text, mark in self._marks.items())


def joined(texts: Iterable[str]) -> str:
    """Join distinct, non-empty texts."""
    return "; ".join(dict.fromkeys(text for text in texts if text))
