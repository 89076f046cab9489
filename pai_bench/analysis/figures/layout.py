"""Layout of a page in inches: legend above, titles of rows and columns, panels of equal size, axis labels."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import matplotlib as mpl
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from pai_bench.analysis.figures.text import height, shown, widest, wrapped
from pai_bench.analysis.figures.venues import NORMAL, RC, SMALL, TITLE

_EDGE, _GAP, _PAD = 0.03, 0.1, 0.04
"""Margin of the page, gap between panels, and space between a text and its panel or axis, in inches."""
_HANDLE, _LETTER = 0.30, SMALL / 72
"""Length of a line in the legend, and its font size, in inches."""


Handle = Artist | tuple[Artist, ...]
"""Symbol of an entry of the legend; several artists are drawn over each other."""


@dataclass(frozen=True)
class Entry:
    """An entry of the legend."""

    label: str
    handle: Handle


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
    xlabel = wrapped(xlabel, inches - 2 * _EDGE, NORMAL)
    columns = max(len(row.axes) for row in rows)
    legend_height = _legend(figure, entries, inches)
    strips = any(row.strip_height for row in rows)
    ylabels = [wrapped(ylabel, row.height, NORMAL) if strips else ylabel for row in rows]
    strip_texts = [wrapped(strip_label, row.strip_height + _GAP, SMALL) if row.strip_height else "" for row in rows]
    words = max([height(text, NORMAL) for text in ylabels] + [height(text, SMALL) for text in strip_texts])
    left = _EDGE + (words + _PAD if words else 0)
    row_titles = [wrapped(row.title, row.height + row.strip_height, TITLE) if row.title else "" for row in rows]
    side = max((height(text, TITLE) for text in row_titles), default=0.0)
    left += side + (_PAD if side else 0)
    ticks = [[_tick_width(row, column) for column in range(len(row.axes))] for row in rows]
    first = max(line[0] for line in ticks) + _PAD
    own = any(row.own_ticks for row in rows)
    gap = _GAP + (max((w for line in ticks for w in line[1:]), default=0.0) + _PAD if own else 0)
    right = _EDGE + max((_overhang(row) for row in rows), default=0.0)
    wide = (inches - left - first - right - gap * (columns - 1)) / columns
    titles = [[_fit_title(ax, wide) for ax in row.axes] for row in rows]
    lowest = {
        column: max(r for r, row in enumerate(rows) if column < len(row.axes) and row.axes[column] is not None)
        for column in range(columns)
        if any(column < len(row.axes) and row.axes[column] is not None for row in rows)
    }
    below = [any(low == r for low in lowest.values()) and r < len(rows) - 1 for r in range(len(rows))]
    bottoms = [_bottom(row) for row in rows]
    total = _EDGE + legend_height
    tops = []
    for row, texts, under, bottom in zip(rows, titles, below, bottoms, strict=True):
        total += max((height(text, TITLE) for text in texts), default=0.0) + _PAD
        tops.append(total)
        total += row.height + (row.strip_height + _GAP if row.strip_height else 0)
        total += bottom if under or row is rows[-1] or row.own_labels else _GAP
    total += (height(xlabel, NORMAL) + _PAD if xlabel else 0) + _EDGE
    figure.set_figheight(total)

    def position(x: float, top: float, w: float, h: float) -> tuple[float, float, float, float]:
        return x / inches, 1 - (top + h) / total, w / inches, h / total

    for r, (row, top) in enumerate(zip(rows, tops, strict=True)):
        leftmost = next((column for column, ax in enumerate(row.axes) if ax is not None), 0)
        for column, ax in enumerate(row.axes):
            x = left + first + column * (wide + gap)
            strip = row.strips[column] if column < len(row.strips) else None
            if ax is not None:
                ax.set_position(position(x, top, wide, row.height))
                quiet = strip is not None or (lowest[column] != r and not row.own_labels)
                ax.tick_params(labelbottom=not quiet, labelleft=row.own_ticks or column == leftmost)
            if strip is not None:
                strip.set_position(position(x, top + row.height + _GAP, wide, row.strip_height))
                strip.tick_params(
                    labelbottom=lowest[column] == r or row.own_labels, labelleft=row.own_ticks or column == leftmost
                )
        if row_titles[r]:
            middle = 1 - (top + row.height / 2) / total
            x = (left - _PAD - side / 2) / inches
            _write(figure, x, middle, row_titles[r], TITLE, rotation=90)
    if xlabel:
        middle = _within(left + first + (inches - left - first - right) / 2, widest([xlabel], NORMAL), inches)
        _write(figure, middle / inches, (_EDGE + height(xlabel, NORMAL) / 2) / total, xlabel, NORMAL)
    x = (_EDGE + words / 2) / inches
    if ylabel and not strips:
        middle = _within((tops[0] + tops[-1] + rows[-1].height) / 2, widest([ylabel], NORMAL), total)
        _write(figure, x, 1 - middle / total, ylabel, NORMAL, rotation=90)
    for row, top, text, strip_text in zip(rows, tops, ylabels, strip_texts, strict=True) if strips else ():
        if text:
            _write(figure, x, 1 - (top + row.height / 2) / total, text, NORMAL, rotation=90)
        if strip_text:
            middle = 1 - (top + row.height + _GAP + row.strip_height / 2) / total
            _write(figure, x, middle, strip_text, SMALL, rotation=90)


def _within(middle: float, length: float, room: float) -> float:
    """Return the middle of a text of this length that is nearest to `middle` and inside the page, in inches."""
    return max(min(middle, room - _EDGE - length / 2), _EDGE + length / 2)


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
    labels = max((height(ax.get_xlabel(), NORMAL) + _PAD if ax.get_xlabel() else 0.0 for ax in axes), default=0.0)
    for ax in axes:
        ax.xaxis.labelpad = 1.5
    return ticks + 2 * _PAD + labels


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


def _legend(figure: Figure, entries: Sequence[Entry], inches: float) -> float:
    """Draw the legend above the panels, in as few rows as fit the width, and return its height in inches."""
    if not entries:
        return 0.0
    room = inches - 2 * _EDGE
    before, between = _HANDLE + 0.05, 0.15
    labels = [wrapped(entry.label, room - before, SMALL) for entry in entries]
    wide = [before + widest([label], SMALL) + between for label in labels]
    least = _filled(wide, room + between)
    # Rows of equal length rather than a long one and a short one.
    limit = min((w for w in (room * part / 20 for part in range(6, 21)) if len(_filled(wide, w)) == len(least)),
                default=room) + between  # fmt: skip
    top = _EDGE
    for row in _filled(wide, limit) if len(_filled(wide, limit)) == len(least) else least:
        handles: list[Any] = [entries[i].handle for i in row]
        legend = figure.legend(
            handles,
            [labels[i] for i in row],
            loc="upper center",
            bbox_to_anchor=(0.5, 1.0),
            ncols=len(row),
            handlelength=_HANDLE / _LETTER,
            handletextpad=0.05 / _LETTER,
            columnspacing=between / _LETTER,
            borderpad=0.0,
            borderaxespad=top / _LETTER,
        )
        for text in legend.get_texts():
            text.set_linespacing(1.05)
        top += max(height(labels[i], SMALL) for i in row) + 0.03
    return top + _PAD


def _filled(wide: Sequence[float], room: float) -> list[list[int]]:
    """Return rows of entries with these widths that fit `room`, in order."""
    rows: list[list[int]] = []
    used = math.inf
    for index, width_ in enumerate(wide):
        if used + width_ > room:
            rows.append([])
            used = 0.0
        rows[-1].append(index)
        used += width_
    return rows
