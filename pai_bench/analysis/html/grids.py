"""Tables of methods by sparsities in the HTML page, with the emphasis and notes of the Markdown and LaTeX tables."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup, escape

from pai_bench.analysis.grid import Cell, Grid


@dataclass(frozen=True)
class Matrix:
    """A table of a panel: one row per method."""

    id: str
    grid: Grid

    @property
    def body(self) -> Markup:
        """The rows as markup, without headings, since rows can be sorted; numbers are emphasised as elsewhere."""
        lines = (f"<tr><td>{escape(row.label)}" + "".join(map(_cell, row.cells)) for row in self.grid.rows if row.cells)
        return Markup("\n".join(lines))


def _cell(cell: Cell) -> Markup:
    number = Markup("<b>{}</b>").format(cell.number) if cell.bold else escape(cell.number)
    if cell.underlined:
        number = Markup("<u>{}</u>").format(number)
    raised = Markup("<sup>{}</sup>").format(cell.superscript) if cell.superscript else Markup()
    parts = [number, raised, escape(f" {cell.spread}" if cell.spread else "")]
    parts.append(Markup(" <small>({})</small>").format(cell.extra) if cell.extra else Markup())
    parts.append(Markup("<sup>{}</sup>").format(cell.mark) if cell.mark else Markup())
    return Markup("<td>") + Markup().join(parts)
