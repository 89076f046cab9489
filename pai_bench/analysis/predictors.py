"""Rank correlation of measures of masks and networks with the accuracy lost by pruning: what predicts the drop."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from pai_bench.analysis import inference
from pai_bench.analysis.columns import OURS, PANEL
from pai_bench.analysis.grid import EMPTY, Cell, Column, Grid, Row
from pai_bench.analysis.inference.intervals import Array
from pai_bench.analysis.information import is_small_dense
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

POOLED = ["measure", "n", "groups", "rho"]
"""Columns of `pool_predictions`."""


def predict(rows: pd.DataFrame) -> pd.DataFrame:
    """Return Spearman's rank correlation of measures with the accuracy lost: one row per panel, sparsity and measure.

    The units are the methods of a panel at one sparsity (n of them), without controls: the mean of the measure, and the
    mean of the dense accuracy minus the pruned one, over the seeds with both networks. In a panel without any dense run
    the accuracy takes the place of the difference, with the same ranks. rho > 0: methods with a greater measure lose
    more. Only runs of the results folder have measures. Measures that are equal for all methods have no rho, and are
    left out; so are sparsities with fewer than MIN_METHODS methods.

    rows: one row per run, with the columns that `columns` describes.
    """
    found = [
        dict(zip(COLUMNS, (*key, measure, len(lost), inference.spearman(measured, lost)), strict=True))
        for key, measure, measured, lost in _samples(rows)
    ]
    return pd.DataFrame(found, columns=COLUMNS)


def pool_predictions(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the correlations over all panels and sparsities, with the columns measure, n (points), groups and rho.

    A group is a panel and a sparsity. Ranks are taken in each group, minus their mean and over the number of its
    methods, so that panel and sparsity explain nothing. Only measures of two groups or more.
    """
    ranks: dict[str, list[Array]] = {}
    for _, measure, measured, lost in _samples(rows):
        # Divided by the number of methods, so that groups of different sizes have ranks on one scale.
        centred = [inference.centred_ranks(values) / len(lost) for values in (measured, lost)]
        ranks.setdefault(measure, []).append(np.stack(centred))
    lines = []
    for measure in (name for name in MEASURES if len(ranks.get(name, ())) > 1):
        one, other = np.concatenate(ranks[measure], axis=1)
        rho = float(one @ other / np.sqrt((one @ one) * (other @ other)))
        lines.append((measure, len(one), len(ranks[measure]), rho))
    return pd.DataFrame(lines, columns=POOLED)


def _samples(rows: pd.DataFrame) -> Iterator[tuple[tuple[Any, ...], str, Array, Array]]:
    """Yield panel and sparsity, measure, its values and the accuracy lost by method, where both have an order."""
    ours = rows[(rows["source"] == OURS) & rows["counted"].notna()]
    pruned = [m != DENSE and not is_small_dense(m) and split_control(m)[1] is None for m in ours["method"]]
    runs = ours[np.array(pruned, dtype=bool)]
    if not len(runs):
        return
    present = [measure for measure in MEASURES if measure in runs]
    values = runs[present].apply(pd.to_numeric, errors="coerce")
    known = _lost(rows, runs)
    values = values.where(known.notna())
    losses = values.notna().mul(known, axis=0).where(values.notna())
    keys = [runs[column] for column in (*PANEL, "sparsity", "method")]
    means, lost = (table.astype(float).groupby(keys, sort=True).mean() for table in (values, losses))
    for key, places in means.groupby(level=[*PANEL, "sparsity"], sort=True).indices.items():
        for measure in present:
            measured, against = means[measure].to_numpy()[places], lost[measure].to_numpy()[places]
            measured, against = measured[~np.isnan(measured)], against[~np.isnan(measured)]
            if len(measured) >= MIN_METHODS and np.ptp(measured) > 0 and np.ptp(against) > 0:
                yield key, measure, measured, against


def _lost(rows: pd.DataFrame, runs: pd.DataFrame) -> pd.Series:
    """Return the accuracy that each run loses against the dense network of its seed; NaN without one.

    In panels without dense networks: minus the accuracy.
    """
    dense = rows[(rows["method"] == DENSE) & (rows["source"] == OURS) & rows["counted"].notna()]
    keys = [*PANEL, "seed"]
    reference = dense.groupby(keys)["counted"].mean()
    found = reference.reindex(pd.MultiIndex.from_frame(runs[keys])).to_numpy(dtype=float)
    panels = set(dense[PANEL].itertuples(index=False, name=None))
    without = np.array([panel not in panels for panel in runs[PANEL].itertuples(index=False, name=None)], dtype=bool)
    return pd.Series(np.where(without, 0.0, found), index=runs.index) - runs["counted"]


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
            " methods are not a random sample, so that there is neither an interval nor a test; a measure that does not"
            " differ between methods has no entry."
        )
        heads = tuple(Column((), per_cent(sparsity)) for sparsity in columns)
        yield Grid(panel_title(*names.panel(*key)), caption, "Sparsity (%)", heads, tuple(rows))


def pooled_grid(pooled: pd.DataFrame) -> Grid:
    """Return the table of `pool_predictions`."""
    rows = [
        Row(MEASURES[str(line.measure)], (Cell(_signed(float(line.rho))), Cell(str(line.n)), Cell(str(line.groups))))
        for line in pooled.itertuples()
    ]
    caption = (
        "Rank correlation of measures with the accuracy lost over all methods of the tables above (n points). Ranks are"
        " taken in each group, that is at one data set, network and sparsity, so that these explain none of it. A"
        " correlation is not a cause: methods that differ in one measure differ in many things."
    )
    heads = tuple(Column((), head) for head in ("Correlation", "n", "Groups"))
    return Grid("All data sets, networks and sparsities", caption, "", heads, tuple(rows))


def _signed(rho: float) -> str:
    return f"{round(rho, 2) + 0.0:+.2f}"
