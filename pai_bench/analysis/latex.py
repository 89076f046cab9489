r"""Tables as LaTeX for \input: booktabs tables no wider than the text, in several blocks or floats if needed."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache

from pai_bench.analysis.grid import EMPTY, NONE, Cell, Column, Grid, Row
from pai_bench.analysis.latex_text import escape, is_transliterated, row_start
from pai_bench.analysis.latex_widths import BOLD, SIZE, SMALL, SMALL_RATIO, text_width

_LINES = 44
"""Largest number of lines of the tabulars in one float."""
_SEPARATION = 3.0
"""Space on either side of a column in points (LaTeX's tabcolsep)."""
_LABEL_SHARE = 0.36
"""Largest share of the width for the labels; longer labels are broken."""
_PREAMBLE = r"""% needs \usepackage{booktabs}
\providecommand{\paibenchsd}[1]{{\fontsize{7}{8.4}\selectfont\,#1}}
"""


@dataclass(frozen=True)
class Page:
    """Space for a table: width in points; `star` for a table across both columns of a two-column page."""

    width: float = 397.48
    star: bool = False


def to_latex(grids: Iterable[Grid], page: Page, name: str) -> str:
    r"""Write tables as floats with captions and labels tab:NAME, tab:NAME-2, and so on."""
    parts, number, transliterated = [], 0, False
    for grid in grids:
        texts = [grid.title, grid.caption, *grid.notes, *(row.label for row in grid.rows)]
        transliterated |= any(map(is_transliterated, texts))
        for part, blocks in enumerate(_floats(grid, page)):
            number += 1
            label = f"tab:{name}" + (f"-{number}" if number > 1 else "")
            parts.append(_float(grid, blocks, page, label, part > 0))
    head = _PREAMBLE
    if number > 12:  # LaTeX holds at most 52 floats until it can place them
        head += rf"\ifdefined\extrafloats\extrafloats{{{2 * number}}}\fi" + "\n"
    if transliterated:
        head += "% letters of other scripts are transliterated, for pdflatex has no fonts for them\n"
    return head + "\n".join(parts)


def _floats(grid: Grid, page: Page) -> Iterator[list[Grid]]:
    """Yield the blocks of each float: tables that fit the width, together not too high."""
    held: list[Grid] = []
    lines = 0
    for block in (block for wide in _fitting(grid, page) for block in _chunks(wide)):
        height = len(block.rows) + 3 + len(_heads(block))
        if held and lines + height > _LINES:
            yield held
            held, lines = [], 0
        held.append(block)
        lines += height
    yield held


def _fitting(grid: Grid, page: Page) -> list[Grid]:
    """Return parts of the table with as many columns as fit beside the labels, of about equal size."""
    widths = [_column_width(grid, place) for place in range(len(grid.columns))]
    ends = _ends(grid, page, widths, len(widths))
    # Parts of about equal size, instead of a full one and one with a single column.
    even = _ends(grid, page, widths, math.ceil(len(widths) / len(ends)))
    ends = even if len(even) == len(ends) else ends
    return [_columns(grid, start, end) for start, end in zip([0, *ends], ends, strict=False)]


def _ends(grid: Grid, page: Page, widths: list[float], most: int) -> list[int]:
    """Return the end of each part of a table that fits the page and has at most `most` columns, and at least one.

    A group of columns is not divided unless it is wider than the page.
    """
    room = page.width - min(_label_width(grid), _LABEL_SHARE * page.width) - _SEPARATION
    ends = []
    place, start, used, heading = 0, 0, 0.0, 0.0
    while place < len(widths):
        column, width = grid.columns[place], widths[place]
        new_group = place == start or column.group != grid.columns[place - 1].group
        title = _title_width(column)
        # The heading of a group may be wider than its columns: `heading` is the width that is still missing.
        needed = used + heading + max(width, title) if new_group else used + max(width, heading)
        if place > start and (needed > room or place - start == most):
            _, first, end = next(group for group in grid.groups if group[1] <= place < group[2])
            if start < first and max(sum(widths[first:end]), title) <= room:
                place = first
            ends.append(place)
            start, used, heading = place, 0.0, 0.0
            continue
        used += width + (heading if new_group else 0.0)
        heading = max(0.0, (title if new_group else heading) - width)
        place += 1
    return [*ends, len(widths)]


def _title_width(column: Column) -> float:
    """Return the width of the heading of a column's group."""
    return max((text_width(line) + 2 * _SEPARATION for line in column.group), default=0.0)


def _columns(grid: Grid, start: int, end: int) -> Grid:
    """Return the part of a table with the columns from start to end, without rows that are empty there."""
    groups = [place for place, (_, first, last) in enumerate(grid.groups) if first < end and last > start]
    rows = []
    for row in grid.rows:
        cells = tuple(row.cells[place] for place in groups) if row.by_group else row.cells[start:end]
        if not row.cells or any(cell != EMPTY for cell in cells):
            rows.append(replace(row, cells=cells))
    return replace(grid, columns=grid.columns[start:end], rows=tuple(rows))


def _chunks(grid: Grid) -> Iterator[Grid]:
    """Yield parts of a table that fit into a float, divided before a heading where there is one."""
    most = _LINES - 5
    start = 0
    while start < len(grid.rows):
        end = min(start + most, len(grid.rows))
        if end < len(grid.rows):
            headings = [place for place in range(start + 1, end) if not grid.rows[place].cells]
            end = headings[-1] if headings else end
        yield replace(grid, rows=grid.rows[start:end])
        start = end


def _float(grid: Grid, blocks: Sequence[Grid], page: Page, label: str, continued: bool) -> str:
    kind = "table*" if page.star else "table"
    title = breakable(grid.title)
    caption = f"{title} (continued)." if continued else f"{title}. {escape(grid.caption)}"
    lines = [
        rf"\begin{{{kind}}}[tbp]",
        # \emergencystretch lets LaTeX widen spaces where long names leave few places for a line break.
        r"\centering\emergencystretch=4em",
        rf"\caption{{{caption}}}",
        rf"\label{{{label}}}",
        rf"\fontsize{{{SIZE:g}}}{{{1.2 * SIZE:g}}}\selectfont\setlength{{\tabcolsep}}{{{_SEPARATION:g}pt}}",
    ]
    for number, block in enumerate(blocks):
        lines += _tabular(block, page)
        if number + 1 < len(blocks):
            lines[-1] += r"\par\medskip"
    if not continued and grid.notes:
        notes = r"\\ ".join(map(breakable, grid.notes))
        lines.append(rf"\par\smallskip\parbox{{\linewidth}}{{\fontsize{{7}}{{8.4}}\selectfont\raggedright {notes}}}")
    return "\n".join([*lines, rf"\end{{{kind}}}", ""])


def _tabular(grid: Grid, page: Page) -> list[str]:
    count = len(grid.columns)
    limit = _LABEL_SHARE * page.width
    digits = [_decimals(grid, place) for place in range(count)]
    body = []
    for row in grid.rows:
        if not row.cells:
            wide = text_width(row.label) > 0.9 * page.width
            kind = rf"p{{{0.98 * page.width:.1f}pt}}" if wide else "l"
            body.append(rf"\multicolumn{{{count + 1}}}{{@{{}}{kind}@{{}}}}{{\emph{{{breakable(row.label)}}}}} \\")
            continue
        label = row_start(escape(row.label))
        if text_width(row.label) > limit:
            label = rf"\parbox[t]{{{limit:.1f}pt}}{{\raggedright {breakable(row.label)}\strut}}"
        if row.by_group:
            cells = [
                rf"\multicolumn{{{end - start}}}{{c}}{{{_entry(cell, (0, 0))}}}"
                for cell, (_, start, end) in zip(row.cells, grid.groups, strict=True)
            ]
        else:
            cells = [_entry(cell, places) for cell, places in zip(row.cells, digits, strict=True)]
        body.append(" & ".join([label, *cells]) + r" \\")
    return [
        rf"\begin{{tabular}}{{@{{}}l{'c' * count}@{{}}}}",
        r"\toprule",
        *_heads(grid),
        r"\midrule",
        *body,
        r"\bottomrule",
        r"\end{tabular}",
    ]


def _heads(grid: Grid) -> list[str]:
    """Return the lines of the head: one for each line of the groups' headings, and one for the columns."""
    lines, groups = [], grid.groups
    for level in range(max(len(column.group) for column in grid.columns)):
        texts = [rf"\multicolumn{{{end - start}}}{{c}}{{{escape(group[level])}}}" for group, start, end in groups]
        lines.append(" & ".join(["", *texts]) + r" \\")
    if lines:
        lines.append(" ".join(rf"\cmidrule(lr){{{start + 2}-{end + 1}}}" for _, start, end in groups))
    return [*lines, " & ".join([escape(grid.corner), *(escape(column.head) for column in grid.columns)]) + r" \\"]


def _entry(cell: Cell, places: tuple[int, int]) -> str:
    """Return an entry, padded so that the decimal points of a column are aligned."""
    number = _number(cell.number)
    number = rf"\underline{{{number}}}" if cell.underlined else number
    number = rf"\textbf{{{number}}}" if cell.bold else number
    text = number + _padding(cell.number, places[0])
    if cell.spread:
        spread = _number(cell.spread).replace("±", r"$\pm$\,")
        spread = spread.replace(r"$\pm$\, ", r"$\pm$\,")
        # A macro, so that authors can change the look of all deviations in one place.
        text += rf"\paibenchsd{{{spread}{_padding(cell.spread, places[1])}}}"
    text += rf"\textsuperscript{{{cell.superscript}}}" if cell.superscript else ""
    if cell.extra:
        text += f" ({escape(cell.extra)})"
    return text + (rf"\,{escape(cell.mark)}" if cell.mark else "")


def _number(text: str) -> str:
    """Convert a number or an interval: minus signs instead of hyphens."""
    text = re.sub(r"-(?=\d)", r"$-$", text) if "-" in text else text
    return text.replace("–", "--")


@cache
def _places(text: str) -> int:
    """Return the number of decimals of a number or deviation; 0 for other texts."""
    return len(text) - text.rfind(".") - 1 if text[-1:].isdigit() and "." in text else 0


def _padding(text: str, places: int) -> str:
    """Return invisible digits where a number has fewer decimals than others of its column."""
    missing = places - _places(text)
    if missing <= 0 or not text[-1:].isdigit():
        return ""
    # Invisible digits need no package, in contrast to columns of siunitx or dcolumn.
    return rf"\phantom{{{'' if '.' in text else '.'}{'0' * missing}}}"


def _decimals(grid: Grid, place: int) -> tuple[int, int]:
    """Return the largest numbers of decimals of a column's numbers and deviations."""
    cells = [row.cells[place] for row in grid.rows if row.cells and not row.by_group]
    return max(_places(cell.number) for cell in cells), max(_places(cell.spread) for cell in cells)


def _label_width(grid: Grid) -> float:
    labels = [grid.corner, *(row.label for row in grid.rows if row.cells)]
    return max(map(text_width, labels)) + _SEPARATION


def _column_width(grid: Grid, place: int) -> float:
    cells = [row.cells[place] for row in grid.rows if row.cells and not row.by_group]
    digits = _decimals(grid, place)

    def wide(cell: Cell) -> float:
        padding = digits[0] - _places(cell.number) + digits[1] - _places(cell.spread) if cell.number != NONE else 0
        width = text_width(cell.number, SIZE * (BOLD if cell.bold else 1)) + 0.6 * SIZE * padding
        width += text_width(cell.spread, SMALL * SMALL_RATIO) + 2 if cell.spread else 0
        width += text_width(f" ({cell.extra})") if cell.extra else 0
        width += text_width(cell.superscript)
        return width + (text_width(cell.mark) + 2 if cell.mark else 0)

    return max([text_width(grid.columns[place].head), *map(wide, cells)]) + 2 * _SEPARATION


def breakable(text: str) -> str:
    """Escape a text and allow line breaks within words of more than 14 characters: behind punctuation, or anywhere."""
    return " ".join(escape(word) if len(word) <= 14 else _broken(word) for word in text.split(" "))


def _broken(word: str) -> str:
    pieces = re.findall(r"[^\W_]{1,12}|.", word)
    return r"\hspace{0pt}".join(map(escape, pieces))


__all__ = ["Column", "Page", "Row", "breakable", "to_latex"]
