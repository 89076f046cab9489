"""Layout of a page in inches: legend above, titles of rows and columns, panels of equal size, axis labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from pai_bench.analysis.figures.legend import EDGE, PAD, Entry, draw_legend
from pai_bench.analysis.figures.text import height, shown, widest, wrapped
from pai_bench.analysis.figures.venues import NORMAL, RC, SMALL, TITLE

_GAP = 0.1
"""Gap between panels in inches."""

OWN_AXIS = "own-axis"
"""Group of panels whose horizontal tick labels differ from those of the panels below."""


@dataclass
class Row:
    """A row of panels on a page; an empty slot is None."""

    axes: list[Axes | None]
    height: float
    """Height of its panels in inches."""
    title: str = ""
    """Title at the left."""
    strips: list[Axes | None] = field(default_factory=list)
    """Smaller panels below those of the row."""
    strip_height: float = 0.0
    own_ticks: bool = False
    """True where every panel has its own vertical range and tick labels."""

    @property
    def own_labels(self) -> bool:
        """True where the panels have their own horizontal axis, with a label or with texts of several lines."""
        axes = [ax for ax in (*self.axes, *self.strips) if ax is not None]
        return any(ax.get_xlabel() or ax.get_gid() == OWN_AXIS for ax in axes)


@contextmanager
def style() -> Iterator[None]:
    """Apply the fonts and sizes of the figures."""
    with mpl.rc_context(RC):
        yield


def new_figure(inches: float) -> Figure:
    """Return an empty figure of that width; its height follows from `place`."""
    figure = Figure(figsize=(inches, 3.0), dpi=RC["savefig.dpi"])
    # Without pyplot, which keeps figures in global state and chooses a backend by the environment.
    FigureCanvasAgg(figure)
    return figure


def new_axes(figure: Figure) -> Axes:
    """Add a panel, which `place` moves to its position."""
    return figure.add_axes((0.1, 0.1, 0.8, 0.8), label=str(len(figure.axes)))


def panel_inches(inches: float, columns: int, own_ticks: bool = False) -> float:
    """Return the approximate width of a panel, for the choice of ticks before the layout is known."""
    ticks = 0.3
    return (inches - 0.45 - ticks - (columns - 1) * (_GAP + (ticks if own_ticks else 0))) / columns


def place(
    figure: Figure,
    rows: Sequence[Row],
    entries: Sequence[Entry] = (),
    xlabel: str = "",
    ylabel: str = "",
    strip_label: str = "",
) -> None:
    """Give all panels their positions, add legend and labels, and set the height of the figure.

    All panels have the same width. Tick labels of the horizontal axis are below the lowest panel of each column, tick
    labels of the vertical axis at the left of each row.
    """
    inches = figure.get_figwidth()
    xlabel = wrapped(xlabel, inches - 2 * EDGE, NORMAL)
    texts = _side_texts(rows, ylabel, strip_label)
    page = _page(inches, rows, texts, draw_legend(figure, entries, inches), height(xlabel, NORMAL) if xlabel else 0.0)
    figure.set_figheight(page.height)
    for number, row in enumerate(rows):
        _place_row(page, number, row)
    _write_sides(figure, page, rows, texts)
    if xlabel:
        middle = _within((page.panels_left + page.panels_right) / 2, widest([xlabel], NORMAL), page.width)
        _write(figure, middle / page.width, (EDGE + height(xlabel, NORMAL) / 2) / page.height, xlabel, NORMAL)


@dataclass(frozen=True)
class _SideTexts:
    """Texts at the left of the rows, wrapped to their heights; an empty one is missing."""

    ylabels: list[str]
    strips: list[str]
    titles: list[str]
    by_row: bool
    """True where each row has its own label, because it has strips with another one; else one label is for all."""

    @property
    def label_width(self) -> float:
        """Width of the labels of the vertical axes in inches."""
        return max([height(text, NORMAL) for text in self.ylabels] + [height(text, SMALL) for text in self.strips])

    @property
    def title_width(self) -> float:
        """Width of the titles of the rows in inches."""
        return max((height(text, TITLE) for text in self.titles), default=0.0)


def _side_texts(rows: Sequence[Row], ylabel: str, strip_label: str) -> _SideTexts:
    by_row = any(row.strip_height for row in rows)
    return _SideTexts(
        [wrapped(ylabel, row.height, NORMAL) if by_row else ylabel for row in rows],
        [wrapped(strip_label, row.strip_height + _GAP, SMALL) if row.strip_height else "" for row in rows],
        [wrapped(row.title, row.height + row.strip_height, TITLE) if row.title else "" for row in rows],
        by_row,
    )


@dataclass(frozen=True)
class _Page:
    """Positions of the panels on a page, in inches from its left and upper edges."""

    width: float
    height: float
    panels_left: float
    panels_right: float
    panel_width: float
    gap: float
    tops: list[float]
    """Upper edges of the panels, by row."""
    lowest: dict[int, int]
    """Row of the lowest panel, by column."""

    def box(self, column: int, top: float, tall: float) -> tuple[float, float, float, float]:
        """Return left, bottom, width and height of a panel as fractions of the page."""
        left = self.panels_left + column * (self.panel_width + self.gap)
        return left / self.width, 1 - (top + tall) / self.height, self.panel_width / self.width, tall / self.height


def _page(inches: float, rows: Sequence[Row], texts: _SideTexts, legend: float, xlabel: float) -> _Page:
    """Measure all texts, wrap the titles of panels, and return the positions.

    `inches` is the width of the page, `legend` and `xlabel` are the heights of texts above and below the panels.
    """
    columns = max(len(row.axes) for row in rows)
    left = EDGE + sum(width + PAD for width in (texts.label_width, texts.title_width) if width)
    ticks = [[_tick_width(row, column) for column in range(len(row.axes))] for row in rows]
    left += max(line[0] for line in ticks) + PAD
    own = any(row.own_ticks for row in rows)
    gap = _GAP + (max((w for line in ticks for w in line[1:]), default=0.0) + PAD if own else 0)
    right = inches - EDGE - max((_overhang(row) for row in rows), default=0.0)
    wide = (right - left - gap * (columns - 1)) / columns
    filled = [(column, r) for r, row in enumerate(rows) for column, ax in enumerate(row.axes) if ax is not None]
    lowest = dict(sorted(filled))  # of several rows of a column, the last one stays
    total = EDGE + legend
    tops = []
    for r, row in enumerate(rows):
        total += max((height(_fit_title(ax, wide), TITLE) for ax in row.axes), default=0.0) + PAD
        tops.append(total)
        total += row.height + (row.strip_height + _GAP if row.strip_height else 0)
        labelled = r in lowest.values() or r == len(rows) - 1 or row.own_labels
        total += _bottom(row) if labelled else _GAP
    total += (xlabel + PAD if xlabel else 0) + EDGE
    return _Page(inches, total, left, right, wide, gap, tops, lowest)


def _place_row(page: _Page, number: int, row: Row) -> None:
    """Move the panels and strips of a row to their positions, and show their tick labels where they belong."""
    leftmost = next((column for column, ax in enumerate(row.axes) if ax is not None), 0)
    for column, ax in enumerate(row.axes):
        strip = row.strips[column] if column < len(row.strips) else None
        at_left = row.own_ticks or column == leftmost
        at_bottom = row.own_labels or page.lowest.get(column) == number
        if ax is not None:
            ax.set_position(page.box(column, page.tops[number], row.height))
            ax.tick_params(labelbottom=at_bottom and strip is None, labelleft=at_left)
        if strip is not None:
            strip.set_position(page.box(column, page.tops[number] + row.height + _GAP, row.strip_height))
            strip.tick_params(labelbottom=at_bottom, labelleft=at_left)


def _write_sides(figure: Figure, page: _Page, rows: Sequence[Row], texts: _SideTexts) -> None:
    """Write the labels of the vertical axes and the titles of the rows."""
    x = EDGE + texts.label_width / 2
    middles = [top + row.height / 2 for top, row in zip(page.tops, rows, strict=True)]
    beside = EDGE + (texts.label_width + PAD if texts.label_width else 0) + texts.title_width / 2
    upright = [(beside, middle, text, TITLE) for middle, text in zip(middles, texts.titles, strict=True)]
    if texts.by_row:
        upright += [(x, middle, text, NORMAL) for middle, text in zip(middles, texts.ylabels, strict=True)]
        below = [top + row.height + _GAP + row.strip_height / 2 for top, row in zip(page.tops, rows, strict=True)]
        upright += [(x, middle, text, SMALL) for middle, text in zip(below, texts.strips, strict=True)]
    elif texts.ylabels[0]:
        label = texts.ylabels[0]
        middle = (page.tops[0] + page.tops[-1] + rows[-1].height) / 2
        upright.append((x, _within(middle, widest([label], NORMAL), page.height), label, NORMAL))
    for left, middle, text, size in upright:
        if text:
            _write(figure, left / page.width, 1 - middle / page.height, text, size, rotation=90)


def _within(middle: float, length: float, room: float) -> float:
    """Return the middle of a text of this length that is nearest to `middle` and inside the page, in inches."""
    return max(min(middle, room - EDGE - length / 2), EDGE + length / 2)


def _write(figure: Figure, x: float, y: float, text: str, size: float, rotation: int = 0) -> None:
    """Write a text around (x, y); single lines share a baseline, whether or not they have descenders."""
    if "\n" in text:
        figure.text(x, y, shown(text), size=size, rotation=rotation, ha="center", va="center", linespacing=1.1)
        return
    down = 0.3 * size / 72
    x += down / figure.get_figwidth() if rotation else 0
    y -= 0 if rotation else down / figure.get_figheight()
    figure.text(x, y, shown(text), size=size, rotation=rotation, rotation_mode="anchor", ha="center", va="baseline")


def _tick_width(row: Row, column: int) -> float:
    """Return the width of the vertical tick labels of a panel in inches, which may be empty."""
    if column and not row.own_ticks:
        return 0.0
    axes = [row.axes[column], row.strips[column] if column < len(row.strips) else None]
    if column == 0 and not row.own_ticks:
        axes += [ax for ax in row.axes if ax is not None][:1]
    # The texts are fixed (FixedFormatter), so that their widths are known without drawing.
    texts = [text for ax in axes if ax is not None for text in ax.yaxis.get_major_formatter().seq]  # type: ignore[attr-defined]
    return widest(texts, SMALL) + 0.05


def _bottom(row: Row) -> float:
    """Return the space below a row for its horizontal tick labels and axis labels in inches."""
    axes = [ax for ax in (*row.axes, *row.strips) if ax is not None]
    texts = [str(text) for ax in axes for text in getattr(ax.xaxis.get_major_formatter(), "seq", [])]
    ticks = max((height(text, SMALL) + 0.04 * text.count("\n") for text in texts), default=0.0)
    labels = max((height(ax.get_xlabel(), NORMAL) + PAD if ax.get_xlabel() else 0.0 for ax in axes), default=0.0)
    for ax in axes:
        ax.xaxis.labelpad = 1.5
    return ticks + 2 * PAD + labels


def _overhang(row: Row) -> float:
    """Return the space that the last tick label needs beyond the panel in inches."""
    last = row.axes[-1] if row.axes else None
    texts = [] if last is None else [str(text) for text in getattr(last.xaxis.get_major_formatter(), "seq", [])]
    return widest(texts[:1] + texts[-1:], SMALL) / 2


def _fit_title(ax: Axes | None, room: float) -> str:
    if ax is None or not ax.get_title():
        return ""
    text = wrapped(ax.get_title(), room, TITLE)
    ax.set_title(text, size=TITLE, pad=2.5, linespacing=1.1)
    return text
