"""Figure of the overlap of masks, and of the sparsity that remains effective."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from itertools import combinations
from pathlib import Path
from typing import Any

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
from pai_bench.analysis.figures.text import shown, widest, width, wrapped
from pai_bench.analysis.figures.venues import SMALL
from pai_bench.analysis.information import is_small_dense
from pai_bench.analysis.masks.overlap import Packed, common_draws, overlap
from pai_bench.analysis.tables import per_cent
from pai_bench.errors import PaiBenchError

_SPACE, _LINE = 0.02, 0.125
"""Space between the numbers of neighbouring cells, and height of a line of a label, in inches."""
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
        "Cells that are too narrow for a number have a shade only" if _is_narrow(material, found) else "",
        common_draws(zip(points["method"], points["other"], strict=True)),
        captions.recipes(material),
    )
    return Drawing("mask-overlap", "Overlap of masks", figures, caption, points)


def _is_narrow(material: Material, found: Mapping[Setting, tuple[float, pd.DataFrame]]) -> bool:
    """Return True if a page has no numbers."""
    return any(not any(_texts(table, _side(material, table)[1])["jaccard"].values()) for _, table in found.values())


def _side(material: Material, table: pd.DataFrame) -> tuple[list[str], float]:
    """Return the labels of the methods of a table, and the width of its cells in inches."""
    methods = [m for m in material.methods if m in set(table["method"]) | set(table["other"])]
    inches = material.options.inches
    labels = [wrapped(material.label(method), 0.22 * inches, SMALL) for method in methods]
    return labels, (inches - widest(labels, SMALL) - 0.3) / len(methods)


def _pairs(material: Material, rows: pd.DataFrame) -> pd.DataFrame:
    """Return the mean overlap of each pair of methods with masks of the same network at a common seed."""
    by_seed: dict[int, dict[str, Packed]] = {}
    for seed, method, path in rows[["seed", "method", "path"]].itertuples(index=False, name=None):
        if len(by_seed) < SEEDS or seed in by_seed:
            # A damaged or replaced file is reported elsewhere, and does not prevent the figure.
            with suppress(PaiBenchError, OSError):
                by_seed.setdefault(seed, {})[method] = Packed.of(results.read_masks(Path(path)))
    lines = []
    for one, other in combinations((m for m in material.methods if not is_small_dense(m)), 2):
        values = [overlap(masks[one], masks[other]) for masks in by_seed.values() if {one, other} <= masks.keys()]
        if values:
            jaccard, excess = (float(np.mean([getattr(v, name) for v in values])) for name in ("jaccard", "excess"))
            lines.append((one, other, jaccard, excess, len(values)))
    return pd.DataFrame(lines, columns=["method", "other", "jaccard", "excess", "n"])


def _page(material: Material, setting: Setting, sparsity: float, table: pd.DataFrame) -> Figure:
    methods = [m for m in material.methods if m in set(table["method"]) | set(table["other"])]
    figure = new_figure(material.options.inches)
    ax = new_axes(figure)
    labels, side = _side(material, table)
    high = max(min(0.24, side), _LINE * max(text.count("\n") + 1 for text in labels))
    texts = _texts(table, side)
    for row in table.itertuples():
        i, j = methods.index(str(row.method)), methods.index(str(row.other))
        _cell(ax, i, j, float(row.jaccard), texts["jaccard"][row.Index])
        _cell(ax, j, i, abs(float(row.excess)) * 2, texts["excess"][row.Index])
    ax.set_xlim(-0.5, len(methods) - 0.5)
    ax.set_ylim(len(methods) - 0.5, -0.5)
    ax.grid(visible=False)
    ax.spines[["left", "bottom"]].set_visible(False)
    ax.tick_params(length=0)
    places = list(range(len(methods)))
    set_ticks(ax.yaxis, places, [f"{shown(text)} {i + 1}" for i, text in enumerate(labels)])
    step = math.ceil((width(str(len(methods)), SMALL) + _SPACE) / side)
    set_ticks(ax.xaxis, places[::step], [str(i + 1) for i in places[::step]])
    ax.set_gid(OWN_AXIS)
    ax.set_title(f"{operating.title(material, setting)}, {per_cent(sparsity)} % sparsity")
    place(figure, [Row([ax], high * len(methods))])
    return figure


def _texts(table: pd.DataFrame, side: float) -> dict[str, dict[int, str]]:
    """Return the numbers of each column by row; without plus signs or not at all where the cells are too narrow."""
    jaccard = {row: f"{100 * value:.0f}" for row, value in table["jaccard"].items()}
    excess = {row: _signed(100 * value) for row, value in table["excess"].items()}
    plain = {row: text.removeprefix("+") for row, text in excess.items()}
    if not _fit(jaccard, side) or not _fit(plain, side):
        return dict.fromkeys(("jaccard", "excess"), dict.fromkeys(table.index, ""))
    return {"jaccard": jaccard, "excess": excess if _fit(excess, side) else plain}


def _fit(texts: Mapping[Any, str], side: float) -> bool:
    return all(width(text, SMALL) + _SPACE <= side for text in texts.values())


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
