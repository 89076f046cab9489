"""Choice of one sparsity per setting, and the results at it, for figures that compare methods at one sparsity."""

from __future__ import annotations

import pandas as pd

from pai_bench.analysis.columns import OURS
from pai_bench.analysis.figures.material import Material, Setting
from pai_bench.cells import DENSE

TARGET = 0.95
"""Sparsity that is preferred where methods have results at several."""


def sparsity(rows: pd.DataFrame) -> float | None:
    """Return the sparsity with results of the most methods, of several the nearest to TARGET in density."""
    pruned = rows[(rows["method"] != DENSE) & rows["counted"].notna()]
    if pruned.empty:
        return None
    counts = pruned.groupby("sparsity")["method"].nunique()
    best = counts[counts == counts.max()].index
    return float(min(best, key=lambda value: (abs((1 - value) / (1 - TARGET) - 1), value)))


def runs(material: Material, setting: Setting, ours: bool = True) -> tuple[float, pd.DataFrame] | None:
    """Return that sparsity and the runs of all methods at it; with `ours`, runs of the results folder only."""
    rows = material.runs_of(setting)
    rows = rows[rows["method"].isin(material.methods)]
    if ours:
        rows = rows[rows["source"] == OURS]
    chosen = sparsity(rows)
    return None if chosen is None else (chosen, rows[rows["sparsity"] == chosen])


def title(material: Material, setting: Setting) -> str:
    """Return the names of a setting, with the recipe where there are several."""
    from pai_bench.analysis.display_names import dataset_name, model_name, recipe_names

    recipe = recipe_names(other.recipe for other in material.settings)[setting.recipe]
    parts = [dataset_name(setting.dataset), model_name(setting.model), recipe]
    return " · ".join(part for part in parts if part)
