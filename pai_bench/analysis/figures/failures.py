"""Figure of the share of runs that fail to learn, by method and density, and of the critical compression."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

from pai_bench.analysis.columns import PANEL
from pai_bench.analysis.figures import captions
from pai_bench.analysis.figures.curves import density_of
from pai_bench.analysis.figures.drawing import Drawing
from pai_bench.analysis.figures.layout import Row, new_axes, new_figure, place, style
from pai_bench.analysis.figures.material import Material
from pai_bench.analysis.figures.panel import marker_of
from pai_bench.analysis.figures.scale import label
from pai_bench.analysis.figures.text import shown, widest, width, wrapped
from pai_bench.analysis.figures.venues import SMALL
from pai_bench.analysis.labels import SAME_NETWORK, same_networks

_COLUMNS = 14
"""Largest number of densities in the map; neighbours are joined where there are more."""
_CELL = 0.19
"""Height of a row in inches."""


def failed_runs(material: Material) -> pd.DataFrame:
    """Return the runs of pruned networks with the column `failed`: collapsed, diverged or at chance.

    Runs of a network under its second name (see SAME_NETWORK) are left out where it has runs under the first one.
    """
    rows = material.runs[material.runs["method"].isin(material.methods)]
    held = set(rows[["source", *PANEL]].itertuples(index=False, name=None))
    twice = [
        (source, dataset, SAME_NETWORK.get(model, ""), recipe) in held
        for source, dataset, model, recipe in rows[["source", *PANEL]].itertuples(index=False, name=None)
    ]
    rows = rows[~np.array(twice, dtype=bool)]
    return rows.assign(failed=(rows["status"] != "ok") | rows["at_chance"])


def critical_compression(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the largest compression up to which no run of a method fails, by source, method and setting.

    Columns: compression (NaN if runs fail at the lowest), open (True if none fails at any: the value is a bound).
    """
    found = []
    for key, rows in runs.groupby(["source", "method", *PANEL], sort=False):
        share = rows.groupby("sparsity")["failed"].max().sort_index()
        sound = [sparsity for sparsity, bad in share.items() if not share.loc[:sparsity].any() and not bad]
        best = 1 / density_of(float(sound[-1])) if sound else math.nan
        found.append((*key, best, len(sound) == len(share)))
    return pd.DataFrame(found, columns=["source", "method", *PANEL, "compression", "open"])


def failures(material: Material) -> Drawing | str:
    """Draw the share of failed runs by method and density over all settings, and the critical compression."""
    runs = failed_runs(material)
    if not runs["failed"].any():
        return "no run of a method collapsed, diverged or is at chance"
    groups = runs.groupby(["source", "method", "sparsity"])["failed"]
    table = groups.agg(share="mean", n="count").reset_index()
    critical = critical_compression(runs)
    with style():
        inches = material.options.inches
        names = [material.label(method, source) for source, method in material.series]
        labels = [wrapped(name, 0.3 * inches, SMALL) for name in names]
        high = sum(_CELL * (1 + 0.6 * text.count("\n")) for text in labels)
        beside = inches > 5
        where = "Right" if beside else "Below" if 2 * high + 1 < material.options.page.height else "Second page"
        first = new_figure(inches)
        second = new_figure(inches) if where == "Second page" else first
        shares, ratios = new_axes(first), new_axes(second)
        _map(shares, material, table, labels)
        _critical(ratios, material, critical, labels)
        shares.set_title("Runs at chance (%)")
        if beside:
            place(first, [Row([shares, ratios], high)])
            _widen(shares, ratios, 0.64)
        elif first is second:
            place(first, [Row([shares], high), Row([ratios], high)])
        else:
            place(first, [Row([shares], high)])
            place(second, [Row([ratios], high)])
        pages = tuple(dict.fromkeys((first, second)))
    settings = len(runs[PANEL].drop_duplicates())
    caption = captions.sentences(
        f"Share of runs that collapse, diverge or end at chance (at most 1.5 times the accuracy of guessing), over "
        f"{settings} setting{'s' * (settings > 1)} ({captions.count(table['n'])} runs a cell); a dot: none",
        f"{where}: critical compression, the largest ratio up to which no run fails, one mark per setting; an arrow: "
        "no run fails at any measured ratio",
        *captions.notes_of(material, material.series),
        *same_networks(setting.model for setting in material.settings),
    )  # fmt: skip
    density = table["sparsity"].map(density_of)
    return Drawing("failures", "Runs at chance", pages, caption, table.assign(density=density))


def _map(ax: Axes, material: Material, table: pd.DataFrame, labels: list[str]) -> None:
    sparsities = sorted(table["sparsity"].unique())
    kept = sparsities
    if len(kept) > _COLUMNS:  # the densities with the most runs, in equal steps
        places = np.linspace(0, len(sparsities) - 1, _COLUMNS).round().astype(int)
        kept = [sparsities[i] for i in places]
    for row, (source, method) in enumerate(material.series):
        own = table[(table["source"] == source) & (table["method"] == method)].set_index("sparsity")
        for column, sparsity in enumerate(kept):
            if sparsity not in own.index:
                continue
            share = float(own.loc[sparsity, "share"])
            if share == 0:
                ax.plot(column, row, ".", color="#888888", markersize=1.2)
                continue
            grey = 0.97 - 0.85 * share
            ax.fill([column - 0.47, column + 0.47, column + 0.47, column - 0.47],
                    [row - 0.46, row - 0.46, row + 0.46, row + 0.46], color=str(grey), linewidth=0)  # fmt: skip
            ax.text(column, row, f"{100 * share:.0f}", ha="center", va="center_baseline", size=SMALL,
                    color="white" if grey < 0.55 else "#111111")  # fmt: skip
    texts = [label(density_of(sparsity), material.options.x, 2) for sparsity in kept]
    step = 1
    room = (0.64 if material.options.inches > 5 else 1) * 0.75 * material.options.inches / len(kept)
    while widest(texts, SMALL) + 0.02 > step * room:
        step += 1
    ax.xaxis.set_major_locator(FixedLocator(list(range(0, len(kept), step))))
    ax.xaxis.set_major_formatter(FixedFormatter(texts[::step]))
    _method_axis(ax, labels)
    ax.set_xlim(-0.5, len(kept) - 0.5)
    ax.set_xlabel({"density": "Weights remaining (%)", "sparsity": "Weights removed (%)",
                   "compression": "Compression ratio"}[material.options.x])  # fmt: skip
    ax.spines[["left", "bottom"]].set_visible(False)
    ax.tick_params(length=0)


def _critical(ax: Axes, material: Material, critical: pd.DataFrame, labels: list[str]) -> None:
    known = critical["compression"].dropna()
    ax.set_xscale("log")
    low = max(1.0, float(known.min()) / 1.6) if len(known) else 1.0
    high = float(known.max()) * 1.6 if len(known) else 10.0
    ax.set_xlim(low, high)
    for row, (source, method) in enumerate(material.series):
        own = critical[(critical["source"] == source) & (critical["method"] == method)]
        look = material.look(method, source)
        values = own["compression"].fillna(low)
        for (value, count), reached in zip(
            values.value_counts().items(), own.groupby(values)["open"].any(), strict=False
        ):
            del count, reached
            is_open = bool(own.loc[values == value, "open"].any())
            ax.plot(value, row, color=look.color, linestyle="", zorder=3, **marker_of(look, 4.0))
            if is_open:
                ax.annotate("", (value * 1.4, row), (value, row), arrowprops={
                    "arrowstyle": "-|>,head_width=0.12,head_length=0.2", "color": look.color, "lw": 0.8,
                    "shrinkA": 2, "shrinkB": 0})  # fmt: skip
        ax.plot([low, values.max()], [row, row], color=look.color, linewidth=0.6, zorder=2)
    part = 0.25 if material.options.inches > 5 else 0.6
    ticks = [t for t in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000) if low <= t <= high]
    while sum(width(f"{t:g}", SMALL) + 0.08 for t in ticks) > part * material.options.inches and len(ticks) > 2:
        ticks = ticks[::2]
    ax.xaxis.set_major_locator(FixedLocator(ticks))
    ax.xaxis.set_major_formatter(FixedFormatter([f"{t:g}" for t in ticks]))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.grid(visible=False, axis="y")
    ax.grid(visible=True, axis="x")
    ax.set_xlabel("Critical compression")
    _method_axis(ax, labels)


def _method_axis(ax: Axes, labels: list[str]) -> None:
    ax.set_ylim(len(labels) - 0.5, -0.5)
    ax.grid(visible=False)
    ax.yaxis.set_major_locator(FixedLocator(list(range(len(labels)))))
    ax.yaxis.set_major_formatter(FixedFormatter([shown(text) for text in labels]))


def _widen(left: Axes, right: Axes, part: float) -> None:
    """Give the left of two panels that part of their common width."""
    one, two = left.get_position(), right.get_position()
    gap = two.x0 - one.x1
    total = two.x1 - one.x0 - gap
    # After `place`, which gives all panels the same width.
    left.set_position((one.x0, one.y0, part * total, one.height))
    right.set_position((one.x0 + part * total + gap, two.y0, (1 - part) * total, two.height))
