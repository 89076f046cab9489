"""Published results from a table of the user."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from pai_bench.analysis.columns import PANEL
from pai_bench.analysis.table_files import read_table
from pai_bench.analysis.unify import dense_names

_KEYS = ["method", *PANEL, "sparsity"]


def read(path: Path) -> pd.DataFrame:
    """Read a tidy table as published results, one row per point.

    The table has one row per run, with a column `seed` as for `pai-bench report --from`, or one row per point with the
    columns `std` (fraction) and `n`. Rows without a recipe belong to every recipe. Columns of the result: _KEYS,
    accuracy, std, n, epoch, match ("near"), differs, suspect and paper (the file's name).

    Raises: PaiBenchError when the table is not valid.
    """
    runs = dense_names(read_table(path))
    groups = runs.groupby(_KEYS, sort=False)
    # The std of pandas has ddof 1, like ours.
    points = groups["accuracy"].agg(accuracy="mean", std="std", n="count")
    for column in ("std", "n"):
        if column in runs:
            given = pd.to_numeric(groups[column].first(), errors="coerce")
            points[column] = given.fillna(points[column])
    for column in ("epoch", "suspect", "differs"):
        points[column] = groups[column].first().fillna("") if column in runs else ""
    return points.reset_index().assign(match="near", paper=path.stem)
