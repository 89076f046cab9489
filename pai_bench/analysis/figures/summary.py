"""Summary figure over settings: interquartile mean, probability of improvement, performance profile, mean ranks."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pai_bench.analysis import inference
from pai_bench.analysis.display_names import is_spec_of
from pai_bench.analysis.figures import captions, pooling
from pai_bench.analysis.figures.drawing import Drawing
from pai_bench.analysis.figures.layout import new_axes, new_figure, style
from pai_bench.analysis.figures.material import Material
from pai_bench.analysis.figures.panel import marker_of, spaced
from pai_bench.analysis.figures.pooling import Pool
from pai_bench.analysis.figures.scale import numbers, set_ticks, value_ticks
from pai_bench.analysis.figures.text import height, shown, widest, wrapped
from pai_bench.analysis.figures.venues import INK, NORMAL, SMALL, TITLE

_ROW, _TITLE, _BELOW = 0.19, 0.24, 0.34
"""Heights of a method, of a title, and of tick and axis labels, in inches."""

Draw = Callable[[Axes, float], None]


def summary(material: Material) -> Drawing | str:
    """Draw the aggregates that the number of settings and sparsities allows."""
    found = pooling.pool(material)
    if found is None:
        return "there are no two methods with a common sparsity"
    strata, blocks = len(found.normalised), len(found.settings)
    enough, ranked = pooling.has_strata(found), pooling.can_rank(found)
    reasons = []
    if not enough:
        reasons.append(
            f"interquartile mean, performance profile and P(improvement): {strata} pairs of setting and sparsity with a"
            f" dense result and known chance, {inference.MIN_STRATA} are needed"
        )
    if not ranked:
        reasons.append(
            f"mean ranks: {blocks} setting{'s' * (blocks != 1)} and {len(found.methods)} methods,"
            f" {inference.MIN_BLOCKS} and {pooling.MIN_METHODS} are needed"
        )
    if not (enough or ranked):
        return "; ".join(reasons)
    iqm = pooling.iqm(found) if enough else {}
    ranks = pooling.ranks(found) if ranked else None
    order = _order(found, iqm, ranks)
    ours = _highlighted(material, order)
    better = pooling.improvement(found, ours) if enough else {}
    aggregates = _Aggregates(order, iqm, better, ours, ranks)
    with style():
        figure = _figure(material, found, aggregates)
    caption = captions.sentences(*_words(material, found, ours, enough, ranks, reasons))
    table = _table(found, aggregates)
    return Drawing("summary", "Summary over settings", (figure,), caption, table)


@dataclass(frozen=True)
class _Aggregates:
    """Aggregates over settings; a mapping is empty, and `ranks` None, when there is too little data."""

    order: Sequence[str]
    """Methods, the best first."""
    iqm: Mapping[str, tuple[float, float, float]]
    """Interquartile mean and its interval (low, high) by method."""
    better: Mapping[str, float]
    """Probability that a run of `ours` is more accurate than a run of the method."""
    ours: str
    ranks: inference.Ranks | None


def _order(found: Pool, iqm: Mapping[str, tuple[float, float, float]], ranks: inference.Ranks | None) -> list[str]:
    """Return the methods by mean rank, else by interquartile mean, the best first."""
    if ranks is not None:
        places = dict(zip(found.methods, ranks.mean_ranks, strict=True))
        return sorted(found.methods, key=lambda method: float(places[method]))
    return sorted(found.methods, key=lambda method: -iqm[method][0])


def _highlighted(material: Material, order: Sequence[str]) -> str:
    """Return the first highlighted method, else the best one."""
    for name in material.options.highlight:
        for method in order:
            if is_spec_of(method, name):
                return method
    return order[0]


def _words(
    material: Material, found: Pool, ours: str, enough: bool, ranks: inference.Ranks | None, reasons: Sequence[str]
) -> list[str]:
    label = material.label(ours, found.source)
    blocks, strata = len(found.settings), len(found.normalised)
    words = [f"{blocks} setting{'s' * (blocks > 1)} (data set and network)"]
    if enough:
        words += [
            f"Interquartile mean and performance profile of (accuracy − chance)/(dense − chance) over {strata} pairs of"
            f" setting and sparsity; the mean is shown {pooling.interval_words(found)}",
            f"P({label} > …): probability that a run of {label} is more accurate than one of another method, on raw "
            "accuracies, with ties as one half",
        ]
    if ranks is not None:
        words.append(
            f"Mean rank of the area under accuracy over log density, one block per setting: Friedman χ² = "
            f"{ranks.chi2:.2f}, p = {ranks.p:.2g}; a bar at the right joins methods that differ by less than Nemenyi's "
            f"critical difference at 5 %, CD = {ranks.critical_difference:.2f}"
        )
    words += [pooling.failed_words(material, found), *(f"Not drawn: {reason}" for reason in reasons)]
    if found.repeated:
        words.append(f"Not counted, because they are another network under a second name: {', '.join(found.repeated)}")
    if found.left_out:
        names = ", ".join(material.label(m, found.source) for m in found.left_out)
        words.append(f"Left out, because results are missing in a setting: {names}")
    words += captions.notes_of(material, [(found.source, method) for method in found.methods])
    return [*words, f"Accuracies: {captions.epochs(material)}", f"Recipe: {found.recipe}" if found.recipe else ""]


def _figure(material: Material, found: Pool, aggregates: _Aggregates) -> Figure:
    order, iqm, better, ranks = aggregates.order, aggregates.iqm, aggregates.better, aggregates.ranks
    names = {m: shown(material.label(m, found.source)) for m in found.methods}
    looks = {m: material.look(m, found.source) for m in found.methods}
    panels: list[tuple[str, str, float, Draw]] = []
    if iqm:
        side = widest(list(names.values()), SMALL) + 0.08
        panels = [
            ("IQM, normalised", "", side, lambda ax, w: _draw_iqm(ax, w, order, iqm, looks, names)),
            (f"P({names[aggregates.ours]} > …)", "", 0.06, lambda ax, _: _draw_better(ax, order, better, looks)),
            ("Performance profile", "normalised accuracy τ", 0.38,
             lambda ax, _: _draw_profile(ax, order, found, looks)),
        ]  # fmt: skip
    if ranks is not None:
        title = f"Mean rank, CD {ranks.critical_difference:.2f}"
        side = 0.08 if iqm else widest(list(names.values()), SMALL) + 0.08
        panels.append((title, "", side, lambda ax, _: _draw_ranks(ax, order, found, ranks, looks)))
    inches = material.options.inches
    if inches < 5 and len(panels) == 4:
        panels = [panels[0], panels[1], (*panels[3][:2], panels[0][2], panels[3][3]), panels[2]]
    per_row = 4 if inches > 5 else 2
    rows = [panels[start : start + per_row] for start in range(0, len(panels), per_row)]
    high = max(_ROW * len(order), 1.0)
    figure = new_figure(inches)
    gap = 0.1
    widths = [(inches - 0.08 - sum(panel[2] for panel in row) - gap * (len(row) - 1)) / len(row) for row in rows]
    # A text that is wider than its panel has several lines.
    titles = [[wrapped(panel[0], wide + gap, TITLE) for panel in row] for row, wide in zip(rows, widths, strict=True)]
    # Labels are centred below panels, the last of which ends 0.04 inches before the edge of the page.
    xlabels = [
        [wrapped(panel[1], wide + 0.06, NORMAL) for panel in row] for row, wide in zip(rows, widths, strict=True)
    ]
    above = [_TITLE + max(height(text, TITLE) for text in texts) - height("one line", TITLE) for texts in titles]
    below = [_BELOW + max(0.0, max(height(t, NORMAL) for t in texts) - height("one line", NORMAL)) for texts in xlabels]
    total = sum(above) + sum(below) + len(rows) * high
    figure.set_figheight(total)
    for r, (row, wide) in enumerate(zip(rows, widths, strict=True)):
        x = 0.04
        top = sum(above[: r + 1]) + sum(below[:r]) + r * high
        for index, (title, _, side, draw) in enumerate(row):
            x += side
            ax = new_axes(figure)
            ax.set_position((x / inches, 1 - (top + high) / total, wide / inches, high / total))
            draw(ax, wide)
            if (index == 0 and not title.startswith("Perf")) or (title.startswith("Mean") and per_row == 2):
                set_ticks(ax.yaxis, list(range(len(order))), [names[m] for m in order])
            ax.set_title(titles[r][index], pad=3, linespacing=1.1)
            if xlabels[r][index]:
                ax.set_xlabel(xlabels[r][index], labelpad=1.5, linespacing=1.1)
            x += wide + gap
    return figure


def _rows(ax: Axes, texts: Sequence[str], named: bool) -> None:
    ax.set_ylim(len(texts) - 0.5, -0.5)
    set_ticks(ax.yaxis, list(range(len(texts))), list(texts) if named else [""] * len(texts))
    ax.tick_params(axis="y", length=0)
    ax.grid(visible=False)
    ax.grid(visible=True, axis="x")


def _draw_iqm(
    ax: Axes, inches: float, order: Sequence[str], iqm: Mapping[str, tuple[float, float, float]],
    looks: Mapping[str, Any], names: Mapping[str, str],
) -> None:  # fmt: skip
    ends = [end for values in iqm.values() for end in values if math.isfinite(end)]
    low, high = min(ends), max(ends)
    margin = 0.09 * (high - low) or 0.02
    ax.set_xlim(low - margin, high + margin)
    for y, method in enumerate(order):
        value, left, right = iqm[method]
        color = looks[method].color
        ax.plot([left, right], [y, y], color=color, linewidth=2.0, solid_capstyle="butt", zorder=2)
        ax.plot(value, y, color=color, linestyle="", zorder=3, **marker_of(looks[method], 4.4))
    ticks = value_ticks(low - margin, high + margin, 0.6 * inches)
    set_ticks(ax.xaxis, ticks, numbers(ticks))
    _rows(ax, [names[m] for m in order], named=True)


def _draw_better(ax: Axes, order: Sequence[str], better: Mapping[str, float], looks: Mapping[str, Any]) -> None:
    for y, method in enumerate(order):
        if method in better:
            value = better[method]
            ax.barh(y, value, height=0.62, color=looks[method].color, linewidth=0, zorder=2)
            ax.text(value + 0.03, y, f"{value:.2f}", size=SMALL, ha="left", va="center_baseline", zorder=4)
        else:
            ax.text(0.02, y, "–", size=SMALL, ha="left", va="center_baseline", zorder=4)
    ax.axvline(0.5, color=INK, linestyle=(0, (1, 1.5)), linewidth=0.8, zorder=3)
    ax.set_xlim(0, 1.24)
    set_ticks(ax.xaxis, [0, 0.5, 1], ["0", "0.5", "1"])
    _rows(ax, order, named=False)
    ax.spines["bottom"].set_bounds(0, 1)


def _draw_profile(ax: Axes, order: Sequence[str], found: Pool, looks: Mapping[str, Any]) -> None:
    thresholds = np.linspace(0, 1.05, 106)
    for place_, method in enumerate(order):
        values = np.concatenate([stratum.normalised[method] for stratum in found.normalised])
        shares = inference.performance_profile(values, thresholds)
        markers = {**marker_of(looks[method], 3.0), "markevery": spaced(len(thresholds), place_, len(order))}
        ax.plot(thresholds, shares, color=looks[method].color, linestyle=looks[method].line, linewidth=1.0, **markers)
    ax.set_xlim(0, 1.05)
    ax.set_ylim(0, 1.03)
    set_ticks(ax.xaxis, [0, 0.5, 1], ["0", "0.5", "1"])
    set_ticks(ax.yaxis, [0, 0.25, 0.5, 0.75, 1], ["0", "", "0.5", "", "1"])
    ax.set_ylabel("share of runs > τ", labelpad=1)


def _draw_ranks(ax: Axes, order: Sequence[str], found: Pool, ranks: inference.Ranks, looks: Mapping[str, Any]) -> None:
    """Draw mean ranks, with a bar at the right for each group that the critical difference does not separate."""
    values = {method: float(rank) for method, rank in zip(found.methods, ranks.mean_ranks, strict=True)}
    k = len(order)
    groups = _groups([values[m] for m in order], ranks.critical_difference)
    beyond = 0.09 * (k - 1) * len(groups) + 0.25
    for y, method in enumerate(order):
        ax.plot([k + 0.2, values[method]], [y, y], color=looks[method].color, linewidth=0.7, zorder=2)
        ax.plot(values[method], y, color=looks[method].color, linestyle="", zorder=3, **marker_of(looks[method], 4.4))
    for place, (first, last) in enumerate(groups):
        x = 1 - beyond * (place + 1) / (len(groups) + 0.5)
        ax.plot([x, x], [first - 0.2, last + 0.2], color=INK, linewidth=2.0, solid_capstyle="butt", zorder=3)
    ax.set_xlim(k + 0.2, 1 - beyond)
    step = 1 if k <= 6 else 2 if k <= 12 else 5
    ticks = list(range(1, k + 1, step))
    set_ticks(ax.xaxis, ticks, [str(tick) for tick in ticks])
    _rows(ax, order, named=False)
    ax.spines["bottom"].set_bounds(1, k)


def _groups(ranks: Sequence[float], difference: float) -> list[tuple[int, int]]:
    """Return the largest groups (first and last place) of sorted ranks that differ by less than `difference`."""
    found: list[tuple[int, int]] = []
    for first, low in enumerate(ranks):
        # Ranks are sorted, so that a group is an interval, and only the largest ones are drawn.
        last = max(place for place, rank in enumerate(ranks) if place >= first and rank - low < difference)
        if last > first and (not found or last > found[-1][1]):
            found.append((first, last))
    return found


def _table(found: Pool, aggregates: _Aggregates) -> pd.DataFrame:
    rows, ranks = [], aggregates.ranks
    seeds = pooling.fewest_seeds(found) if aggregates.iqm else 0
    for method in aggregates.order:
        value, low, high = aggregates.iqm.get(method, (np.nan, np.nan, np.nan))
        rank = np.nan if ranks is None else float(ranks.mean_ranks[found.methods.index(method)])
        cd = np.nan if ranks is None else ranks.critical_difference
        rows.append(
            {"source": found.source, "method": method, "iqm": value, "low": low, "high": high,
             "better_method": aggregates.ours, "p_better": aggregates.better.get(method, np.nan),
             "mean_rank": rank, "critical_difference": cd,
             "settings": len(found.settings), "strata": len(found.normalised), "seeds": seeds,
             "simulated_coverage": pooling.coverage(seeds)}
        )  # fmt: skip
    return pd.DataFrame(rows)
