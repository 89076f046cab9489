"""Figure of the fraction of weights that each layer keeps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

from pai_bench import results
from pai_bench.analysis.figures import captions, operating
from pai_bench.analysis.figures.drawing import Drawing
from pai_bench.analysis.figures.layout import OWN_AXIS, Row, new_axes, new_figure, panel_inches, place, style
from pai_bench.analysis.figures.legend import Entry
from pai_bench.analysis.figures.material import MUTED, Material, Setting
from pai_bench.analysis.figures.panel import marker_of, series_entries
from pai_bench.analysis.figures.scale import set_ticks
from pai_bench.analysis.figures.text import widest
from pai_bench.analysis.figures.venues import INK, SMALL
from pai_bench.analysis.tables import per_cent
from pai_bench.errors import PaiBenchError

SEEDS = 5
"""Largest number of runs per method that are read."""
_AROUND, _STRIP, _ELSE = 0.72, 0.28, 1.5
"""Heights of titles and labels of a row, of its bars of sizes, and of legend and caption of a page, in inches."""
_NAMED = 8
"""Largest number of layers that are labelled with names and sizes; beyond it, sizes are drawn as bars."""


@dataclass(frozen=True)
class Kept:
    """Layers of a setting at one sparsity."""

    setting: Setting
    sparsity: float
    names: tuple[str, ...]
    sizes: tuple[int, ...]
    kept: dict[str, np.ndarray]
    """Kept fractions [runs, layers] by method."""
    coloured: frozenset[str] = frozenset()
    """Methods in colour; all others are grey."""


def layers(material: Material) -> Drawing | str:
    """Draw the kept fraction of each layer, one panel per setting, at one sparsity."""
    found = [kept for setting in material.settings if (kept := read(material, setting)) is not None]
    if not found:
        return "the results folder has no results of pruned networks; tables have no numbers by layer"
    methods = [method for method in material.methods if any(method in kept.kept for kept in found)]
    coloured, every = material.coloured(methods), found
    found = [replace(kept, coloured=group) for kept in found for group in coloured if group & kept.kept.keys()]
    with style():
        columns = _columns(material, len(coloured) > 1)
        most = _per_page(material, found, columns)
        entries = series_entries(material, methods, coloured)
        pages = tuple(
            _page(material, found[start : start + most], entries, (columns, len(coloured) > 1))
            for start in range(0, len(found), most)
        )
    sparsities = sorted({kept.sparsity for kept in found})
    n = captions.count(len(values) for kept in found for values in kept.kept.values())
    caption = captions.sentences(
        f"Fraction of weights that each layer keeps at {' and '.join(per_cent(s) for s in sparsities)} % sparsity:"
        f" mean over seeds ({n}); bars: ± 1 sample standard deviation",
        "Black line: fraction kept in the whole network",
        *_sizes_in_words(found, columns),
        "×: the layer keeps no weight" if any((v == 0).any() for kept in found for v in kept.kept.values()) else "",
        captions.recipes(material),
    )
    return Drawing("layers", "Weights kept by layer", pages, caption, _table(every))


def _columns(material: Material, multiples: bool) -> int:
    return (2 if material.options.inches > 5 else 1) * (2 if multiples else 1)


def _high(material: Material, columns: int) -> float:
    """Return the height of a panel in inches."""
    return 1.35 if columns > 1 else min(0.5 * panel_inches(material.options.inches, columns), 2.0)


def _per_page(material: Material, found: Sequence[Kept], columns: int) -> int:
    """Return the number of panels of a page."""
    high = _high(material, min(columns, len(found))) + _AROUND + (_STRIP + 0.1 if _has_bars(found) else 0)
    return columns * max(1, int((material.options.page.height - _ELSE) / high))


def _has_bars(row: Sequence[Kept]) -> bool:
    """Return True if a panel of the row has too many layers for labels with sizes."""
    return any(len(kept.names) > _NAMED for kept in row)


def _sizes_in_words(found: Sequence[Kept], columns: int) -> list[str]:
    """Return the sentences that explain the sizes of layers: in labels, as bars, or both in different rows."""
    many = [_has_bars(found[start : start + columns]) for start in range(0, len(found), columns)]
    return [
        "Second line of the labels: number of prunable weights of the layer" if not all(many) else "",
        "Grey bars at the bottom: number of prunable weights of the layer" if any(many) else "",
    ]


def read(material: Material, setting: Setting) -> Kept | None:
    """Read the layers of the runs of a setting; files that are damaged or were replaced are left out."""
    chosen = operating.runs(material, setting)
    if chosen is None or "path" not in chosen[1]:
        return None
    sparsity, rows = chosen
    names: tuple[str, ...] = ()
    sizes: tuple[int, ...] = ()
    kept: dict[str, list[list[float]]] = {}
    for method in material.methods:
        for path in rows.loc[rows["method"] == method, "path"].dropna().head(SEEDS):
            with suppress(PaiBenchError, OSError):
                found = results.read_plain(Path(path))["layers"]
                names, sizes = tuple(x["name"] for x in found), tuple(x["size"] for x in found)
                kept.setdefault(method, []).append([x["kept"] / x["size"] for x in found])
    arrays = {method: np.array(values) for method, values in kept.items()}
    return Kept(setting, sparsity, names, sizes, arrays) if arrays else None


def _table(found: Sequence[Kept]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {**kept.setting.columns, "sparsity": kept.sparsity, "method": method, "layer": name, "size": size,
             "kept": values[:, i].mean(), "std": values[:, i].std(ddof=1) if len(values) > 1 else math.nan,
             "n": len(values)}
            for kept in found
            for method, values in kept.kept.items()
            for i, (name, size) in enumerate(zip(kept.names, kept.sizes, strict=True))
        ]
    )  # fmt: skip


def _page(material: Material, found: Sequence[Kept], entries: Sequence[Entry], arrangement: tuple[int, bool]) -> Figure:
    """Draw a page; `arrangement`: the number of columns, and whether each panel has one method in colour."""
    figure = new_figure(material.options.inches)
    columns, multiples = min(arrangement[0], len(found)), arrangement[1]
    wide = panel_inches(material.options.inches, columns)
    high = _high(material, columns)
    low = min(kept.kept[m][kept.kept[m] > 0].min(initial=1.0) for kept in found for m in kept.kept) / 1.4
    rows = []
    for start in range(0, len(found), columns):
        part = found[start : start + columns]
        row = Row([], high)
        many = _has_bars(part)
        row.strip_height = _STRIP if many else 0.0
        for kept in part:
            ax = new_axes(figure)
            _draw(ax, kept, material, low)
            name = material.label(*kept.coloured) if multiples else ""
            ax.set_title("\n".join(part for part in (operating.title(material, kept.setting), name) if part))
            row.axes.append(ax)
            lower = None
            if many:
                lower = new_axes(figure)
                _sizes(lower, kept)
            row.strips.append(lower)
            _names(lower or ax, kept, wide, many)
        row.axes += [None] * (columns - len(part))
        row.strips += [None] * (columns - len(part))
        rows.append(row)
    strips = any(row.strip_height for row in rows)
    place(figure, rows, entries, "Layer" if strips else "", "Weights kept (%)", "Weights" if strips else "")
    return figure


def _draw(ax: Axes, kept: Kept, material: Material, low: float) -> None:
    x = np.arange(len(kept.names))
    ax.set_yscale("log")
    for i in x[1::2]:
        ax.axvspan(i - 0.5, i + 0.5, color="#F0F0F0", linewidth=0, zorder=0.1)
    ax.grid(visible=False)
    ax.axhline(100 * (1 - kept.sparsity), color=INK, linewidth=0.7, zorder=1)
    for method, values in kept.kept.items():
        look, mean = material.look(method), 100 * values.mean(axis=0)
        # A logarithmic axis has no zero; such layers get a cross at the lower edge.
        drawn = np.where(mean > 0, mean, np.nan)
        if method not in kept.coloured:
            ax.plot(x, drawn, color=MUTED, linewidth=0.7, zorder=1.2)
            continue
        ax.plot(x, drawn, color=look.color, linestyle=look.line, zorder=3, **marker_of(look, 3.4))
        if len(values) > 1:
            spread = 100 * values.std(axis=0, ddof=1)
            # Lower bars end inside the axis, because the logarithm of a negative end does not exist.
            lower = np.minimum(spread, mean - 100 * low / 1.2)
            both = np.array([np.maximum(lower, 0), spread])
            ax.errorbar(x, drawn, both, color=look.color, linestyle="", linewidth=0.6, zorder=2.5)
        for i in x[mean == 0]:
            ax.plot(i, 110 * low, "x", color=look.color, markersize=3.4, markeredgewidth=0.9, zorder=4)
    ticks = [t for t in (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100) if 100 * low <= t <= 100]
    ax.set_ylim(100 * low, 130)
    ax.yaxis.set_major_locator(FixedLocator(ticks))
    ax.yaxis.set_major_formatter(FixedFormatter([f"{t:g}" for t in ticks]))
    ax.yaxis.set_minor_locator(NullLocator())
    ax.set_xlim(-0.5, len(x) - 0.5)


def _sizes(ax: Axes, kept: Kept) -> None:
    """Draw the numbers of weights of the layers as bars."""
    ax.set_yscale("log")
    ax.grid(visible=False)
    low, high = min(kept.sizes), max(kept.sizes)
    ax.bar(range(len(kept.sizes)), kept.sizes, color="#BBBBBB", width=0.8, linewidth=0)
    ax.set_xlim(-0.5, len(kept.sizes) - 0.5)
    ax.set_ylim(low / 3, high * 1.5)
    ticks = [low, high] if high / low > 5 else [high]
    ax.yaxis.set_major_locator(FixedLocator(ticks))
    ax.yaxis.set_major_formatter(FixedFormatter([_short(tick) for tick in ticks]))
    ax.yaxis.set_minor_locator(NullLocator())


def _short(count: int) -> str:
    """Return a number of weights in three characters or so, such as 2.4M."""
    for unit, size in (("M", 1e6), ("k", 1e3)):
        if count >= size:
            return f"{count / size:.2g}{unit}" if count < 100 * size else f"{count / size:.0f}{unit}"
    return str(count)


def _names(ax: Axes, kept: Kept, inches: float, numbered: bool) -> None:
    """Label the layers: names and sizes where they fit, else numbers."""
    names = [name.removesuffix(".weight").replace("layers.", "") for name in kept.names]
    texts = [f"{name}\n{_short(size)}" for name, size in zip(names, kept.sizes, strict=True)]
    x: Any = list(range(len(names)))
    if numbered or widest(texts, SMALL) + 0.04 > inches / len(names):
        step = next(s for s in (1, 2, 5, 10, 20, 50, 1000) if len(names) / s * 0.17 < inches)
        x = [i for i in range(len(names)) if (i + 1) % step == 0 or i == 0]
        texts = [str(i + 1) if numbered else f"{i + 1}\n{_short(kept.sizes[i])}" for i in x]
    set_ticks(ax.xaxis, x, texts)
    ax.set_gid(OWN_AXIS)
