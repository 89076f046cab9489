"""Axes: round ticks on a log-density axis, and accuracy ranges."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import FixedFormatter, FixedLocator, MaxNLocator, NullLocator

from pai_bench.analysis.figures.text import shown, width
from pai_bench.analysis.figures.venues import SMALL

AXIS_LABELS = {
    "density": "Weights remaining (%)",
    "sparsity": "Weights removed (%), log density",
    "compression": "Compression ratio",
}
GAP = 0.05
"""Smallest distance of two tick labels in inches."""
_REGULAR = 3
"""Smallest number of ticks at equal steps; fewer are completed by other round values."""
_MARGIN = 0.05
"""Space before the first and after the last point, as a part of the distance between them."""


def _round_values(x: str, low: float, high: float, steps: Sequence[int] = (1, 5, 2)) -> list[tuple[float, str]]:
    """Return ticks (density, label) at `steps` times powers of ten from `low` to `high`, the roundest first."""
    found: dict[float, str] = {}
    for step in steps:
        for decade in range(9):
            value = float(f"{step}e{decade if x == 'compression' else -decade}")
            density = 1 / value if x == "compression" else value
            # A thousandth of tolerance keeps round values at the ends in spite of rounding.
            if low / 1.001 <= density <= min(high * 1.001, 1):
                shown = {"density": 100 * value, "sparsity": 100 * (1 - value), "compression": value}[x]
                # Ten digits hide rounding errors such as 99.89999999999999.
                found.setdefault(density, _plain(float(f"{shown:.10g}")))
    return list(found.items())


def _fits(ticks: Sequence[tuple[float, str]], span: float, inches: float) -> bool:
    """Return True if neighbouring labels do not touch on an axis of `inches` for `span` (in log density)."""
    places = [(math.log(density) / span * inches * (1 - 2 * _MARGIN), width(text, SMALL)) for density, text in ticks]
    places.sort()
    return all(b - a > (one + two) / 2 + GAP for (a, one), (b, two) in pairwise(places))


def density_ticks(densities: Sequence[float], x: str, inches: float) -> list[tuple[float, str]]:
    """Return ticks (density, label) at round values; where fewer than two fit the range, at measured densities.

    Ticks are at 1, 2 and 5 times the powers of ten, at 1 and 5 times, or at the powers of ten; where fewer than three
    of a kind fit, at all round values that do.

    densities: measured densities (fractions); inches: length of the axis.
    """
    low, high = min(densities), max(densities)
    span = math.log(high / low) or 1.0
    ordered = sorted(set(densities))
    measured = [(density, label(density, x)) for density in dict.fromkeys([ordered[0], ordered[-1], *ordered])]
    for steps in ((1, 5, 2), (1, 5), (1,)):  # regular ticks, if they are enough
        regular = _round_values(x, low, high, steps)
        if len(regular) >= _REGULAR and _fits(regular, span, inches):
            return regular
    candidates: list[list[tuple[float, str]]] = []
    for ticks in (_round_values(x, low, high), measured):
        chosen: list[tuple[float, str]] = []
        for tick in ticks:
            if _fits([*chosen, tick], span, inches):
                chosen.append(tick)
        if len(chosen) >= min(2, len(ordered)):
            return chosen
        candidates.append(chosen)
    return max(candidates, key=len)


def label(density: float, x: str, digits: int = 3) -> str:
    """Return the text of a measured density as it appears on the axis `x`, with that many significant digits."""
    value = {"density": 100 * density, "sparsity": 100 * (1 - density), "compression": 1 / density}[x]
    if x == "sparsity":
        # Keep two digits of the density, so that 99.99 does not become 100.
        places = max(0, 1 - math.floor(math.log10(100 * density)))
        text = f"{value:.{places}f}"
        return text.rstrip("0").rstrip(".") if "." in text else text
    return _plain(float(f"{value:.{digits}g}"))


def _plain(value: float) -> str:
    """Return a number without an exponent, and without zeros at its end."""
    return str(np.format_float_positional(value, trim="-"))


def set_density_axis(ax: Axes, densities: Sequence[float], x: str, inches: float, margin: float = _MARGIN) -> None:
    """Prepare the horizontal axis: log density, decreasing to the right, for `densities` (fractions).

    margin: space before the first and after the last point, as a part of the distance between them.
    """
    values = sorted(set(densities)) or [1.0]
    margin = max(margin, _MARGIN)
    ax.set_xscale("log")
    ticks = density_ticks(values, x, inches * (1 + 2 * _MARGIN) / (1 + 2 * margin))
    set_ticks(ax.xaxis, [density for density, _ in ticks], [text for _, text in ticks])
    room = (math.log(values[-1] / values[0]) or 1.0) * margin
    ax.set_xlim(values[-1] * math.exp(room), values[0] * math.exp(-room))


def value_ticks(low: float, high: float, inches: float) -> list[float]:
    """Return round ticks from `low` to `high` on a vertical axis of `inches`."""
    most = max(2, min(7, round(inches / 0.21)))
    ticks = MaxNLocator(most, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
    # Ticks at the ends of the range may lie outside it by rounding.
    margin = 1e-9 * (high - low)
    return [float(tick) for tick in ticks if low - margin <= tick <= high + margin]


def numbers(values: Sequence[float]) -> list[str]:
    """Return the labels of ticks, with as many decimals as the finest needs and a true minus sign."""
    digits = next((d for d in range(6) if np.allclose(np.round(values, d), values, rtol=0, atol=1e-9)), 6)
    return [f"{value + 0.0:.{digits}f}".replace("-", "\N{MINUS SIGN}") for value in values]


def set_ticks(axis: Axis, places: Sequence[float], texts: Sequence[str]) -> None:
    """Set the ticks of an axis and their labels."""
    axis.set_major_locator(FixedLocator(list(places)))
    axis.set_major_formatter(FixedFormatter([shown(text) for text in texts]))
    # Logarithmic axes have minor ticks with labels by default.
    axis.set_minor_locator(NullLocator())


def set_value_axis(
    ax: Axes, low: float, high: float, inches: float, ticks: Callable[[float], bool] = lambda _: True
) -> list[str]:
    """Set the vertical range and its ticks; return their labels. `ticks` selects those that are shown."""
    ax.set_ylim(low, high)
    places = [tick for tick in value_ticks(low, high, inches) if ticks(tick)]
    texts = numbers(places)
    set_ticks(ax.yaxis, places, texts)
    return texts
