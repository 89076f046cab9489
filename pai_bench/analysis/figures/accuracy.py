"""Figures of accuracy against density, and of its difference to the dense network."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd

from pai_bench.analysis.figures import captions, curves, grid
from pai_bench.analysis.figures.curves import Panel
from pai_bench.analysis.figures.drawing import Drawing
from pai_bench.analysis.figures.material import Material
from pai_bench.analysis.tables import measure

LOWEST = -10.0
"""Lowest difference to dense that the zoomed figure shows, in points."""
LAST = 10
"""Number of densities in the zoomed figure, from the highest."""


def accuracy(material: Material) -> Drawing | str:
    """Draw accuracy against density, one panel per data set, model and recipe."""
    found, arrangement = grid.by_setting(material, lambda setting: curves.accuracy_panel(material, setting))
    label = measure(material.summary["recipe"])
    text = captions.sentences(
        f"{label.removesuffix(' (%)')} against the fraction of weights that remain",
        *captions.curves(material, found.panels),
        *captions.models(arrangement),
    )
    figures = grid.draw(material, found, label, _accuracy_range, text)
    return Drawing("accuracy", "Accuracy against density", tuple(figures), text, curves.table(found.panels))


def _accuracy_range(panels: Sequence[Panel]) -> tuple[float, float]:
    return grid.padded(*curves.accuracy_range(panels), floor=-1.5, ceiling=101.5)


def difference_to_dense(material: Material) -> Drawing | str:
    """Draw accuracy minus the accuracy of the dense network at the highest densities, all panels on one axis."""
    found, arrangement = grid.by_setting(material, lambda setting: curves.difference_panel(material, setting, LAST))
    if not found.panels:
        return "there is no dense result"
    values = [p.mean for panel in found.panels for curve in panel.curves for p in curve.points if p.mean == p.mean]
    if all(p.mean != p.mean or p.mean < LOWEST for panel in found.panels for c in panel.curves if not c.is_dense
           for p in c.points):  # fmt: skip
        return f"no point lies within {-LOWEST:g} points of the dense network"
    low, high = max(min(values), LOWEST), max(*values, 0.0)
    limits = grid.padded(low, high)
    label = measure(material.summary["recipe"]).removesuffix(" (%)")
    text = captions.sentences(
        f"{label} minus the accuracy of the dense network, paired by seed, at up to the {LAST} highest densities of "
        "each panel; all panels have the same axis",
        *captions.curves(material, found.panels, of="difference"),
        "Lines that leave the axis lead to points in the figure of accuracy" if min(values) < LOWEST else "",
        *captions.models(arrangement),
    )
    figures = grid.draw(material, found, f"{label} \N{MINUS SIGN} dense (points)", lambda _: limits, text)
    return Drawing("difference-to-dense", "Difference to dense", tuple(figures), text, _finite(found.panels))


def _finite(panels: Sequence[Panel]) -> pd.DataFrame:
    table = curves.table(panels)
    return table[table["mean"].map(math.isfinite)].reset_index(drop=True)
