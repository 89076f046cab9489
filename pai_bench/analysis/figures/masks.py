"""Figure of the overlap of masks, and of the sparsity that remains effective."""

from __future__ import annotations

from contextlib import suppress
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pai_bench import results
from pai_bench.analysis.figures import captions, operating
from pai_bench.analysis.figures.drawing import Drawing
from pai_bench.analysis.figures.layout import OWN_AXIS, Row, new_axes, new_figure, place, style
from pai_bench.analysis.figures.material import Material, Setting
from pai_bench.analysis.figures.scale import set_ticks
from pai_bench.analysis.figures.text import shown, widest, wrapped
from pai_bench.analysis.figures.venues import SMALL
from pai_bench.analysis.masks.overlap import Packed, overlap
from pai_bench.analysis.tables import per_cent
from pai_bench.errors import PaiBenchError

SEEDS = 3
"""Largest number of seeds per pair of methods whose masks are read."""


def mask_overlap(material: Material) -> Drawing | str:
    """Draw the overlap of the masks of all pairs of methods at one sparsity, one panel per setting."""
    found: dict[Setting, tuple[float, pd.DataFrame]] = {}
    for setting in material.settings:
        chosen = operating.runs(material, setting)
        if chosen is not None and "path" in chosen[1]:
            table = _pairs(material, chosen[1])
            if len(table):
                found[setting] = chosen[0], table
    if not found:
        return "no two methods have masks in the results folder"
    with style():
        figures = tuple(_page(material, setting, *value) for setting, value in found.items())
    points = pd.concat([t.assign(sparsity=s, **setting.columns) for setting, (s, t) in found.items()])
    sparsities = " and ".join(per_cent(s) for s in sorted({s for s, _ in found.values()}))
    caption = captions.sentences(
        "Overlap of the masks of two methods at the same seed, mean over seeds "
        f"({captions.count(points['n'])}), at {sparsities} % sparsity",
        "Below the diagonal: Jaccard index (%)",
        "Above: the index minus its expectation for random masks with the same number of weights in each layer, in "
        "points",
        captions.recipes(material),
    )
    return Drawing("mask-overlap", "Overlap of masks", figures, caption, points)


def _pairs(material: Material, rows: pd.DataFrame) -> pd.DataFrame:
    """Return the mean overlap of each pair of methods with masks at a common seed."""
    by_seed: dict[int, dict[str, Packed]] = {}
    for seed, method, path in rows[["seed", "method", "path"]].itertuples(index=False, name=None):
        if len(by_seed) < SEEDS or seed in by_seed:
            # A damaged or replaced file is reported elsewhere, and does not prevent the figure.
            with suppress(PaiBenchError, OSError):
                by_seed.setdefault(seed, {})[method] = Packed.of(results.read_masks(Path(path)))
    lines = []
    for one, other in combinations(material.methods, 2):
        values = [overlap(masks[one], masks[other]) for masks in by_seed.values() if {one, other} <= masks.keys()]
        if values:
            jaccard, excess = (float(np.mean([getattr(v, name) for v in values])) for name in ("jaccard", "excess"))
            lines.append((one, other, jaccard, excess, len(values)))
    return pd.DataFrame(lines, columns=["method", "other", "jaccard", "excess", "n"])


def _page(material: Material, setting: Setting, sparsity: float, table: pd.DataFrame) -> Figure:
    methods = [m for m in material.methods if m in set(table["method"]) | set(table["other"])]
    inches = material.options.inches
    figure = new_figure(inches)
    ax = new_axes(figure)
    labels = [wrapped(material.label(method), 0.22 * inches, SMALL) for method in methods]
    side = (inches - widest(labels, SMALL) - 0.3) / len(methods)
    high = min(0.24, side)
    for row in table.itertuples():
        i, j = methods.index(str(row.method)), methods.index(str(row.other))
        _cell(ax, i, j, float(row.jaccard), f"{100 * row.jaccard:.0f}")
        _cell(ax, j, i, abs(float(row.excess)) * 2, _signed(100 * float(row.excess)))
    ax.set_xlim(-0.5, len(methods) - 0.5)
    ax.set_ylim(len(methods) - 0.5, -0.5)
    ax.grid(visible=False)
    ax.spines[["left", "bottom"]].set_visible(False)
    ax.tick_params(length=0)
    places = list(range(len(methods)))
    set_ticks(ax.yaxis, places, [f"{shown(text)} {i + 1}" for i, text in enumerate(labels)])
    set_ticks(ax.xaxis, places, [str(i + 1) for i in places])
    ax.set_gid(OWN_AXIS)
    ax.set_title(f"{operating.title(material, setting)}, {per_cent(sparsity)} % sparsity")
    place(figure, [Row([ax], high * len(methods))])
    return figure


def _signed(points: float) -> str:
    """Return a number of points with its sign; 0 has none."""
    rounded = round(points)
    return f"{rounded:+d}".replace("-", "\N{MINUS SIGN}") if rounded else "0"


def _cell(ax: Axes, column: int, row: int, share: float, text: str) -> None:
    grey = 0.97 - 0.8 * min(share, 1.0)
    x, y = [column - 0.47, column + 0.47], [row - 0.46, row + 0.46]
    ax.fill([x[0], x[1], x[1], x[0]], [y[0], y[0], y[1], y[1]], color=str(grey), linewidth=0)
    color = "white" if grey < 0.55 else "#111111"
    ax.text(column, row, text, ha="center", va="center_baseline", size=SMALL, color=color)
