"""Figure of accuracy against measured speed-up."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pai_bench.analysis.columns import OURS
from pai_bench.analysis.figures import captions, operating
from pai_bench.analysis.figures.cost import Spot, cost_ticks, limits
from pai_bench.analysis.figures.drawing import Drawing
from pai_bench.analysis.figures.layout import Row, new_axes, new_figure, panel_inches, place, style
from pai_bench.analysis.figures.legend import Entry
from pai_bench.analysis.figures.material import Material, Setting
from pai_bench.analysis.figures.panel import handle, marker_of
from pai_bench.analysis.figures.scale import set_value_axis
from pai_bench.analysis.speed import settings
from pai_bench.analysis.tables import measure, per_cent
from pai_bench.cells import DENSE
from pai_bench.results import speeds

_PER_PAGE = 6
FASTER = ("shrunk", "2:4")
"""Forms of a network that can be faster than the dense one; of several, the fastest is drawn."""


@dataclass(frozen=True)
class Measured:
    """A method at one sparsity: accuracy and speed-up with its quantiles."""

    spot: Spot
    sparsity: float
    form: str
    low: float
    high: float


Panels = dict[tuple[Setting, speeds.Setting], list[Measured]]


def speed(material: Material) -> Drawing | str:
    """Draw mean accuracy against the speed-up of the fastest form, one panel for each setting and measurement."""
    panels = _panels(material)
    if not panels:
        return "no speed of a shrunk or 2:4 network has been measured: pai-bench speed does it"
    keys = list(panels)
    with style():
        pages = tuple(
            _page(material, {key: panels[key] for key in keys[start : start + _PER_PAGE]})
            for start in range(0, len(keys), _PER_PAGE)
        )
    table = pd.DataFrame(
        [
            {**panel.columns, "measured_on": str(setting), "method": m.spot.method, "sparsity": m.sparsity,
             "form": m.form, "speedup": m.spot.cost, "speedup_low": m.low, "speedup_high": m.high,
             "mean": m.spot.mean, "std": m.spot.std, "n": m.spot.n}
            for (panel, setting), measured in panels.items() for m in measured
        ]
    )  # fmt: skip
    devices = "; ".join(dict.fromkeys(str(setting) for _, setting in panels))
    forms = " or ".join(sorted({m.form for measured in panels.values() for m in measured if m.form != DENSE}))
    caption = captions.sentences(
        f"Mean accuracy ± 1 sample standard deviation over seeds ({captions.count(table['n'])}) against the measured"
        f" speed-up of the {forms} network: dense time / own time in the same round, median with the quantiles 0.1 and"
        " 0.9",
        "Lines connect the sparsities of a method; cross: the dense network",
        below(list(panels.values()), material.label),
        f"Measured on: {devices}",
        captions.recipes(material),
    )
    return Drawing("speed", "Accuracy against measured speed-up", pages, caption, table)


def below(panels: Sequence[Sequence[Measured]], label: Callable[[str], str]) -> str:
    """Return the sentence of the caption on points below an axis, or an empty text."""
    names = [
        f"{label(m.spot.method)} at {per_cent(m.sparsity)} % sparsity"
        f" (accuracy {m.spot.mean:.0f} %, {m.spot.cost:.3g}x)"
        for measured in panels
        for m in measured
        if m.spot.mean < limits([other.spot for other in measured])[0]
    ]
    return f"Below the axis: {', '.join(names)}" if names else ""


def _panels(material: Material) -> Panels:
    found: Panels = {}
    if material.speeds.empty:
        return found
    for measurement, lines in settings(material.speeds[material.speeds["form"].isin(FASTER)]):
        for panel in material.settings:
            points = material.of(panel)
            points = points[points["source"] == OURS]
            own = lines[(lines[list(Setting._fields)] == list(panel)).all(axis=1)]
            measured = [m for method in material.methods for m in _of_method(points, own, method)]
            dense = points[(points["method"] == DENSE) & points["mean"].notna()]
            if measured:
                spots = [_spot(line, 1.0) for line in dense.head(1).to_dict("records")]
                found[panel, measurement] = [*(Measured(s, 0.0, DENSE, 1.0, 1.0) for s in spots), *measured]
    return found


def _of_method(points: pd.DataFrame, lines: pd.DataFrame, method: str) -> list[Measured]:
    found = []
    known = points[(points["method"] == method) & points["mean"].notna()]
    for point in known.sort_values("sparsity").to_dict("records"):
        at = lines[(lines["method"] == method) & (lines["sparsity"] == point["sparsity"])]
        for line in at.sort_values("ratio").tail(1).to_dict("records"):
            spot = _spot(point, line["ratio"])
            found.append(Measured(spot, point["sparsity"], line["form"], line["ratio_low"], line["ratio_high"]))
    return found


def _spot(point: dict[str, float], ratio: float) -> Spot:
    std = 100 * point["std"]
    return Spot(str(point["method"]), ratio, 100 * point["mean"], std, int(point["n"]))


def _page(material: Material, panels: Panels) -> Figure:
    figure = new_figure(material.options.inches)
    per_row = min(2 if material.options.inches > 5 else 1, len(panels))
    wide = panel_inches(material.options.inches, per_row, True)
    several = len({setting for _, setting in panels}) > 1
    rows, keys = [], list(panels)
    for start in range(0, len(keys), per_row):
        row = Row([], min(0.7 * wide, 1.9), own_ticks=True)
        for panel, setting in keys[start : start + per_row]:
            ax = new_axes(figure)
            _draw(ax, panels[panel, setting], material, wide, row.height)
            ax.set_title(operating.title(material, panel) + (f", {setting.device}" if several else ""))
            ax.set_xlabel("Measured speed-up")
            row.axes.append(ax)
        row.axes += [None] * (per_row - len(row.axes))
        rows.append(row)
    methods = [m for m in (DENSE, *material.methods) if any(x.spot.method == m for p in panels.values() for x in p)]
    entries = [Entry(material.label(m), handle(material.look(m))) for m in methods]
    place(figure, rows, entries, "", measure(material.summary["recipe"]))
    return figure


def _draw(ax: Axes, measured: Sequence[Measured], material: Material, wide: float, height: float) -> None:
    low, high = limits([m.spot for m in measured])
    ax.set_xscale("log")
    left, right = min(m.low for m in measured) / 1.1, max(m.high for m in measured) * 1.1
    ax.set_xlim(left, right)
    set_value_axis(ax, low, high, height)
    ax.axvline(1.0, color="#999999", linewidth=0.6, linestyle=(0, (1, 1.6)), zorder=0.8)
    for method in dict.fromkeys(m.spot.method for m in measured):
        own, look = [m for m in measured if m.spot.method == method], material.look(method)
        ax.plot([m.spot.cost for m in own], [m.spot.mean for m in own], color=look.color, linewidth=0.8, zorder=2,
                linestyle=look.line)  # fmt: skip
        for m in own:
            std = m.spot.std if math.isfinite(m.spot.std) else None
            sides = [[m.spot.cost - m.low], [m.high - m.spot.cost]]
            ax.errorbar(m.spot.cost, m.spot.mean, std, sides, color=look.color, linewidth=0.8, zorder=3)
            marker = {"marker": "x", "markersize": 5.0} if method == DENSE else marker_of(look, 5.0)
            ax.plot(m.spot.cost, m.spot.mean, color=look.color, linestyle="", zorder=4, **marker)
    cost_ticks(ax, left, right, wide)
