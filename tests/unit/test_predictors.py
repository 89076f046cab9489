"""Tests of the table of predictors of the accuracy lost by pruning."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pai_bench.analysis.collect import collect
from pai_bench.analysis.labels import Names
from pai_bench.analysis.predictors import (
    MIN_METHODS,
    pool_predictions,
    pooled_grid,
    predict,
    predictors_grids,
)
from pai_bench.analysis.report_tables import report_tables
from pai_bench.analysis.statistics import summarise
from tests.unit.test_analysis import put

METHODS = ("random", "magnitude", "snip", "grasp", "synflow", "erk")
ACCURACIES = (0.50, 0.70, 0.80, 0.60, 0.90, 0.85)


def runs() -> pd.DataFrame:
    """Six methods with two seeds at two sparsities; the measures of the seeds differ, and their means have an order."""
    lines = [
        {"source": "", "method": method, "dataset": "digits", "model": "conv8", "recipe": "quick", "sparsity": sparsity,
         "seed": seed, "counted": accuracy + (seed - 0.5) / 100, "effective_sparsity": 1 - accuracy + seed,
         "score_seconds": place + 0.1 * seed, "flops_sparse": 7.0}
        for sparsity in (0.9, 0.98)
        for place, (method, accuracy) in enumerate(zip(METHODS, ACCURACIES, strict=True))
        for seed in (0, 1)
    ]  # fmt: skip
    return pd.DataFrame(lines)


def correlations(rows: pd.DataFrame) -> dict[tuple[float, str], tuple[int, float]]:
    return {(line.sparsity, line.measure): (line.n, line.rho) for line in predict(rows).itertuples()}


@pytest.mark.slow
def test_each_measure_has_a_rank_correlation_over_the_means_of_methods() -> None:
    found = correlations(runs())
    # Effective sparsity has the order of the accuracy lost. Scoring times have the ranks 1 to 6, accuracies lost the
    # ranks 6 4 3 5 1 2: 1 - 6 * (25 + 4 + 0 + 1 + 16 + 16) / (6 * 35) = -0.771. FLOPs are equal.
    assert set(found) == {(s, name) for s in (0.9, 0.98) for name in ("effective_sparsity", "score_seconds")}
    assert found[0.9, "effective_sparsity"] == (6, pytest.approx(1))
    assert found[0.98, "score_seconds"] == (6, pytest.approx(1 - 6 * 62 / 210))
    shuffled = runs().sample(frac=1, random_state=3)
    assert correlations(shuffled) == {key: (n, pytest.approx(rho)) for key, (n, rho) in found.items()}


@pytest.mark.slow
def test_controls_dense_runs_tables_and_unknown_measures_do_not_count() -> None:
    rows = runs()
    others = [
        rows.assign(method="snip:control=shuffle", effective_sparsity=0.0),
        rows.assign(method="dense"),
        rows.assign(source="paper", effective_sparsity=0.0),
    ]
    assert correlations(pd.concat([rows, *others])) == correlations(rows)
    rows.loc[rows["method"] == "snip", "score_seconds"] = np.nan
    assert correlations(rows)[0.9, "score_seconds"][0] == 5
    assert predict(rows[rows["method"].isin(METHODS[: MIN_METHODS - 1])]).empty
    assert predict(rows.drop(columns=["effective_sparsity", "score_seconds"])).empty


@pytest.mark.slow
def test_the_table_has_measures_in_rows_and_states_n() -> None:
    table = predict(runs())
    (grid,) = predictors_grids(table, Names.of(runs()))
    assert [row.label for row in grid.rows] == ["Effective sparsity", "Scoring time"]
    assert [cell.number for cell in grid.rows[1].cells] == ["-0.77", "-0.77"] and "n = 6" in grid.caption
    table.loc[0, "n"] = 5
    (grid,) = predictors_grids(table, Names.of(runs()))
    assert grid.rows[0].cells[0].extra == "5" and "n in parentheses" in grid.caption


@pytest.mark.slow
def test_a_report_has_the_table_of_its_results(tmp_path: Path) -> None:
    for method, accuracy in zip(METHODS, ACCURACIES, strict=True):
        put(tmp_path, method, accuracy=accuracy, effective_sparsity=1 - accuracy / 10)
    collection = collect(tmp_path)
    written = report_tables(collection, summarise(collection))
    assert "Effective sparsity | +1.00" in " ".join(written.files["predictors.md"].split())
    assert "predictors.tex" in written.files and len(written.predictors) == 1
    assert written.files["predictors.csv"].splitlines()[1].endswith("effective_sparsity,6,1.0")


@pytest.mark.slow
def test_the_loss_is_that_against_the_dense_network_at_equal_seeds() -> None:
    rows = runs()
    dense = rows[rows["method"] == "erk"].assign(method="dense", sparsity=0.0, counted=0.95)
    rows = pd.concat([rows, dense.drop_duplicates("seed")])
    # A third seed without a dense network does not count, for whatever measure and accuracy.
    extra = rows[(rows["method"] == "snip") & (rows["seed"] == 0)].assign(seed=2, counted=0.0, effective_sparsity=99.0)
    assert correlations(pd.concat([rows, extra])) == correlations(rows)
    # Other dense accuracies of the seeds shift all methods alike.
    rows.loc[(rows["method"] == "dense") & (rows["seed"] == 1), "counted"] = 0.2
    assert correlations(rows) == {key: (n, pytest.approx(rho)) for key, (n, rho) in correlations(runs()).items()}
    # A method whose seeds were harder for the dense network too has lost less.
    one = rows[~((rows["method"] == "random") & (rows["seed"] == 0))]
    assert correlations(one)[0.9, "effective_sparsity"][1] < 1


@pytest.mark.slow
def test_pooled_correlations_take_ranks_in_each_group() -> None:
    rows = runs()
    other = rows.assign(dataset="mnist", counted=rows["counted"] / 2, score_seconds=100 - rows["score_seconds"])
    found = {
        line.measure: (line.n, line.groups, line.rho)
        for line in pool_predictions(pd.concat([rows, other])).itertuples()
    }
    # Four groups of six methods; the ranks of scoring times are reversed in two of them.
    assert found == {
        "effective_sparsity": (24, 4, pytest.approx(1)),
        "score_seconds": (24, 4, pytest.approx(0, abs=1e-9)),
    }
    assert found["effective_sparsity"][2] <= 1
    assert pool_predictions(rows[rows["sparsity"] == 0.9]).empty
    grid = pooled_grid(pool_predictions(rows))
    assert [cell.number for cell in grid.rows[1].cells] == ["-0.77", "12", "2"]
    assert "A correlation is not a cause" in grid.caption


@pytest.mark.slow
def test_a_report_has_the_pooled_table_of_several_sparsities(tmp_path: Path) -> None:
    for sparsity in (0.9, 0.98):
        for method, accuracy in zip(METHODS, ACCURACIES, strict=True):
            put(tmp_path, method, accuracy=accuracy, effective_sparsity=1 - accuracy / 10, sparsity=sparsity)
    collection = collect(tmp_path)
    written = report_tables(collection, summarise(collection))
    assert len(written.predictors) == 2
    assert written.files["predictors_pooled.csv"].splitlines()[1] == "effective_sparsity,12,2,1.0"
    assert "All data sets, networks and sparsities" in written.files["predictors.md"]
