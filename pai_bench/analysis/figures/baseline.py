"""Figure of the paired differences between methods and a baseline, with every seed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from pai_bench.analysis import inference
from pai_bench.analysis.display_names import is_spec_of
from pai_bench.analysis.figures import captions, operating
from pai_bench.analysis.figures.arrange import PANELS
from pai_bench.analysis.figures.drawing import Drawing
from pai_bench.analysis.figures.layout import OWN_AXIS, Row, new_axes, new_figure, panel_inches, place, style
from pai_bench.analysis.figures.material import Material, Setting
from pai_bench.analysis.figures.panel import marker_of
from pai_bench.analysis.figures.scale import GAP, numbers, set_ticks, value_ticks
from pai_bench.analysis.figures.text import width
from pai_bench.analysis.figures.venues import INK, SMALL
from pai_bench.analysis.series import Runs, Series, by_series, paired_runs, sources_with_epoch
from pai_bench.analysis.tables import measure, per_cent

_ROW = 0.16
"""Height of a method in inches."""
_MOST = 0.75
"""Part of the methods that a sparsity needs; an unfinished sweep has some methods at few sparsities only."""
_REACH = 1.0
"""Part of the range of the seeds by which an axis extends beyond them, for intervals."""


@dataclass(frozen=True)
class Difference:
    """Differences of a method to the baseline in percentage points, at one sparsity."""

    source: str
    method: str
    values: np.ndarray
    """One per seed."""
    failed: int
    """Number of these runs, and runs of the baseline, that collapsed, diverged or are at chance."""

    @property
    def runs(self) -> int:
        """Number of runs of the method and the baseline."""
        return 2 * len(self.values)

    @property
    def interval(self) -> inference.Interval:
        """Mean and 95 % t interval, NaN where a run failed."""
        found = inference.t_interval(self.values)
        return found if not self.failed else inference.Interval(found.n, found.mean, math.nan, math.nan, math.nan)


@dataclass(frozen=True)
class Comparison:
    """A setting at one sparsity."""

    setting: Setting
    source: str
    sparsity: float
    differences: tuple[Difference, ...]


def baseline(material: Material) -> Drawing | str:
    """Draw accuracy minus the baseline's at the same seed, one panel per setting and chosen sparsity."""
    name = material.options.baseline
    if not any(is_spec_of(method, name) and method == name for method in material.methods):
        return f"there are no results of the baseline {name}; choose another one with --baseline"
    most = 3 if material.options.inches > 5 else 2
    rows = [found for setting in material.settings if (found := comparisons(material, setting, name, most))]
    if not rows:
        return f"no method has a seed in common with the baseline {name}"
    every = [one for row in rows for one in row]
    n = captions.count(len(d.values) for one in every for d in one.differences)
    # At least two of the 2^n sign flips, all signs and none, are as extreme as the observed signs.
    smallest = sorted({min(1.0, 2.0 ** (1 - len(d.values))) for one in every for d in one.differences})
    label = measure(material.summary["recipe"]).removesuffix(" (%)")
    caption = captions.sentences(
        f"{label} minus {material.label(name)}'s at the same seed, in percentage points: mean, 95 % Student t interval"
        f" (not adjusted for the number of methods), and each seed as a tick ({n})",
        "The smallest p that a two-sided sign flip of one comparison can reach is "
        + " or ".join(f"{p:.3g}" for p in smallest),
        "An arrow: the interval ends outside the axis" if any(map(_is_cut, every)) else "",
        "×, k/m: k of the m runs of the method and the baseline collapsed, diverged or are at chance (at most 1.5 times"
        " the accuracy of guessing), so there is no interval; at the edge where the mean is outside the axis"
        if any(d.failed for one in every for d in one.differences)
        else "",
        f"Sparsities: at most {most}, up to the highest at which the baseline does not fail",
        *captions.notes_of(material, {(d.source, d.method) for one in every for d in one.differences}),
        captions.recipes(material),
    )  # fmt: skip
    with style():
        pages = tuple(_page(material, part, most) for part in _parts(material, rows, most, caption))
    return Drawing("baseline", f"Difference to {material.label(name)}", pages, caption, _table(every, name))


def comparisons(material: Material, setting: Setting, name: str, most: int) -> list[Comparison]:
    """Return the comparisons of a setting at up to `most` sparsities, in equal steps of their order."""
    runs = by_series(material.runs_of(setting))
    failed = material.failed_points(setting)
    bases = [series for series in runs if series.method == name]
    if not bases:
        return []
    base = min(bases, key=lambda series: series.source)
    # As in the table: with the baseline of the same source, else with the first one, at the same epoch.
    epochs = sources_with_epoch(material.runs_of(setting))
    others = [
        Series(source, method, *setting)
        for source, method in material.series
        if method != name and Series(source, method, *setting) in runs and epochs[source] == epochs[base.source]
    ]
    found = []
    for sparsity in _chosen(runs[base], others, runs, failed.get((base.source, name), set()), most):
        differences = []
        for series in others:
            own = Series(series.source, name, *setting)
            paired = paired_runs(runs[series].get(sparsity, {}), runs[own if own in runs else base].get(sparsity, {}))
            if paired:
                values = 100 * np.array([ours.counted - theirs.counted for ours, theirs in paired.values()])
                bad = sum(ours.failed + theirs.failed for ours, theirs in paired.values())
                differences.append(Difference(series.source, series.method, values, bad))
        if differences:
            found.append(Comparison(setting, base.source, sparsity, tuple(differences)))
    return found


def _chosen(
    base: Mapping[float, Any], others: Sequence[Series], runs: Runs, failed: set[float], most: int
) -> list[float]:
    """Return up to `most` sparsities in equal steps, of those with most methods at which the baseline learns."""
    counts = {sparsity: sum(sparsity in runs[series] for series in others) for sparsity in sorted(base)}
    enough = _MOST * max(counts.values())
    held = [s for s, count in counts.items() if count and s not in failed and count >= enough]
    held = held or [s for s, count in counts.items() if count]
    places = np.linspace(0, len(held) - 1, min(most + 1, len(held))).round().astype(int)
    # The lowest sparsity shows the least; the last ones are kept where there are more than `most`.
    return [held[i] for i in places][-most:]


def _parts(material: Material, rows: list[list[Comparison]], most: int, caption: str) -> list[list[list[Comparison]]]:
    """Split the rows into pages."""
    room = material.options.page.height - captions.room(caption, material.options.inches, 0.9) - 0.3
    high = _row_height(max(len(one.differences) for row in rows for one in row), len(rows) > 1) + 0.45
    per_page = max(1, min(PANELS // most, int(room / high)))
    return [rows[start : start + per_page] for start in range(0, len(rows), per_page)]


def _row_height(methods: int, titled: bool) -> float:
    """Return the height of a row of panels in inches; a rotated title needs the height of its text."""
    return max(_ROW * methods, 0.8 if titled else 0.3)


def _page(material: Material, rows: Sequence[Sequence[Comparison]], most: int) -> Figure:
    figure = new_figure(material.options.inches)
    columns = max(len(row) for row in rows)
    wide = panel_inches(material.options.inches, columns) - 0.2
    placed = []
    same = len({tuple(one.sparsity for one in row) for row in rows}) == 1
    for comparisons_ in rows:
        compared = {(d.source, d.method) for one in comparisons_ for d in one.differences}
        series = [key for key in material.series if key in compared]
        title = operating.title(material, comparisons_[0].setting).replace(" · ", "\n") if len(rows) > 1 else ""
        row = Row([], _row_height(len(series), len(rows) > 1), title)
        for one in comparisons_:
            ax = new_axes(figure)
            _draw(ax, one, series, material, wide)
            if not same or comparisons_ is rows[0]:
                ax.set_title(f"{per_cent(one.sparsity)} % sparsity")
            row.axes.append(ax)
        row.axes += [None] * (columns - len(comparisons_))
        placed.append(row)
    name = material.label(material.options.baseline)
    place(figure, placed, (), f"Accuracy minus {name}'s at the same seed (points)")
    return figure


def _draw(ax: Axes, one: Comparison, series: Sequence[tuple[str, str]], material: Material, inches: float) -> None:
    low, high = _limits(one)
    ax.set_xlim(low, high)
    ax.grid(visible=False)
    ax.grid(visible=True, axis="x")
    ax.axvline(0, color=INK, linewidth=0.9, zorder=1.5)
    for difference in one.differences:
        key = difference.source, difference.method
        y, look = series.index(key), material.look(difference.method, difference.source)
        interval = difference.interval
        if math.isfinite(interval.low):
            left, right = max(interval.low, low), min(interval.high, high)
            ax.plot([left, right], [y, y], color=look.color, linewidth=1.6, solid_capstyle="butt", zorder=2)
            for end, limit, arrow in ((interval.low, low, "<"), (interval.high, high, ">")):
                if (end < limit) if arrow == "<" else (end > limit):
                    ax.plot(limit, y, arrow, color=look.color, markersize=3.6, markeredgewidth=0, clip_on=False)
        values = difference.values
        ax.plot(values, [y + 0.33] * len(values), "|", color=look.color, markersize=3.6, markeredgewidth=0.8, zorder=2)
        marker: dict[str, Any] = {"marker": "x", "markersize": 3.6} if difference.failed else marker_of(look, 4.4)
        place_ = min(max(interval.mean, low), high)
        ax.plot(place_, y, color=look.color, linestyle="", zorder=3, clip_on=False, **marker)
        if difference.failed:
            room = 0.11 * (high - low)  # the text is on the side away from the line at zero, where it has room there
            side = -1 if (place_ < 0 and place_ - low > room) or high - place_ < room else 1
            ax.annotate(
                f"{difference.failed}/{difference.runs}", (place_, y), (side * 4, 0), textcoords="offset points",
                size=SMALL, ha="left" if side > 0 else "right", va="center_baseline", annotation_clip=False, zorder=4,
                path_effects=[withStroke(linewidth=2.5, foreground="white")],  # over the line at zero
            )  # fmt: skip
    ax.set_ylim(len(series) - 0.4, -0.6)
    ax.spines["left"].set_visible(False)
    ax.tick_params(axis="y", length=0, pad=5)  # beside arrows at the edge
    set_ticks(ax.yaxis, list(range(len(series))), [material.label(method, source) for source, method in series])
    # As many ticks as have room for their labels.
    fine, coarse = (value_ticks(low, high, share * inches) for share in (0.8, 0.55))
    ticks = fine if sum(width(text, SMALL) + GAP for text in numbers(fine)) < 0.8 * inches else coarse
    set_ticks(ax.xaxis, ticks, numbers(ticks))
    ax.set_gid(OWN_AXIS)


def _is_cut(one: Comparison) -> bool:
    """Return True if an interval ends outside the axis."""
    low, high = _limits(one)
    return any(d.interval.low < low or d.interval.high > high for d in one.differences)


def _limits(one: Comparison) -> tuple[float, float]:
    """Return a range with zero and all seeds, and the intervals as far as they do not compress the seeds."""
    sound = [d.values for d in one.differences if not d.failed]
    seeds = np.concatenate([*(sound or [d.values for d in one.differences]), np.zeros(1)])
    low, high = float(seeds.min()), float(seeds.max())
    reach = _REACH * max(high - low, 0.5)
    ends = [end for d in one.differences for end in (d.interval.low, d.interval.high) if math.isfinite(end)]
    low = min([low, *(max(end, low - reach) for end in ends)])
    high = max([high, *(min(end, high + reach) for end in ends)])
    margin = 0.04 * (high - low) or 0.5
    return low - margin, high + margin


def _table(found: Sequence[Comparison], name: str) -> pd.DataFrame:
    rows = []
    for one in found:
        for difference in one.differences:
            interval = difference.interval
            rows.append(
                {**one.setting.columns, "sparsity": one.sparsity, "source": difference.source,
                 "method": difference.method, "baseline": name,
                 "difference": interval.mean, "low": interval.low, "high": interval.high, "n": interval.n,
                 "failed": difference.failed, "runs": difference.runs,
                 "seeds": " ".join(f"{value:.6g}" for value in difference.values)}
            )  # fmt: skip
    return pd.DataFrame(rows)
