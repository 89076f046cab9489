"""Results as a DataFrame, for notebooks and scripts."""

from __future__ import annotations

from collections.abc import Iterable
from os import PathLike
from pathlib import Path

import pandas as pd

from pai_bench import results
from pai_bench.analysis.collect import collect


def load_results(root: str | PathLike[str] | None = None, tables: Iterable[str | PathLike[str]] = ()) -> pd.DataFrame:
    """Load the results of a folder, one row per finished cell.

    The rows and columns equal the file `results.csv` of `pai-bench report`: source ("" for results of this folder),
    method, dataset, model, recipe, sparsity (fraction removed), seed, accuracy (fraction), status ("ok", "collapsed"
    or "diverged"), actual and effective sparsity, seconds of scoring and training, measures of the masked network, and
    more (docs/measures.md describes every column). Stale results (made with
    other settings or by another version of a method than the newest plan) are left out, as in the report.

    root: the results folder; the default is the environment variable PAI_BENCH_RESULTS, else "results".
    tables: .csv or .parquet files with further results, as for `pai-bench report --from`.

    Raises: PaiBenchError when there is no finished result, or a table cannot be used.
    """
    place = results.resolve_root(None if root is None else Path(root))
    return collect(place, [Path(table) for table in tables]).rows.drop(columns="path", errors="ignore")
