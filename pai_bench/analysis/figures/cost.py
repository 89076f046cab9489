"""Figure of accuracy against the cost of scoring, with the Pareto front."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pai_bench.analysis.figures import captions, operating
from pai_bench.analysis.figures.drawing import Drawing
from pai_bench.analysis.figures.layout import Row, new_axes, new_figure, panel_inches, place, style
from pai_bench.analysis.figures.legend import Entry
from pai_bench.analysis.figures.material import Material, Setting
from pai_bench.analysis.figures.panel import handle, marker_of
from pai_bench.analysis.figures.scale import GAP, set_ticks, set_value_axis
from pai_bench.analysis.figures.text import width
from pai_bench.analysis.figures.venues import SMALL
from pai_bench.analysis.tables import measure, per_cent
from pai_bench.cells import SMALL_DENSE

COSTS = {"score_seconds": "Scoring time (s)", "score_peak_bytes": "Peak memory of scoring (MiB)"}
_UNIT = {"score_seconds": 1.0, "score_peak_bytes": 2.0**20, "flops_sparse": 1.0}
_PER_PAGE = 6


@dataclass(frozen=True)
class Spot:
    """A method in a setting: accuracy (per cent) with its deviation, and the median cost."""

    method: str
    cost: float
    mean: float
    std: float
    n: int


def cost(material: Material) -> Drawing | str:
    """Draw accuracy against scoring time and peak memory at one sparsity, one row per setting."""
    return _drawing(material, "cost", "Accuracy against the cost of scoring", COSTS)


def flops(material: Material) -> Drawing | str:
    """Draw accuracy against the operations of a forward pass of the pruned network."""
    return _drawing(material, "flops", "Accuracy against FLOPs", {"flops_sparse": "FLOPs of a forward pass"})


def spots(runs: pd.DataFrame, column: str, methods: Sequence[str]) -> list[Spot]:
    """Return the methods with a known positive cost, the median over their runs.

    A smaller dense network has no cost of scoring, because nothing is scored.
    """
    found = []
    for method in methods:
        if column in COSTS and _is_small_dense(method):
            continue
        own = runs[runs["method"] == method]
        known = pd.to_numeric(own[column], errors="coerce").dropna() if column in own else pd.Series(dtype=float)
        accuracy = own["counted"].dropna()
        if len(accuracy) and len(known) and known.median() > 0:
            # Failed runs are another population, in cost figures as in tables.
            failed = (own["status"] != "ok").any() or own["at_chance"].any()
            std = 100 * accuracy.std(ddof=1) if len(accuracy) > 1 and not failed else math.nan
            # The median, because single runs on a shared machine may take much longer.
            found.append(Spot(method, known.median() / _UNIT[column], 100 * accuracy.mean(), std, len(accuracy)))
    return found


def front(found: Sequence[Spot]) -> list[Spot]:
    """Return the Pareto front: methods that are more accurate than every cheaper one, in order of cost."""
    best: list[Spot] = []
    # At equal cost the most accurate method comes first, and the others are not on the front.
    for spot in sorted(found, key=lambda spot: (spot.cost, -spot.mean)):
        if not best or spot.mean > best[-1].mean:
            best.append(spot)
    return best


def _drawing(material: Material, name: str, title: str, columns: dict[str, str]) -> Drawing | str:
    found: dict[Setting, tuple[float, dict[str, list[Spot]]]] = {}
    for setting in material.settings:
        chosen = operating.runs(material, setting)
        if chosen is not None:
            by_cost = {column: spots(chosen[1], column, material.methods) for column in columns}
            if any(len(values) > 1 for values in by_cost.values()):
                found[setting] = (chosen[0], by_cost)
    if not found:
        # An abbreviation such as FLOPs keeps its capitals.
        names = " or ".join(text if text[1].isupper() else text[0].lower() + text[1:] for text in columns.values())
        return f"no two methods have results with {names}"
    shown = [c for c in columns if any(len(by_cost[c]) > 1 for _, by_cost in found.values())]
    settings = list(found)
    with style():
        pages = tuple(
            _page(material, {s: found[s] for s in settings[start : start + _PER_PAGE]}, shown, columns)
            for start in range(0, len(settings), _PER_PAGE)
        )
    table = pd.DataFrame(
        [
            {**s.columns, "sparsity": sparsity, "method": spot.method, column: spot.cost, "mean": spot.mean,
             "std": spot.std, "n": spot.n}
            for s, (sparsity, by_cost) in found.items() for column in shown for spot in by_cost[column]
        ]
    )  # fmt: skip
    sparsities = " and ".join(per_cent(s) for s in sorted({sparsity for sparsity, _ in found.values()}))
    caption = captions.sentences(
        f"{title} at {sparsities} % sparsity: mean accuracy ± 1 sample standard deviation over seeds "
        f"({captions.count(table['n'])}) against the median cost",
        "Grey line: Pareto front, the best accuracy at each cost",
        "Points in the grey band are below the axis, at the accuracy beside them" if any(
            spot.mean < limits(by_cost[c])[0] for _, by_cost in found.values() for c in shown for spot in by_cost[c]
        ) else "",
        _unscored(material, settings) if name == "cost" else "",
        _devices(material) if name == "cost" else "",
        captions.recipes(material),
    )  # fmt: skip
    return Drawing(name, title, pages, caption, table)


def _is_small_dense(method: str) -> bool:
    return method.partition(":")[0] == SMALL_DENSE


def _unscored(material: Material, settings: Sequence[Setting]) -> str:
    """Return the sentence on methods that are left out, because they score no weights."""
    shown = {method for setting in settings for method in material.of(setting)["method"]}
    names = [material.label(method) for method in material.methods if method in shown and _is_small_dense(method)]
    return f"Not drawn, because no weight is scored: {', '.join(names)}" if names else ""


def _devices(material: Material) -> str:
    devices = material.runs["device"].dropna().unique() if "device" in material.runs else []
    return f"Measured on: {', '.join(map(str, devices))}" if len(devices) else ""


def limits(found: Sequence[Spot]) -> tuple[float, float]:
    """Return the accuracy range; methods far below the median of the better half are left to the lower edge."""
    means = sorted((spot.mean for spot in found), reverse=True)
    if not means:
        return 0.0, 1.0
    top, middle = means[0], means[len(means) // 2]
    low = max(means[-1], top - 3 * max(top - middle, 1.0))
    within = [spot for spot in found if spot.mean >= low]
    spread = [spot.std if math.isfinite(spot.std) else 0.0 for spot in within]
    bottom = min(spot.mean - s for spot, s in zip(within, spread, strict=True))
    bottom = max(bottom, low - 0.5 * max(top - low, 1.0))
    margin = 0.08 * max(top - bottom, 1.0)
    return bottom - margin, min(max(spot.mean + s for spot, s in zip(within, spread, strict=True)) + margin, 101.0)


def band(found: Sequence[Spot], low: float) -> float:
    """Return the height of the band for methods below the axis, relative to its range; 0 without any."""
    places = _places(found, low)
    return 0.12 + 0.09 * max(places.values()) if places else 0.0


def _places(found: Sequence[Spot], low: float) -> dict[Spot, int]:
    """Return the line in the band of each method below the axis; texts of similar costs are stacked."""
    places: dict[Spot, int] = {}
    for spot in sorted((spot for spot in found if spot.mean < low), key=lambda spot: spot.cost):
        places[spot] = sum(spot.cost < 3 * other.cost for other in places)
    return places


def _page(
    material: Material,
    found: dict[Setting, tuple[float, dict[str, list[Spot]]]],
    shown: Sequence[str],
    columns: dict[str, str],
) -> Figure:
    figure = new_figure(material.options.inches)
    alone = len(shown) == 1
    per_row = 2 if material.options.inches > 5 else 1
    panels = [(setting, column) for setting in found for column in shown]
    per_row = min(per_row, len(panels))
    wide = panel_inches(material.options.inches, per_row, alone)
    rows = []
    for start in range(0, len(panels), per_row):
        part = panels[start : start + per_row]
        row = Row([], min(0.7 * wide, 1.7), own_ticks=alone or per_row == 1)
        for setting, column in part:
            spots_ = found[setting][1][column]
            group = [found[setting][1][c] for c in shown]
            low, high = limits([spot for one in group for spot in one])
            floor = low - max(band(one, low) for one in group) * (high - low)
            ax = new_axes(figure)
            _draw(ax, spots_, material, (floor, low, high), (wide, row.height))
            title = f"{operating.title(material, setting)}, {per_cent(found[setting][0])} % sparsity"
            ax.set_title(title if alone or column == shown[0] else "")
            ax.set_xlabel(columns[column])
            row.axes.append(ax)
        row.axes += [None] * (per_row - len(part))
        rows.append(row)
    methods = [
        m for m in material.methods if any(s.method == m for _, by in found.values() for c in shown for s in by[c])
    ]
    entries = [Entry(material.label(m), handle(material.look(m))) for m in methods]
    place(figure, rows, entries, "", measure(material.summary["recipe"]))
    return figure


def _draw(
    ax: Axes, found: Sequence[Spot], material: Material, limits: tuple[float, float, float], sizes: tuple[float, float]
) -> None:
    """Draw a panel; limits: lower end of the band for methods below the axis, lower and upper end of the axis."""
    floor, low, high = limits
    ax.set_xscale("log")
    costs = [spot.cost for spot in found] or [1.0]
    margin = max(1.05, (max(costs) / min(costs)) ** 0.1)
    left, right = min(costs) / margin, max(costs) * margin
    places = _places(found, low)
    ax.set_xlim(left, right)
    set_value_axis(ax, floor, high, sizes[1], lambda tick: tick >= low)
    if floor < low:
        ax.axhspan(floor, low, color="#EBEBEB", linewidth=0, zorder=0.5)
    best = front(found)
    if best:
        x = [value for spot in best for value in (spot.cost, spot.cost)] + [right]
        y = [floor, *[value for spot in best for value in (spot.mean, spot.mean)]]
        ax.plot(x, y, color="#CFCFCF", linewidth=2.6, zorder=1, solid_joinstyle="miter")
    for spot in sorted(found, key=lambda spot: spot.cost):
        look = material.look(spot.method)
        marker: dict[str, Any] = marker_of(look, 5.0)
        if spot.mean < low:
            place_ = floor + (0.06 + 0.09 * places[spot]) * (high - low)
            ax.plot(spot.cost, place_, color=look.color, linestyle="", zorder=4, **marker)
            ax.annotate(f"{spot.mean:.0f}", (spot.cost, place_), (4, 0), textcoords="offset points", size=7,
                        color="#555555", va="center")  # fmt: skip
            continue
        if math.isfinite(spot.std):
            ax.errorbar(spot.cost, spot.mean, spot.std, color=look.color, linewidth=0.8, zorder=3)
        ax.plot(spot.cost, spot.mean, color=look.color, linestyle="", zorder=4, **marker)
    cost_ticks(ax, left, right, sizes[0])


def cost_ticks(ax: Axes, left: float, right: float, inches: float) -> None:
    """Set round ticks on a logarithmic axis of `inches` from `left` to `right`, over its whole range."""
    decades = range(math.floor(math.log10(left)), math.ceil(math.log10(right)) + 1)
    ticks: list[float] = []
    for step in ((1, 2, 5), (1, 3), (1,)):
        ticks = [value for d in decades for m in step if left <= (value := float(f"{m}e{d}")) <= right]
        if len(ticks) <= inches / 0.4 and not _touch(ticks, left, right, inches):
            break
    if len(ticks) < 3 and right < 10 * left:  # less than a decade: round steps
        ticks = [float(t) for t in MaxNLocator(4, steps=[1, 2, 5, 10]).tick_values(left, right) if left <= t <= right]
    while _touch(ticks, left, right, inches):
        ticks = ticks[::2]
    set_ticks(ax.xaxis, ticks, [_number(tick) for tick in ticks])


def _touch(ticks: Sequence[float], left: float, right: float, inches: float) -> bool:
    """Return True if labels of neighbouring ticks touch on a logarithmic axis of `inches` from `left` to `right`."""
    scale = inches / math.log(right / left)
    return any(
        scale * math.log(b / a) < (width(_number(a), SMALL) + width(_number(b), SMALL)) / 2 + GAP
        for a, b in pairwise(ticks)
    )


def _number(value: float) -> str:
    """Return a tick label; large numbers have a unit, such as 20k."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:g}{unit}"
    # Without exponents, as the other labels of the axis.
    return np.format_float_positional(float(f"{value:.6g}"), trim="-")
