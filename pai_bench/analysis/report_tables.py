"""All tables and texts of a report, by file name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pandas as pd

from pai_bench.analysis import tables
from pai_bench.analysis.accuracy_tables import panel_grids
from pai_bench.analysis.bibliography import references_bib
from pai_bench.analysis.collect import Collection
from pai_bench.analysis.columns import PANEL
from pai_bench.analysis.comparison import BASELINE, compare, pairs, pool
from pai_bench.analysis.difference_tables import noted
from pai_bench.analysis.emphasis import emphasise
from pai_bench.analysis.grid import Grid
from pai_bench.analysis.inference import MARGIN
from pai_bench.analysis.labels import Names
from pai_bench.analysis.latex import Page
from pai_bench.analysis.methods_text import Numbers, cited, methods_latex, methods_markdown, methods_text
from pai_bench.analysis.numbers import numbers_tex
from pai_bench.analysis.predictors import pool_predictions, pooled_grid, predict, predictors_grids
from pai_bench.analysis.series import by_series, sources_with_epoch
from pai_bench.analysis.statistics import compare_controls, split_control
from pai_bench.cells import DENSE
from pai_bench.core.garbage import uncollected


@dataclass(frozen=True)
class Choices:
    """Choices of the user for the tables of a report."""

    baseline: str = BASELINE
    margin: float = MARGIN
    """Margin of equivalence, as a fraction."""
    page: Page = field(default_factory=Page)


@dataclass(frozen=True)
class ReportTables:
    """Tables and texts of a report."""

    files: dict[str, str]
    """Contents by file name."""
    parts: dict[str, str]
    """Markdown of the sections of report.md by heading."""
    grids: tuple[Grid, ...]
    """The tables of accuracies, one per panel."""
    compared: pd.DataFrame
    pooled: pd.DataFrame
    controls: pd.DataFrame
    remarks: tuple[str, ...]
    predictors: tuple[Grid, ...] = ()
    """The tables of correlations with the accuracy lost, one per panel."""
    speed: tuple[Grid, ...] = ()
    """The tables of measured speed, one per setting of the measurement."""


OPTIONAL = ("controls", "comparison", "pooled", "table_across", "predictors", "predictors_pooled", "speed")
"""Stems of files that only some reports have."""


@uncollected()
def report_tables(
    collection: Collection, summary: pd.DataFrame, choices: Choices | None = None, more: Sequence[str] = ()
) -> ReportTables:
    """Write all tables and texts of a report; `more` are further sentences for the methods paragraph."""
    choices = choices or Choices()
    runs = by_series(collection.rows)
    found = pairs(runs, sources_with_epoch(collection.rows), choices.baseline)
    differences = compare(found), pool(found), compare_controls(collection, choices.margin)
    compared, pooled, controls = (noted(table, summary) for table in differences)
    points = list(summary.itertuples())
    emphasis = emphasise(summary, runs, points)
    grids = tuple(panel_grids(summary, emphasis, points))
    markdown, latex = tables.both(grids, choices.page, "accuracy")
    emphasised = bool(emphasis.bold)
    numbers = Numbers(collection.rows, summary, compared, pooled, controls, choices.margin, emphasised, tuple(more))
    text = methods_text(numbers)
    files = {
        "table.md": markdown,
        "table.tex": latex,
        "table.csv": tables.csv(summary).to_csv(index=False),
    }
    parts = {"Accuracy": markdown}
    methods = summary[summary["method"] != DENSE]
    if len(methods[PANEL].drop_duplicates()) > 1:
        across = tables.across(summary, emphasis, choices.page, points)
        files["table_across.md"], files["table_across.tex"] = across
    if len(compared):
        files["comparison.md"], files["comparison.tex"] = tables.comparison(
            compared, pooled, Names.of(summary), choices.page
        )
        files["comparison.csv"] = compared.to_csv(index=False)
        parts["Comparison"] = files["comparison.md"]
    if len(pooled):
        files["pooled.csv"] = pooled.to_csv(index=False)
    if len(controls):
        files["controls.md"], files["controls.tex"] = tables.controls(controls, choices.margin, choices.page)
        parts["Controls"] = files["controls.md"]
        files["controls.csv"] = controls.to_csv(index=False)
    predicted, pooled_predictions = predict(collection.rows), pool_predictions(collection.rows)
    predicting = tuple(predictors_grids(predicted, Names.of(summary)))
    if len(pooled_predictions):
        predicting += (pooled_grid(pooled_predictions),)
        files["predictors_pooled.csv"] = pooled_predictions.to_csv(index=False)
    if predicting:
        files["predictors.md"], files["predictors.tex"] = tables.predictors(predicting, choices.page)
        files["predictors.csv"] = predicted.to_csv(index=False)
        parts["What predicts the accuracy lost"] = files["predictors.md"]
    files["numbers.tex"] = numbers_tex(points, compared, pooled)
    files["references.bib"] = references_bib(collection.rows, cited(text))
    files["methods.md"], files["methods.tex"] = methods_markdown(text), methods_latex(text)
    parts["Statistical methods"] = files["methods.md"]
    remarks = _remarks(collection, summary, compared, choices)
    return ReportTables(files, parts, grids, compared, pooled, controls, remarks, predicting)


def _remarks(
    collection: Collection, summary: pd.DataFrame, compared: pd.DataFrame, choices: Choices
) -> tuple[str, ...]:
    """Return the caveats that a reader should know before citing the tables."""
    said = []
    methods = summary[(summary["method"] != DENSE) & (summary["n"] > 0)]
    if len(methods) and methods["n"].nunique() > 1:
        said.append(f"numbers of seeds differ between points: {methods['n'].min()} to {methods['n'].max()}")
    flagged = int(collection.rows["at_chance"].sum())
    if flagged:
        runs = "runs without a recorded failure are" if flagged > 1 else "run without a recorded failure is"
        said.append(f"{flagged} {runs} at chance: marked in tables")
    noted = int(((collection.rows["note"] != "") | (collection.rows["suspect"] != "")).sum())
    if noted:
        said.append(f"{noted} {'runs have' if noted > 1 else 'run has'} a note: marked in tables, text below them")
    others = {name for name in methods["method"] if split_control(name)[1] is None} - {choices.baseline}
    if others and not len(compared):
        said.append(f"no comparison: {choices.baseline} has no run to pair with; choose a method with --baseline")
    return tuple(said)
