"""Numbers over seeds: n, mean and sample deviation of each point."""

from __future__ import annotations

import pandas as pd

from pai_bench.analysis.frame import Collection
from pai_bench.cells import DENSE

PANEL = ["dataset", "model", "recipe"]
POINT = ["source", "method", *PANEL, "sparsity"]


def summarise(collection: Collection) -> pd.DataFrame:
    """One row a point (POINT), sorted, with columns

    n, mean, std (sample deviation over seeds, n - 1; NaN when n < 2), low, high (all fractions),
    collapsed, diverged (numbers of runs), planned (n and those still missing).
    """
    rows = collection.rows
    groups = rows.groupby(POINT, sort=False)
    accuracy = groups["accuracy"]
    table = pd.DataFrame(
        {
            "n": accuracy.count(),
            "mean": accuracy.mean(),
            "std": accuracy.std(ddof=1),
            "low": accuracy.min(),
            "high": accuracy.max(),
            "collapsed": groups["status"].agg(lambda status: (status == "collapsed").sum()),
            "diverged": groups["status"].agg(lambda status: (status == "diverged").sum()),
        }
    )
    lacking = collection.missing.groupby(POINT).size().rename("lacking")
    table = table.join(lacking, how="outer").reset_index()
    counts = ["n", "collapsed", "diverged", "lacking"]
    table[counts] = table[counts].fillna(0).astype(int)
    table["planned"] = table["n"] + table["lacking"]
    table["order"] = table["method"] != DENSE
    by = [*PANEL, "source", "order", "method", "sparsity"]
    return table.sort_values(by, ignore_index=True).drop(columns=["order", "lacking"])


def number_of_seeds(summary: pd.DataFrame) -> str:
    """The n of all points that have results, in words: "n = 3" or "n = 2 to 3"."""
    counts = summary.loc[summary["n"] > 0, "n"]
    low, high = counts.min(), counts.max()
    return f"n = {low}" if low == high else f"n = {low} to {high}"
