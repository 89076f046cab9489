"""Tables of a report: Markdown for reading, LaTeX for papers, CSV with all numbers."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from pai_bench.analysis.accuracy_tables import Points, across_grid, panel_grids
from pai_bench.analysis.difference_tables import comparison_grid, controls_grids, pooled_grid
from pai_bench.analysis.emphasis import Emphasis
from pai_bench.analysis.grid import NONE, Grid
from pai_bench.analysis.inference import MARGIN
from pai_bench.analysis.labels import Names, measure, panel_title, per_cent, series_label
from pai_bench.analysis.latex import Page, to_latex
from pai_bench.analysis.markdown import to_markdown
from pai_bench.cells import canonical_sparsity, exact_sparsity

__all__ = [
    "NONE",
    "Page",
    "accuracy",
    "across",
    "both",
    "comparison",
    "controls",
    "csv",
    "latex",
    "markdown",
    "measure",
    "panel_title",
    "per_cent",
    "predictors",
    "series_label",
]

_PLAIN = Emphasis(frozenset(), frozenset())


def csv(summary: pd.DataFrame) -> pd.DataFrame:
    """Return all points with their numbers and density; accuracies are fractions."""
    table = summary.assign(seeds=[" ".join(map(str, seeds)) for seeds in summary["seeds"]])
    densities = {value: canonical_sparsity(float(1 - exact_sparsity(value))) for value in table["sparsity"].unique()}
    density = table["sparsity"].map(densities)
    table.insert(table.columns.get_loc("sparsity") + 1, "density", density)
    return table


def accuracy(summary: pd.DataFrame, emphasis: Emphasis = _PLAIN, page: Page | None = None) -> tuple[str, str]:
    r"""Format one table per panel as Markdown and as booktabs tables for \input.

    A table has one row per series and one column per sparsity; the dense network is in the caption.
    """
    return both(tuple(panel_grids(summary, emphasis)), page or Page(), "accuracy")


def both(grids: Sequence[Grid], page: Page, name: str) -> tuple[str, str]:
    """Write tables as Markdown and LaTeX; `name` is the stem of their labels."""
    return to_markdown(grids), to_latex(grids, page, name)


def markdown(summary: pd.DataFrame) -> str:
    """Return the Markdown of `accuracy` without emphasis."""
    return to_markdown(panel_grids(summary))


def latex(summary: pd.DataFrame) -> str:
    """Return the LaTeX of `accuracy` without emphasis."""
    return to_latex(panel_grids(summary), Page(), "accuracy")


def across(
    summary: pd.DataFrame, emphasis: Emphasis = _PLAIN, page: Page | None = None, points: Points | None = None
) -> tuple[str, str]:
    """Format one table of all panels, as Markdown and LaTeX."""
    grid = across_grid(summary, emphasis, points)
    return both([grid], page or Page(), "across")


def comparison(compared: pd.DataFrame, pooled: pd.DataFrame, names: Names, page: Page | None = None) -> tuple[str, str]:
    """Format the comparison with the baseline, and its pooled part if there is one, as Markdown and LaTeX."""
    grids = [comparison_grid(compared, names)]
    grids += [pooled_grid(pooled, names)] if len(pooled) else []
    return both(grids, page or Page(), "comparison")


def controls(compared: pd.DataFrame, margin: float = MARGIN, page: Page | None = None) -> tuple[str, str]:
    """Format the differences between controls and methods, one row per control, as Markdown and LaTeX."""
    return both(tuple(controls_grids(compared, margin)), page or Page(), "controls")


def predictors(grids: Sequence[Grid], page: Page | None = None) -> tuple[str, str]:
    """Format the correlations of measures with the accuracy lost, as Markdown and LaTeX."""
    return both(grids, page or Page(), "predictors")
