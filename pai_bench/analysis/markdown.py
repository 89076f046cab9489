"""Tables as Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache

from pai_bench.analysis.grid import Cell, Grid


def to_markdown(grids: Iterable[Grid]) -> str:
    """Write tables as GitHub-flavoured Markdown: heading, table, caption and notes."""
    return "\n\n".join(map(_table, grids)) + "\n"


@cache
def escape(text: str) -> str:
    """Escape the characters of a name that Markdown would interpret."""
    # The ampersand first, or the ones of the entities would be escaped again.
    return re.sub(r"([|*`$\\])", r"\\\1", text.replace("&", "&amp;").replace("<", "&lt;"))


def _table(grid: Grid) -> str:
    groups = grid.groups
    heads = [" ".join([*column.group, column.head]) for column in grid.columns]
    lines = [[grid.corner, *map(escape, heads)]]
    for row in grid.rows:
        if row.by_group:
            cells = [cell for cell, (_, start, end) in zip(row.cells, groups, strict=True) for _ in range(end - start)]
        else:
            cells = list(row.cells)
        label = f"**{escape(row.label)}**" if not row.cells else escape(row.label)
        lines.append([label, *(map(_text, cells) if cells else [""] * len(heads))])
    widths = [max(len(line[place]) for line in lines) for place in range(len(heads) + 1)]
    texts = ["| " + " | ".join(map(str.ljust, line, widths)) + " |" for line in lines]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    below = "\n\n".join([escape(grid.caption), *map(escape, grid.notes)])
    return "\n".join([f"### {escape(grid.title)}", "", texts[0], rule, *texts[1:], "", below])


def _text(cell: Cell) -> str:
    number = escape(cell.number)
    number = f"<u>{number}</u>" if cell.underlined else number
    number = f"**{number}**" if cell.bold else number
    raised = f"<sup>{cell.superscript}</sup>" if cell.superscript else ""
    return " ".join(
        part for part in (number + raised, cell.spread, f"({cell.extra})" if cell.extra else "", cell.mark) if part
    )
