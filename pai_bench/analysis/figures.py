"""Publication-ready figures of accuracy against sparsity."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D

from pai_bench.analysis.axes import Edge, label_sparsities, show, view
from pai_bench.analysis.statistics import PANEL, number_of_seeds, split_control
from pai_bench.analysis.style import CONTROL_LABELS, CONTROL_STYLES, DENSE_LOOK, Style, by_value, from_source, styles
from pai_bench.analysis.tables import measure, panel_title, series_label
from pai_bench.cells import DENSE

_RC: dict[Any, Any] = {
    "pdf.fonttype": 42,  # TrueType: editors and publishers refuse Type 3
    "ps.fonttype": 42,
    "font.family": "DejaVu Sans",
    "font.size": 7.5,
    "axes.titlesize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": "#E3E3E3",
    "grid.linewidth": 0.5,
    "lines.linewidth": 1.1,
    "lines.markersize": 4,
    "legend.frameon": False,
    "savefig.dpi": 300,
}
_BAD = "collapsed or diverged runs"
_PARTIAL = "some seeds missing"
_ABSENT = "no result yet"
_TITLE_WIDTH, _LEGEND_WIDTH = 2.0, 3.0  # inches

Panel = tuple[str, pd.DataFrame, dict[str, Style]]
"""Title, points, and style by method. The points have the columns label, place (index of the source) and aside (True
for points that may lie outside the axis)."""


@dataclass
class _Legend:
    """Entries of a figure's legend and notes, collected from its panels."""

    series: dict[tuple[int, int], tuple[str, Line2D]] = field(default_factory=dict)
    """Label and handle by the indices of the source and of the method."""
    marks: dict[str, Line2D] = field(default_factory=dict)
    notes: set[str] = field(default_factory=set)


def save_accuracy(summary: pd.DataFrame, stem: Path) -> list[Path]:
    """Draw accuracy against sparsity with one panel per data set, model and recipe.

    Writes STEM.pdf and STEM.png (300 dpi), and returns both paths.
    """
    return _save(accuracy_panels(summary), stem)


def save_controls(summary: pd.DataFrame, stem: Path) -> list[Path]:
    """Draw each method beside its controls, one panel per method; files as in `save_accuracy`."""
    return _save(control_panels(summary), stem)


def accuracy_panels(summary: pd.DataFrame) -> list[Panel]:
    """Return one panel per data set, model and recipe."""
    looks = styles(set(summary["method"]) - {DENSE})
    return [(_title(*key), panel, looks) for key, panel in _of_sources(summary).groupby(PANEL, sort=False)]


def control_panels(summary: pd.DataFrame) -> list[Panel]:
    """Return one panel per data set, model, recipe and method with controls; its series are named by control."""
    panels: list[Panel] = []
    for key, panel in summary.groupby(PANEL, sort=False):
        spec = panel["method"].map(split_control)
        for method in sorted({name for name, control in spec if control is not None}, key=by_value):
            shown = panel[spec.map(lambda of, method=method: of[0] in (method, DENSE))].copy()
            shown["aside"] = shown["method"].map(lambda name: split_control(name)[1] == "invert")
            shown["method"] = spec[shown.index].map(lambda of: of[0] if of[0] == DENSE else CONTROL_LABELS[of[1]])
            panels.append((f"{method}\n{_title(*key)}", _of_sources(shown, summary), CONTROL_STYLES))
    return panels


def _title(dataset: str, model: str, recipe: str) -> str:
    return "\n".join(part for part in (panel_title(dataset, model, ""), recipe) if part)


def _of_sources(points: pd.DataFrame, summary: pd.DataFrame | None = None) -> pd.DataFrame:
    """Add the columns label, place and aside; labels and places depend on the sources of the whole summary."""
    sources = sorted((points if summary is None else summary)["source"].unique())
    labels = [series_label(row.method, row.source, len(sources) > 1) for row in points.itertuples()]
    aside = points.get("aside", False)
    return points.assign(label=labels, place=points["source"].map(sources.index), aside=aside)


def _save(panels: Sequence[Panel], stem: Path) -> list[Path]:
    paths = [stem.with_suffix(".pdf"), stem.with_suffix(".png")]
    with _figure(panels) as figure:
        for path in paths:
            # Omit the creation date, so that the same results give the same bytes.
            metadata: dict[str, Any] = {"CreationDate": None} if path.suffix == ".pdf" else {}
            figure.savefig(path, metadata=metadata)
    return paths


@contextmanager
def _figure(panels: Sequence[Panel]) -> Iterator[Figure]:
    columns = min(3, len(panels))
    lines = math.ceil(len(panels) / columns)
    with mpl.rc_context(_RC):
        figure = Figure(layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots(lines, columns, squeeze=False).flatten()
        legend = _Legend()
        recipes = {recipe for _, points, _ in panels for recipe in points["recipe"]}
        heights = [0] * lines
        for index, (ax, (title, points, looks)) in enumerate(zip(axes, panels, strict=False)):
            _draw(ax, points, looks, legend)
            # A recipe that all panels share appears once, in the note.
            title = title.removesuffix(f"\n{points['recipe'].iloc[0]}") if len(recipes) == 1 else title
            text, size = _fitted(figure, title, _TITLE_WIDTH, 8)
            ax.set_title(text, fontsize=size, parse_math=False)  # a name may contain a dollar sign
            heights[index // columns] = max(heights[index // columns], text.count("\n"))
        for ax in axes[len(panels) :]:
            ax.remove()
        for row in range(lines):
            shown = [points["recipe"].iloc[0] for _, points, _ in panels[row * columns : (row + 1) * columns]]
            axes[row * columns].set_ylabel(measure(shown))
        for index in range(max(0, len(panels) - columns), len(panels)):
            axes[index].set_xlabel("Sparsity (%), log density")
        width, height = _add_legend(figure, legend, lines)
        width = max(width, 2.0) + 2.5 * columns
        note, size = _fitted(figure, _note(panels, recipes, legend), width - 0.2, 6.5)
        figure.supxlabel(note, fontsize=size, color="#444444", parse_math=False)
        under = 0.25 + 0.12 * note.count("\n")
        figure.set_size_inches(width, under + max(0.3 + 2.15 * lines + 0.14 * sum(heights), height + 0.1))
        yield figure


def _add_legend(figure: Figure, legend: _Legend, lines: int) -> tuple[float, float]:
    """Place the legend to the right of the panels and return its width and height in inches."""
    entries = [legend.series[key] for key in sorted(legend.series)]
    entries += [(mark, legend.marks[mark]) for mark in (_BAD, _PARTIAL, _ABSENT) if mark in legend.marks]
    labels = [_fitted(figure, label, _LEGEND_WIDTH, 7.5)[0] for label, _ in entries]
    shown = figure.legend(
        [handle for _, handle in entries],
        labels,
        loc="outside right upper",
        handlelength=3.2,
        ncols=math.ceil(len(entries) / max(20, 13 * lines)),
    )
    for text in shown.get_texts():
        text.set_parse_math(False)
    box = shown.get_window_extent(figure.canvas.get_renderer())  # type: ignore[attr-defined]
    return box.width / figure.dpi, box.height / figure.dpi


def _note(panels: Sequence[Panel], recipes: set[str], legend: _Legend) -> str:
    points = pd.concat([points for _, points, _ in panels])
    counted = bool((points["n"] > 0).any())
    note = f"Mean over seeds, {number_of_seeds(points)}" if counted else "No result has an accuracy"
    if points["std"].notna().any():
        note += "; band or bar: ± 1 sample standard deviation"
    below = [f"In the grey strip: {' or '.join(sorted(legend.notes))}."] if legend.notes else []
    recipe = [f"Recipe {name}." for name in recipes if name and len(recipes) == 1]
    return "\n".join([f"{note}.", " ".join([*below, *recipe])]).rstrip()


def _fitted(figure: Figure, text: str, width: float, size: float) -> tuple[str, float]:
    """Break a text at spaces, + and commas to fit `width` inches, else shrink it; return text and font size."""
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]

    def wide(part: str) -> float:
        font = FontProperties(family=mpl.rcParams["font.family"], size=size)
        return float(renderer.get_text_width_height_descent(part, font, ismath=False)[0]) / figure.dpi

    lines: list[str] = []
    for line in text.split("\n"):
        lines.append("")
        pieces = re.split(r"(?<=[ ,])|(?=\+)", line)
        # Break a piece at any character where shrinking would make it illegible.
        for piece in chain.from_iterable(part if wide(part) > 1.4 * width else [part] for part in pieces):
            if lines[-1] and wide((lines[-1] + piece).rstrip()) > width:
                lines.append("")
            lines[-1] += piece
    lines = [line.rstrip() for line in lines]
    return "\n".join(lines), size * min(1.0, width / max(map(wide, lines), default=width))


def _draw(ax: Axes, panel: pd.DataFrame, looks: dict[str, Style], legend: _Legend) -> None:
    ax.set_xscale("log")
    label_sparsities(ax, panel)
    # The dense reference is a horizontal line across the panel; its marks are at the right end.
    panel = panel.assign(x=(1 - panel["sparsity"]).where(panel["method"] != DENSE, ax.get_xlim()[1]))
    low, high = view(panel)
    edge: list[Edge] = []
    for (place, method), points in panel.groupby(["place", "method"], sort=False):
        look = from_source(DENSE_LOOK if method == DENSE else looks[method], place)
        drawn = points[points["n"] > 0]
        handle = _dense(ax, drawn, look) if method == DENSE else _series(ax, drawn, look, low)
        key = (place, -1 if method == DENSE else list(looks).index(method))
        legend.series.setdefault(key, (points["label"].iloc[0], handle))
        for point in points.itertuples():
            _mark(ax, point, look, low, legend, edge)
    show(ax, low, high, edge)


def _mark(ax: Axes, point: Any, look: Style, low: float, legend: _Legend, edge: list[Edge]) -> None:
    """Mark a point with missing, collapsed or diverged runs, below the axis if the point is outside it."""
    bad = point.collapsed + point.diverged > 0
    below = point.n > 0 and 100 * point.mean < low
    if below or (bad and point.n == 0):
        edge.append((point.x, look.marker, look.color, bad))
        legend.notes.add("below the axis" if below else "without an accuracy")
    elif point.n == 0:
        edge.append((point.x, "$?$", look.color, False))
        legend.marks[_ABSENT] = Line2D([], [], ls="", marker="$?$", color="#444444", ms=4.5)
    if 0 < point.n < point.planned:
        legend.marks[_PARTIAL] = Line2D([], [], ls="", marker="o", mfc="white", mec="#444444")
        if not below:
            marker = "o" if look.marker == DENSE_LOOK.marker else look.marker
            ax.plot(point.x, 100 * point.mean, marker, mfc="white", mec=look.color, zorder=4, clip_on=False)
    if bad:
        legend.marks[_BAD] = Line2D([], [], ls="", marker="x", color="black", ms=6, mew=0.9)
        if point.n > 0 and not below:
            ax.plot(point.x, 100 * point.mean, "x", color="black", ms=6, mew=0.9, zorder=5, clip_on=False)


def _dense(ax: Axes, points: pd.DataFrame, look: Style) -> Line2D:
    """Draw the line and band of the dense reference; without a result, return a line for the legend only."""
    as_drawn: dict[str, Any] = {"color": look.color, "linestyle": look.line, "linewidth": 0.9}
    if not len(points):
        return Line2D([], [], **as_drawn)
    mean, std = 100 * points["mean"].iloc[0], 100 * points["std"].iloc[0]
    if std == std:
        ax.axhspan(mean - std, mean + std, color=look.color, alpha=0.12, linewidth=0, zorder=1)
    return ax.axhline(mean, zorder=1, **as_drawn)


def _series(ax: Axes, points: pd.DataFrame, look: Style, low: float) -> Line2D:
    """Draw the line and band of one method."""
    x, mean, std = points["x"], 100 * points["mean"], 100 * points["std"]
    std = std.where(mean >= low)  # points below the axis have no band
    # A band needs two neighbouring points with a deviation; elsewhere draw an error bar. One seed has neither.
    alone = std.shift(1).isna() & std.shift(-1).isna()
    if alone.any():
        ax.errorbar(x[alone], mean[alone], std[alone], color=look.color, ls="", capsize=2, linewidth=0.8, zorder=2)
    if not alone.all():
        ax.fill_between(x, mean - std, mean + std, color=look.color, alpha=0.15, linewidth=0, zorder=2)
    (line,) = ax.plot(
        x,
        mean,
        color=look.color,
        marker=look.marker,
        linestyle=look.line,
        fillstyle=look.fill,
        markerfacecoloralt="white",
        linewidth=None if look.fill == "full" else 0.7,
        markersize={"*": 6.0, "p": 5.0}.get(look.marker),
        zorder=3,
    )
    return line
