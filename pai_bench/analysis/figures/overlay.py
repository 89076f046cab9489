"""Published numbers beside ours: hollow points, their dense line, and the difference below."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from pai_bench.analysis import inference
from pai_bench.analysis.figures.curves import Panel, PublishedCurve, PublishedPoint
from pai_bench.analysis.figures.published_curves import described, paper_name
from pai_bench.analysis.figures.scale import set_value_axis
from pai_bench.analysis.style import DENSE_LOOK
from pai_bench.cells import DENSE

BAND = 0.5
"""Half width of the band around zero, in points."""
PUBLISHED, PUBLISHED_DENSE, PUBLISHED_SUSPECT = "Published", "Dense, published", "Published, suspect"
SUSPECT_FILL = "#C4C4C4"
INK_DENSE = DENSE_LOOK.color
DOTS = (0, (1, 1.3))
_DENSE_LINES = (DOTS, (0, (1, 3)), (0, (3, 1.5, 1, 1.5)), (0, (3, 1.5)), (0, (3, 1.5, 1, 1.5, 1, 1.5)))
"""Lines of the dense networks of the papers of a figure, in order."""
_HALVES = ("left", "bottom", "right", "top")
"""Coloured half of the markers of the second and further papers; the markers of the first are hollow."""
_BESIDE = 0.035
"""Horizontal shift of published points in inches."""
_STEP, _MOST = 0.045, 0.16
"""Distance of two series in the strip of differences, and largest distance from the density, in inches."""
_REACH = 1.5
"""Largest part of an interval on the axis, as a multiple of the largest difference."""
SAME = 0.01
"""Densities that differ by less are the same operating point."""


def legend_marks(panels: Sequence[Panel]) -> dict[str, Line2D]:
    """Return the entries of the legend for the published numbers of panels: dense line and points of each paper."""
    found: dict[str, Line2D] = {}
    papers = papers_of(panels)
    for paper in papers:
        curves = [curve for panel in panels for curve in panel.published if curve.paper == paper]
        label = f"{paper_name(paper)}, {described(curve for curve in curves if curve.method != DENSE)}"
        if any(curve.method == DENSE for curve in curves):
            line = _DENSE_LINES[papers.index(paper) % len(_DENSE_LINES)]
            name = f"{PUBLISHED_DENSE}: {paper_name(paper)}" if len(papers) > 1 else PUBLISHED_DENSE
            found[name] = Line2D([], [], color=INK_DENSE, linestyle=line, linewidth=0.9)
        points = [point for curve in curves if curve.method != DENSE for point in curve.points]
        for name, suspect in ((PUBLISHED, False), (PUBLISHED_SUSPECT, True)):
            if any(bool(point.suspect) == suspect for point in points):
                look = _marker("o", "#333333", papers.index(paper), suspect)
                found[f"{name}: {label}"] = Line2D([], [], linestyle="", **{**look, "markersize": 4.2})
    return found


def papers_of(panels: Sequence[Panel]) -> list[str]:
    """Return the papers of the published curves of panels, in order; it decides about the fill of their markers."""
    return list(dict.fromkeys(curve.paper for panel in panels for curve in panel.published))


def _marker(marker: Any, color: str, place: int, suspect: bool) -> dict[str, Any]:
    """Return the look of a published point of the paper with index `place`."""
    empty = SUSPECT_FILL if suspect else "white"
    look: dict[str, Any] = {"marker": marker, "markeredgecolor": color, "markeredgewidth": 0.8}
    if not place:
        return look | {"markerfacecolor": empty}
    half = _HALVES[(place - 1) % len(_HALVES)]
    return look | {"markerfacecolor": color, "fillstyle": half, "markerfacecoloralt": empty}


def draw(ax: Axes, panel: Panel, inches: float, papers: Sequence[str]) -> None:
    """Draw published points: hollow, in the colour and with the marker of the method, beside its points.

    Markers of the second and further papers are half filled. Suspect points are filled with grey.
    """
    left, right = ax.get_xlim()
    size = 3.6 if inches < 2 else 4.6
    for curve in panel.published:
        place = papers.index(curve.paper)
        if curve.method == DENSE:
            mean = float(np.mean([point.mean for point in curve.points]))
            line = _DENSE_LINES[place % len(_DENSE_LINES)]
            ax.axhline(mean, color=INK_DENSE, linestyle=line, linewidth=0.9, zorder=1.6)
            continue
        # A factor, because the axis is logarithmic: published points lie beside ours and do not cover them.
        shift = (right / left) ** (_BESIDE * (place + 1) / inches)
        for point in curve.points:
            if not min(left, right) <= point.density <= max(left, right):
                continue
            ax.errorbar(
                point.density / shift,
                point.mean,
                point.std if math.isfinite(point.std) else None,
                color=curve.look.color,
                linestyle="",
                elinewidth=0.7,
                zorder=2.6,
                markersize=size,
                **_marker(curve.look.marker, curve.look.color, place, bool(point.suspect)),
            )


def differences(panel: Panel) -> pd.DataFrame:
    """Return ours minus published with a 95 % interval (Welch) where both have a deviation and n > 1, in points.

    Columns: method, density, ours, n, published, n_published, difference, half (half width of the interval), paper,
    epoch, match, differs (with the published network or series where there are several, and the reason of a suspicion).
    """
    rows = []
    ours = {curve.method: curve for curve in panel.curves if curve.source == ""} or {
        curve.method: curve for curve in panel.curves
    }
    for curve in panel.published:
        mine = ours.get(curve.method)
        if mine is None:
            continue
        for theirs in curve.points:
            near = [
                point
                for point in mine.points
                if curve.method == DENSE or abs(point.density - theirs.density) < SAME * theirs.density
            ]
            if near and math.isfinite(near[0].mean):
                rows.append(
                    {
                        "method": curve.method,
                        "density": theirs.density,
                        "ours": near[0].mean,
                        "n": near[0].n,
                        "published": theirs.mean,
                        "n_published": theirs.n,
                        "difference": near[0].mean - theirs.mean,
                        "paper": curve.paper,
                        "epoch": curve.epoch,
                        "match": curve.match,
                        "differs": _remarks(curve, theirs),
                        "half": inference.welch_half_width(near[0].spread, near[0].n, theirs.std, theirs.n),
                    }
                )
    names = ["method", "density", "ours", "n", "published", "n_published", "difference", "half"]
    return pd.DataFrame(rows, columns=[*names, "paper", "epoch", "match", "differs"])


def _remarks(curve: PublishedCurve, point: PublishedPoint) -> str:
    suspicion = f"suspect: {point.suspect}" if point.suspect else ""
    return "; ".join(text for text in (suspicion, curve.differs, point.series) if text)


def draw_differences(
    ax: Axes, panel: Panel, group: Sequence[Panel], sizes: tuple[float, float], papers: Sequence[str]
) -> None:
    """Draw ours minus published for each method and paper, with a band of half a point around zero."""
    ax.axhspan(-BAND, BAND, color="#EBEBEB", linewidth=0, zorder=0.5)
    ax.axhline(0, color="#222222", linewidth=0.7, zorder=1)
    ax.grid(visible=False)
    low, high = _range([differences(other) for other in group])
    table = differences(panel)
    table = table[table["method"] != DENSE]
    series = list(dict.fromkeys(zip(table["method"], table["paper"], strict=True)))
    step = 2 * _spread(len(series)) / max(1, len(series) - 1)
    left, right = ax.get_xlim()
    looks = {curve.method: curve.look for curve in panel.published}
    for index, (method, paper) in enumerate(series):
        shift = (right / left) ** (step / sizes[0] * (index - (len(series) - 1) / 2))
        rows = table[(table["method"] == method) & (table["paper"] == paper)]
        look: dict[str, Any] = {"marker": looks[method].marker, "markeredgewidth": 0}
        if len(papers) > 1:  # the same fill as above
            look = _marker(looks[method].marker, looks[method].color, papers.index(paper), False)
        ax.errorbar(
            rows["density"] * shift,
            rows["difference"],
            rows["half"].to_numpy() if rows["half"].notna().any() else None,
            color=looks[method].color,
            linestyle="",
            markersize=2.6 if sizes[0] < 2 else 3.6,
            linewidth=0.7,
            zorder=3,
            **look,
        )
    set_value_axis(ax, low, high, sizes[1])


def _spread(series: int) -> float:
    """Return the largest distance of a point in the strip from its density, in inches."""
    return min(_STEP * (series - 1) / 2, _MOST)


def margin(panel: Panel, inches: float) -> float:
    """Return the space that the points beside each density need at the ends of an axis (see `set_density_axis`)."""
    if not panel.published:
        return 0.0
    papers = len(papers_of([panel]))
    beside = max(_BESIDE * papers, _spread(sum(curve.method != DENSE for curve in panel.published))) + 0.05
    return beside / (inches - 2 * beside)


def _range(tables: Sequence[pd.DataFrame]) -> tuple[float, float]:
    """Return the range of all differences, with their intervals as far as they are at most half as far away again."""
    values = pd.concat([table[table["method"] != DENSE] for table in tables])
    reach = max(1.0, float(values["difference"].abs().max()) if len(values) else 1.0)
    half = values["half"].fillna(0)
    low = max(float((values["difference"] - half).min()), -_REACH * reach) if len(values) else -1.0
    high = min(float((values["difference"] + half).max()), _REACH * reach) if len(values) else 1.0
    return min(low, -1.0) * 1.08, max(high, 1.0) * 1.08
