"""Drawing of a panel: curves with bands, the dense reference, chance level, and marks of failed and missing runs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.path import Path
from matplotlib.textpath import TextPath
from matplotlib.transforms import ScaledTranslation

from pai_bench.analysis.figures.curves import Curve, Panel, Point
from pai_bench.analysis.figures.legend import Entry, Handle
from pai_bench.analysis.figures.material import MUTED, Material
from pai_bench.analysis.figures.venues import FAMILIES, INK
from pai_bench.analysis.style import DENSE_LOOK, Style

ALL_FAILED = "All runs at chance"
SOME_FAILED = "Some runs at chance"
MISSING = "Results missing"
_UPPER_EDGE = 0.12
"""Part of the height of the lowest panels that the mark of missing results takes above its point."""
OTHERS = "Other methods"
_AT_EDGE = "at-edge"
_SIZES = {"*": 1.45, "p": 1.2, "P": 1.15, "X": 1.1, "D": 0.9, "d": 1.15}
"""Size of a marker relative to a circle, so that all look alike in size."""


@dataclass
class Legend:
    """Entries of a figure's legend, collected from its panels: series in order, then marks."""

    series: dict[tuple[int, int], Entry] = field(default_factory=dict)
    marks: dict[str, Handle] = field(default_factory=dict)
    mark_partial: bool = True
    """Mark points with some missing runs; False where most points of the figure have some."""

    def entries(self) -> list[Entry]:
        """All entries in order: dense references, methods, marks."""
        order = (ALL_FAILED, SOME_FAILED, MISSING)
        marks = sorted(self.marks, key=lambda text: order.index(text) if text in order else -1)
        return [self.series[key] for key in sorted(self.series)] + [Entry(text, self.marks[text]) for text in marks]

    def add(self, key: tuple[int, int], curve: Curve) -> None:
        """Add a series once; `key` is its place in the legend."""
        self.series.setdefault(key, Entry(curve.label, handle(curve.look, curve.is_dense)))


@cache
def question() -> Path:
    """Return a question mark as a marker."""
    path = TextPath((0, 0), "?", size=10, prop=FontProperties(family=list(FAMILIES), weight="bold"))
    box = path.get_extents()
    # Centred by its extents, because a text path begins at its baseline.
    return Path((path.vertices - [(box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2]) / box.height, path.codes)


def _question(color: str, size: float = 4.4) -> dict[str, Any]:
    return {"color": color, "marker": question(), "linestyle": "", "markersize": size, "markeredgewidth": 0.15}


def marker_size(marker: str, size: float) -> float:
    """Return the size of a marker in points."""
    return size * _SIZES.get(marker, 1.0)


def handle(look: Style, dense: bool = False, size: float = 3.8) -> Line2D:
    """Return the legend's line of a series."""
    line: dict[str, Any] = {"linestyle": look.line} | ({} if dense else marker_of(look, size))
    return Line2D([], [], color=look.color, linewidth=1.0, **line)


def series_entries(material: Material, methods: Sequence[str], coloured: Sequence[frozenset[str]]) -> list[Entry]:
    """Return the legend of panels with these methods: those in colour, unless each has a panel, and the others."""
    shown = coloured[0] if len(coloured) == 1 else frozenset()
    entries = [Entry(material.label(method), handle(material.look(method))) for method in methods if method in shown]
    grey = [Entry(OTHERS, Line2D([], [], color=MUTED, linewidth=0.8))]
    return entries + grey * (len(shown) < len(methods))


def marker_of(look: Style, size: float) -> dict[str, Any]:
    """Return the properties of a series' markers of a size in points."""
    return {
        "marker": look.marker,
        "markersize": marker_size(look.marker, size),
        "fillstyle": look.fill,
        "markerfacecoloralt": "white",
        "markeredgecolor": "white" if look.fill == "full" else look.color,
        "markeredgewidth": 0.35 if look.fill == "full" else 0.6,
    }


def spaced(points: int, place: int, series: int) -> tuple[int, int]:
    """Return first index and step of about five markers on a line of many points, apart from those of other series."""
    step = max(1, points // 5)
    return step * place // max(1, series), step


def draw_panel(
    ax: Axes,
    panel: Panel,
    legend: Legend,
    order: Sequence[tuple[str, str]],
    low: float,
    inches: float,
    edges: bool = False,
) -> None:
    """Draw all curves of a panel.

    order: (source, method) of all series of the figure, for the order of the legend.
    low: lower end of the vertical axis; points below it leave the panel, with a marker on its lower edge if `edges`.
    inches: width of the panel.
    """
    size = 3.4 if inches < 2 else 4.2
    crosses = _side_by_side(ax, panel, low, size, inches)
    if math.isfinite(panel.chance) and panel.chance >= low:
        ax.axhline(panel.chance, color="#999999", linewidth=0.6, linestyle=(0, (1, 1.6)), zorder=0.8)
    for curve in panel.curves:
        if curve.is_dense:
            _draw_dense(ax, curve)
            if math.isfinite(curve.points[0].mean) or curve.points[0].planned:
                sources = sorted({source for source, _ in order} | {curve.source})
                legend.add((-1, sources.index(curve.source)), curve)
            continue
        muted = (curve.source, curve.method) in panel.muted
        _draw_curve(ax, curve, legend, (low, size), muted, edges, crosses)
        if muted:
            legend.marks.setdefault(OTHERS, Line2D([], [], color=MUTED, linewidth=0.8))
        elif panel.title != curve.label:  # a panel of its own names the series
            legend.add((0, order.index((curve.source, curve.method))), curve)
    for curve in panel.curves:
        if curve.is_dense:
            _mark_dense(ax, curve, legend)


def _draw_dense(ax: Axes, curve: Curve) -> None:
    (point, *_) = curve.points
    if math.isfinite(point.spread):
        ax.axhspan(
            point.mean - point.spread, point.mean + point.spread, color=DENSE_LOOK.color, alpha=0.12, lw=0, zorder=1
        )
    if math.isfinite(point.mean):
        ax.axhline(point.mean, color=curve.look.color, linestyle=curve.look.line, linewidth=0.9, zorder=1.5)


def _mark_dense(ax: Axes, curve: Curve, legend: Legend) -> None:
    (point, *_) = curve.points
    right = ax.get_xlim()[1]
    if not math.isfinite(point.mean):
        if point.planned > point.n:
            _mark_absent(ax, right, DENSE_LOOK.color, legend)
        return
    _mark(ax, right, point, DENSE_LOOK.color, legend)


def _side_by_side(
    ax: Axes, panel: Panel, low: float, size: float, inches: float
) -> dict[tuple[str, str, float], tuple[float, float]]:
    """Return horizontal shift and size of the crosses, in points, so that none covers that of another method.

    The keys are (source, method, density). Methods that fail at one density are all near chance there.
    """
    crosses = {
        (curve.source, curve.method, point.density): point.mean
        for curve in panel.curves
        if not curve.is_dense and (curve.source, curve.method) not in panel.muted
        for point in curve.points
        if _all_failed(point) and point.mean >= low
    }
    scale = 72 * inches / abs(math.log(ax.get_xlim()[1] / ax.get_xlim()[0]))
    steps = [scale * math.log(other / one) for one, other in pairwise(panel.densities)]
    spacing = min(steps, default=math.inf)
    crosses_at: dict[tuple[str, str, float], tuple[float, float]] = {}
    for density in {key[2] for key in crosses}:
        here = [key for key in crosses if key[2] == density]
        small = size if len(here) == 1 else 0.75 * size
        # Space between the crosses of neighbouring densities, so that those of one density are seen as a group.
        step = max(0.0, min(small, (spacing - small - 1) / max(1, len(here) - 1)))
        crosses_at |= {key: (step * (index - (len(here) - 1) / 2), small) for index, key in enumerate(here)}
    return crosses_at


def _draw_curve(
    ax: Axes,
    curve: Curve,
    legend: Legend,
    sizes: tuple[float, float],
    muted: bool,
    edges: bool,
    crosses: Mapping[tuple[str, str, float], tuple[float, float]],
) -> None:
    """Draw line, band and marks of a method; the line omits points whose runs all failed."""
    low, size = sizes
    known = [point for point in curve.points if math.isfinite(point.mean)]
    sound = [point for point in known if not _all_failed(point)]
    color = MUTED if muted else curve.look.color
    x, y = [point.density for point in sound], [point.mean for point in sound]
    spread = np.array([point.spread for point in sound])
    if muted:
        ax.plot(x, y, color=color, linewidth=0.7, zorder=1.2, solid_capstyle="butt")
        return
    _draw_spread(ax, np.array(x), np.array(y), spread, color)
    line: dict[str, Any] = {"color": color, "linestyle": curve.look.line, "linewidth": 1.0}
    ax.plot(x, y, zorder=3, **line, **marker_of(curve.look, size))
    if not edges:
        for one, other in pairwise(known):
            # The line shows that the method fails at the next density, whose point is below the axis.
            if _all_failed(other) and other.mean < low and not _all_failed(one):
                ax.plot([one.density, other.density], [one.mean, other.mean], zorder=2.9, **line)
    for point in known:
        if _all_failed(point):
            if point.mean >= low:
                shift, small = crosses[curve.source, curve.method, point.density]
                beside = ax.transData + ScaledTranslation(shift / 72, 0, ax.figure.dpi_scale_trans)
                ax.plot(point.density, point.mean, **_cross(color, small), transform=beside, clip_on=False, zorder=4)
                legend.marks.setdefault(ALL_FAILED, Line2D([], [], **_cross(INK, 3.8)))
        elif point.mean >= low:
            _mark(ax, point.density, point, color, legend)
        if point.mean < low and edges:
            _mark_edge(ax, point.density, {**marker_of(curve.look, 3.2), "color": color})
    for point in curve.points:
        if not math.isfinite(point.mean):
            if point.failed:
                _mark_edge(ax, point.density, _cross(color, 3.6))
                legend.marks.setdefault(ALL_FAILED, Line2D([], [], **_cross(INK, 3.8)))
            else:
                _mark_absent(ax, point.density, color, legend)


def _all_failed(point: Point) -> bool:
    return point.failed >= point.n > 0


def _draw_spread(ax: Axes, x: Any, y: Any, spread: Any, color: str) -> None:
    """Draw a band through neighbouring points with a deviation, and a bar at a point without such a neighbour."""
    has = np.isfinite(spread)
    if not has.any():
        return
    beside = np.zeros(len(has), bool)
    beside[1:] |= has[:-1]
    beside[:-1] |= has[1:]
    alone = has & ~beside
    if (has & beside).any():
        # `Axes.fill_between` takes five times as long.
        for part in np.split(np.arange(len(x)), np.flatnonzero(~has[1:] | ~has[:-1]) + 1):
            if len(part) > 1:
                upper = np.column_stack([x[part], y[part] + spread[part]])
                lower = np.column_stack([x[part], y[part] - spread[part]])
                corners = np.concatenate([upper, lower[::-1]])
                band = PolyCollection([corners], facecolor=color, alpha=0.17, linewidth=0, zorder=2)
                ax.add_collection(band, autolim=False)
    if alone.any():
        ax.errorbar(x[alone], y[alone], spread[alone], color=color, ls="", linewidth=0.7, zorder=2)


def _cross(color: str, size: float) -> dict[str, Any]:
    return {"color": color, "marker": "x", "linestyle": "", "markersize": size, "markeredgewidth": 0.9}


def _mark(ax: Axes, x: float, point: Point, color: str, legend: Legend) -> None:
    """Mark a point with failed or missing runs."""
    if point.failed:
        ax.plot(x, point.mean, **_cross(INK, 3.2) | {"markeredgewidth": 0.7}, zorder=5)
        dot = Line2D([], [], marker="o", color="#AAAAAA", linestyle="", markersize=4.2, markeredgewidth=0)
        legend.marks.setdefault(SOME_FAILED, (dot, Line2D([], [], **_cross(INK, 3.2) | {"markeredgewidth": 0.7})))
    if point.n < point.planned and legend.mark_partial:
        low, high = ax.get_ylim()
        # Below a point at the upper edge, because above it is the title.
        side = -1 if point.mean > high - _UPPER_EDGE * (high - low) else 1
        # An offset in points, so that it is the same on every axis and at every size.
        up = ScaledTranslation(0, side * 4.8 / 72, ax.figure.dpi_scale_trans)
        ax.plot([x], [point.mean], transform=ax.transData + up, zorder=5, clip_on=False, **_question(color))
        legend.marks.setdefault(MISSING, Line2D([], [], **_question(INK)))


def _mark_absent(ax: Axes, x: float, color: str, legend: Legend) -> None:
    """Mark a point without any result."""
    _mark_edge(ax, x, _question(color))
    legend.marks.setdefault(MISSING, Line2D([], [], **_question(INK)))


def _mark_edge(ax: Axes, x: float, look: dict[str, Any]) -> None:
    """Put a marker just above the horizontal axis, over those that are already at this place."""
    # Several methods may lack results at one density; their marks must not cover each other.
    taken = sum(line.get_gid() == _AT_EDGE and np.asarray(line.get_xdata())[0] == x for line in ax.lines)
    up = ScaledTranslation(0, (4 + 5.5 * taken) / 72, ax.figure.dpi_scale_trans)
    look = {**look, "linestyle": "", "clip_on": False, "zorder": 5, "gid": _AT_EDGE}
    ax.plot([x], [0], transform=ax.get_xaxis_transform() + up, **look)
