"""Published numbers beside ours: hollow points, their dense line, and the difference below."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from pai_bench.analysis import inference
from pai_bench.analysis.figures.curves import Panel, PublishedCurve, PublishedPoint, density_of
from pai_bench.analysis.figures.scale import set_value_axis
from pai_bench.analysis.published import LEVELS
from pai_bench.analysis.style import DENSE_LOOK
from pai_bench.cells import DENSE

if TYPE_CHECKING:
    from pai_bench.analysis.figures.draw import Legend
    from pai_bench.analysis.figures.material import Material, Setting

BAND = 0.5
"""Half width of the band around zero, in points."""
PUBLISHED, PUBLISHED_DENSE, PUBLISHED_SUSPECT = "Published", "Dense, published", "Published, suspect"
_BESIDE = 0.035
"""Horizontal shift of published points in inches."""
_REACH = 1.5
"""Largest part of an interval on the axis, as a multiple of the largest difference."""
SAME = 0.01
"""Densities that differ by less are the same operating point."""


def curves_of(material: Material, setting: Setting) -> tuple[PublishedCurve, ...]:
    """Return the published points for the methods of a setting, by method: those of the best match and epoch.

    Ours is the last epoch. Where a method has published points of several matches or epochs, only the best is drawn.
    """
    rows = material.published
    if not len(rows):
        return ()
    same = (rows["dataset"] == setting.dataset) & (rows["model"] == setting.model)
    # Points of other protocols and of tables without a column `recipe` have no recipe.
    same &= (rows["recipe"] == setting.recipe) | (rows["recipe"] == "")
    rows = rows[same & rows["accuracy"].notna()]
    methods = [DENSE, *dict.fromkeys(material.of(setting)["method"])]
    found = []
    for method in dict.fromkeys(methods):
        own = rows[rows["method"] == method]
        if not len(own):
            continue
        ranked = own.assign(rank=own["match"].map(LEVELS.index) * 2 + (own["epoch"] != "last"))
        own = ranked[ranked["rank"] == ranked["rank"].min()]
        own = own[own["paper"] == own["paper"].iloc[0]]
        if method == DENSE and (own["suspect"] == "").any():
            own = own[own["suspect"] == ""]
        own = own.assign(series=_series(own)).sort_values("sparsity", kind="stable")
        points = tuple(
            PublishedPoint(
                density_of(row.sparsity),
                100 * row.accuracy,
                100 * _number(row.std),
                _number(row.n),
                row.series,
                row.suspect,
            )
            for row in own.itertuples()
        )
        first = own.iloc[0]
        found.append(
            PublishedCurve(
                method,
                material.look(method),
                epoch=str(first["epoch"]),
                match=str(first["match"]),
                paper=str(first["paper"]),
                differs="; ".join(dict.fromkeys(text for text in own["differs"] if text)),
                points=points,
            )
        )
    return tuple(found) if any(curve.method != DENSE for curve in found) else ()


def _series(rows: pd.DataFrame) -> list[str]:
    """Return what distinguishes published rows of one network and method of pai-bench, "" where nothing does."""
    words = {"model_published": "published as", "method_published": "series"}
    several = {word: rows[name] for name, word in words.items() if name in rows and rows[name].nunique() > 1}
    return [", ".join(f"{word} {names.iloc[place]}" for word, names in several.items()) for place in range(len(rows))]


def _number(value: object) -> float:
    return math.nan if pd.isna(value) else float(value)  # type: ignore[arg-type]


def draw(ax: Axes, panel: Panel, legend: Legend, inches: float) -> None:
    """Draw published points: hollow, in the colour and with the marker of the method, beside its points.

    Suspect points are filled with grey.
    """
    left, right = ax.get_xlim()
    # A factor, because the axis is logarithmic: published points lie beside ours and do not cover them.
    shift = (right / left) ** (_BESIDE / inches)
    size = 3.6 if inches < 2 else 4.6
    for curve in panel.published:
        if curve.method == DENSE:
            mean = float(np.mean([point.mean for point in curve.points]))
            ax.axhline(mean, color=INK_DENSE, linestyle=DOTS, linewidth=0.9, zorder=1.6)
            legend.marks.setdefault(PUBLISHED_DENSE, Line2D([], [], color=INK_DENSE, linestyle=DOTS, linewidth=0.9))
            continue
        for point in curve.points:
            if not min(left, right) <= point.density <= max(left, right):
                continue
            fill = SUSPECT_FILL if point.suspect else "white"
            look: dict[str, Any] = {"marker": curve.look.marker, "markersize": size, "markerfacecolor": fill}
            ax.errorbar(
                point.density / shift,
                point.mean,
                point.std if math.isfinite(point.std) else None,
                color=curve.look.color,
                linestyle="",
                elinewidth=0.7,
                markeredgewidth=0.8,
                zorder=2.6,
                **look,
            )
        for label, fill in ((PUBLISHED, "white"), (PUBLISHED_SUSPECT, SUSPECT_FILL)):
            if any(bool(point.suspect) == (label == PUBLISHED_SUSPECT) for point in curve.points):
                legend.marks.setdefault(
                    label, Line2D([], [], marker="o", markersize=4.2, mfc=fill, mec="#333333", mew=0.8, linestyle="")
                )


SUSPECT_FILL = "#C4C4C4"
INK_DENSE = DENSE_LOOK.color
DOTS = (0, (1, 1.3))


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


def draw_differences(ax: Axes, panel: Panel, group: Sequence[Panel], sizes: tuple[float, float]) -> None:
    """Draw ours minus published for each method, with a band of half a point around zero."""
    ax.axhspan(-BAND, BAND, color="#EBEBEB", linewidth=0, zorder=0.5)
    ax.axhline(0, color="#222222", linewidth=0.7, zorder=1)
    ax.grid(visible=False)
    low, high = _range([differences(other) for other in group])
    table = differences(panel)
    table = table[table["method"] != DENSE]
    methods = list(dict.fromkeys(table["method"]))
    left, right = ax.get_xlim()
    looks = {curve.method: curve.look for curve in panel.published}
    for index, method in enumerate(methods):
        shift = (right / left) ** (0.045 / sizes[0] * (index - (len(methods) - 1) / 2))
        rows = table[table["method"] == method]
        ax.errorbar(
            rows["density"] * shift,
            rows["difference"],
            rows["half"].to_numpy() if rows["half"].notna().any() else None,
            color=looks[method].color,
            linestyle="",
            marker=looks[method].marker,
            markersize=2.6 if sizes[0] < 2 else 3.6,
            markeredgewidth=0,
            linewidth=0.7,
            zorder=3,
        )
    set_value_axis(ax, low, high, sizes[1])


def _range(tables: Sequence[pd.DataFrame]) -> tuple[float, float]:
    """Return the range of all differences, with their intervals as far as they are at most half as far away again."""
    values = pd.concat([table[table["method"] != DENSE] for table in tables])
    reach = max(1.0, float(values["difference"].abs().max()) if len(values) else 1.0)
    half = values["half"].fillna(0)
    low = max(float((values["difference"] - half).min()), -_REACH * reach) if len(values) else -1.0
    high = min(float((values["difference"] + half).max()), _REACH * reach) if len(values) else 1.0
    return min(low, -1.0) * 1.08, max(high, 1.0) * 1.08
