"""Rank correlation of measures of masks and networks with the accuracy lost by pruning: what predicts the drop."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from pai_bench.analysis import inference
from pai_bench.analysis.columns import OURS, PANEL
from pai_bench.analysis.grid import EMPTY, Cell, Column, Grid, Row
from pai_bench.analysis.labels import Names, panel_title, per_cent
from pai_bench.analysis.statistics import split_control
from pai_bench.cells import DENSE

MIN_METHODS = 5
"""Smallest number of methods for a rank correlation."""

MEASURES = {
    "effective_sparsity": "Effective sparsity",
    "untrained_accuracy": "Accuracy before training",
    "disconnected_units": "Disconnected units",
    "one_sided_units": "One-sided units",
    "disconnected_nodes": "Disconnected nodes",
    "sink_nodes": "Sink nodes",
    "source_nodes": "Source nodes",
    "cut_edges": "Cut edges",
    "removable_channels": "Removable channels",
    "removable_channels_folded": "Removable channels, constants folded",
    "flops_sparse": "FLOPs of the masked network",
    "score_seconds": "Scoring time",
    "score_peak_bytes": "Peak memory of scoring",
    "score_forward_passes": "Forward passes of scoring",
    "score_backward_passes": "Backward passes of scoring",
    "score_images": "Images seen by scoring",
    "score_labels": "Labels seen by scoring",
}
"""Labels of the measures by column of the runs, in the order of the table."""

COLUMNS = [*PANEL, "sparsity", "measure", "n", "rho"]
"""Columns of `predict`."""


def predict(rows: pd.DataFrame) -> pd.DataFrame:
    """Return Spearman's rank correlation of measures with the accuracy lost: one row per panel, sparsity and measure.

    The units are the methods of a panel at one sparsity (n of them), without controls: the mean of the measure and the
    mean accuracy over the seeds with both. The dense accuracy of a panel is one number, so that the ranks of the lost
    accuracy are the reversed ranks of the accuracy. rho > 0: methods with a greater measure lose more. Only runs of the
    results folder have measures. Measures that are equal for all methods have no rho, and are left out; so are
    sparsities with fewer than MIN_METHODS methods.

    rows: one row per run, with the columns that `columns` describes.
    """
    pruned = np.array([method != DENSE and split_control(method)[1] is None for method in rows["method"]], dtype=bool)
    runs = rows[pruned & (rows["source"] == OURS) & rows["counted"].notna()]
    present = [measure for measure in MEASURES if measure in runs]
    values = runs[present].apply(pd.to_numeric, errors="coerce")
    accuracies = values.notna().mul(runs["counted"], axis=0).where(values.notna())
    keys = [runs[column] for column in (*PANEL, "sparsity", "method")]
    means, counted = (table.astype(float).groupby(keys, sort=True).mean() for table in (values, accuracies))
    levels = [*PANEL, "sparsity"]
    found: list[dict[str, Any]] = []
    for key, places in means.groupby(level=levels, sort=True).indices.items():
        for measure in present:
            measured = means[measure].to_numpy()[places]
            known = ~np.isnan(measured)
            if known.sum() < MIN_METHODS:
                continue
            rho = inference.spearman(measured[known], -counted[measure].to_numpy()[places][known])
            if rho == rho:
                found.append(dict(zip(COLUMNS, (*key, measure, int(known.sum()), rho), strict=True)))
    return pd.DataFrame(found, columns=COLUMNS)


def predictors_grids(table: pd.DataFrame, names: Names) -> Iterator[Grid]:
    """Yield the table of `predict`, one per panel: measures in rows, sparsities in columns."""
    for key, panel in table.groupby(PANEL, sort=False):
        columns = {sparsity: place for place, sparsity in enumerate(sorted(panel["sparsity"].unique()))}
        counts = set(panel["n"])
        rows = []
        for measure in [name for name in MEASURES if name in set(panel["measure"])]:
            cells = [EMPTY] * len(columns)
            for point in panel[panel["measure"] == measure].itertuples():
                cells[columns[point.sparsity]] = Cell(
                    _signed(point.rho), extra="" if len(counts) == 1 else str(point.n)
                )
            rows.append(Row(MEASURES[measure], tuple(cells)))
        number = f"n = {min(counts)}" if len(counts) == 1 else "n in parentheses"
        caption = (
            f"Spearman's rank correlation of measures with the accuracy lost by pruning, over methods ({number}; means"
            " over seeds, without controls) at one sparsity. Positive: methods with a greater measure lose more. The"
            " methods are no random sample, so that there is neither an interval nor a test; a measure that does not"
            " differ between methods has no entry."
        )
        heads = tuple(Column((), per_cent(sparsity)) for sparsity in columns)
        yield Grid(panel_title(*names.panel(*key)), caption, "Sparsity (%)", heads, tuple(rows))


def _signed(rho: float) -> str:
    return f"{round(rho, 2) + 0.0:+.2f}"
