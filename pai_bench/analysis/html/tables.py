"""Tables of the HTML page: columns, formatted cells, and their markup."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup, escape

from pai_bench.analysis.grid import NONE
from pai_bench.analysis.labels import per_cent

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Column:
    """A column: the name that filters use, its title, and the format of its cells."""

    name: str
    title: str
    text: Callable[[Row], str]
    number: bool = False
    """True for numbers, which are aligned at the right and sorted by value."""
    varies: bool = False
    """True for a column that is left out if all its cells are equal; words are then named above the table."""


@dataclass(frozen=True)
class Table:
    """A table whose cells are formatted."""

    id: str
    title: str
    intro: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]

    @property
    def body(self) -> Markup:
        """The rows as markup. End tags are optional in HTML, and omitted for the sake of size."""
        lines = ("<tr>" + "".join(f"<td>{escape(cell)}" for cell in row) for row in self.rows)
        return Markup("\n".join(lines))

    @property
    def numbers(self) -> list[int]:
        """The positions of columns of numbers, from 1."""
        return [place for place, column in enumerate(self.columns, 1) if column.number]


def table(id_: str, title: str, intro: str, columns: Sequence[Column], rows: Iterable[Row]) -> Table:
    """Format a table; columns that need not be shown, because all their cells are equal, are described in words."""
    found = list(rows)
    cells = {column.name: [column.text(row) for row in found] for column in columns}
    equal = [column for column in columns if column.varies and len(set(cells[column.name])) <= 1]
    shown = tuple(column for column in columns if column not in equal)
    values = [
        f"{column.title.lower()} {escape(cells[column.name][0])}"
        for column in equal
        if not column.number and found and cells[column.name][0]
    ]
    words = f"{intro} All rows: {', '.join(values)}." if values else intro
    rows_of_cells = tuple(zip(*(cells[column.name] for column in shown), strict=True))
    return Table(id_, title, words.strip(), shown, rows_of_cells)


def known(value: Any) -> bool:
    """Return True unless a value is missing: None, NaN, or a missing value of pandas."""
    # pandas.NA has no truth value, hence the comparison of its text.
    return value is not None and not (isinstance(value, float) and math.isnan(value)) and str(value) != "<NA>"


def word(name: str, title: str, *, varies: bool = False) -> Column:
    """Return a column of words."""
    return Column(name, title, lambda row: str(row[name]) if known(row.get(name)) else "", varies=varies)


def whole(name: str, title: str, *, varies: bool = False) -> Column:
    """Return a column of whole numbers."""
    return Column(name, title, lambda row: f"{int(row[name])}" if known(row.get(name)) else NONE, True, varies)


def decimal(name: str, title: str, digits: int = 2, scale: float = 1.0, sign: str = "") -> Column:
    """Return a column of numbers with fixed digits, after multiplication by `scale`."""

    def text(row: Row) -> str:
        if not known(row.get(name)):
            return NONE
        return f"{round(scale * row[name], digits) + 0.0:{sign}.{digits}f}"  # + 0.0: no negative zero

    return Column(name, title, text, True)


def percentage(name: str, title: str, digits: int = 2) -> Column:
    """Return a column of fractions, shown in per cent."""
    return decimal(name, title, digits, 100.0)


def sparsity(title: str = "Sparsity (%)") -> Column:
    """Return the column of the sparsity in per cent."""
    return Column("sparsity", title, lambda row: per_cent(row["sparsity"]), True)


SETTING = (
    word("dataset", "Data set", varies=True),
    word("model", "Network", varies=True),
    word("recipe", "Recipe", varies=True),
    word("source", "Source", varies=True),
)
"""Columns of the setting of a row, which are left out where there is one setting only."""
