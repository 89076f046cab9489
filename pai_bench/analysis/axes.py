"""Axes of a panel: sparsity on a log-density axis, and an accuracy range in which points remain distinguishable."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.ticker import FixedFormatter, FixedLocator, MaxNLocator, NullLocator

from pai_bench.analysis.tables import per_cent
from pai_bench.cells import DENSE

Edge = tuple[float, str, str, bool]
"""A mark below the axis: x position, marker, colour, and a flag for collapsed or diverged runs."""

_BROKEN = 3
"""Factor by which collapsed runs may lengthen the accuracy axis before they are moved below it."""


def view(panel: pd.DataFrame) -> tuple[float, float]:
    """Return the lowest and highest accuracy in per cent that the axis must show.

    Collapsed runs and points marked `aside` may lie below the axis when they would compress all others too much.
    """
    held = panel[panel["n"] > 0]
    if not len(held):
        return 0.0, 100.0
    mean, std = 100 * held["mean"], 100 * held["std"].fillna(0)
    low, high = (mean - std).clip(lower=0), (mean + std).clip(upper=100)
    sound = ~held["aside"] & (held["collapsed"] + held["diverged"] == 0)
    if sound.any():
        bottom, top = low[sound].min(), max(high[sound].max(), mean.max())
        if top - mean.min() > _BROKEN * max(top - bottom, 2):
            return bottom, top
    return low.min(), high.max()


def show(ax: Axes, low: float, high: float, edge: Sequence[Edge]) -> None:
    """Set the accuracy axis to low..high, with a grey strip below it for the marks in `edge`."""
    margin = 0.05 * (high - low) or 1.0
    # A deviation band may leave [0, 100]; the axis does not follow it.
    bottom, top = max(low - margin, -1), min(high + margin, 101)
    most = max(Counter(x for x, *_ in edge).values(), default=0)
    strip = min(0.03 + 0.05 * most, 0.4) if most else 0.0
    ticks = MaxNLocator(round(7 * (1 - strip)), steps=[1, 2, 5, 10]).tick_values(bottom, top)
    ax.set_ylim(top - (top - bottom) / (1 - strip), top)
    ax.set_yticks([tick for tick in ticks if max(bottom, 0) <= tick <= min(top, 100)])
    if not edge:
        return
    frame = Rectangle((0, strip), 1, 1 - strip, transform=ax.transAxes)
    for artist in [*ax.lines, *ax.collections, *ax.patches]:
        if artist.get_clip_on():
            artist.set_clip_path(frame)
    ax.add_patch(Rectangle((0, 0), 1, strip, transform=ax.transAxes, color="#EEEEEE", linewidth=0, zorder=0.5))
    seen: Counter[float] = Counter()
    for x, marker, color, bad in edge:
        height = strip * (seen[x] + 0.5) / most
        seen[x] += 1
        look: dict[str, Any] = {"ls": "", "transform": ax.get_xaxis_transform(), "clip_on": False}
        ax.plot(x, height, marker=marker, color=color, ms=4.5, zorder=5, **look)
        if bad:
            ax.plot(x, height, marker="x", color="black", ms=6, mew=0.9, zorder=6, **look)


def label_sparsities(ax: Axes, panel: pd.DataFrame) -> None:
    """Put ticks at the measured sparsities, as many as fit, with sparsity increasing to the right."""
    sparsities = sorted(set(panel.loc[panel["method"] != DENSE, "sparsity"]))
    if not sparsities:
        sparsities = [0.0]
    left, right = math.log(1 - sparsities[0]), math.log(1 - sparsities[-1])
    span = (left - right) or 1.0
    shown: dict[float, str] = {}
    # The two ends first, then the shortest labels; a digit takes about 2.7 % of a panel's width.
    texts = {sparsity: per_cent(sparsity) for sparsity in sparsities}
    for sparsity in sorted(sparsities, key=lambda s: (s not in (sparsities[0], sparsities[-1]), len(texts[s]), -s)):
        room = [
            abs(math.log((1 - sparsity) / (1 - other))) / span > 0.027 * (len(texts[sparsity]) + len(text)) / 2 + 0.03
            for other, text in shown.items()
        ]
        if all(room):
            shown[sparsity] = texts[sparsity]
    ax.xaxis.set_major_locator(FixedLocator([1 - s for s in shown]))
    ax.xaxis.set_major_formatter(FixedFormatter(list(shown.values())))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xlim(math.exp(left + 0.05 * span), math.exp(right - 0.05 * span))
