"""Published results from a table of the user."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from pai_bench.analysis.columns import OURS, PANEL
from pai_bench.analysis.table_files import BY_POINT, read_table
from pai_bench.analysis.unify import dense_names, unify_names
from pai_bench.errors import PaiBenchError

_NAMES = ["method", *PANEL]
_KEYS = [*_NAMES, "sparsity", "paper", "epoch"]
_LARGEST = 0.7072
"""Largest sample standard deviation of fractions: of 0 and 1."""


def read(path: Path, beside: pd.DataFrame | None = None) -> tuple[pd.DataFrame, list[str]]:
    """Read a tidy table as published results, one row per point; also return remarks on names that were unified.

    The table has one row per run, with a column `seed` as for `pai-bench report --from`, or one row per point, without
    the column `seed` and with the columns `std` (fraction) and `n` as far as they are known. Rows without a recipe
    belong to every recipe, and rows without a `paper` have the file's name as paper. Columns of the result: _KEYS,
    accuracy, std, n, match ("near"), differs and suspect.

    beside: the results with which the table is compared; names that differ from theirs in case only become theirs.

    Raises: PaiBenchError when the table is not valid.
    """
    runs = dense_names(read_table(path, points=True))
    by_point = bool((runs["seed"] <= BY_POINT).all())
    _check(path, runs)
    papers = runs["paper"].fillna("").astype(str).str.strip() if "paper" in runs else pd.Series("", runs.index)
    runs["paper"] = papers.where(papers != "", path.stem)
    remarks = _unify(runs, beside)
    if by_point and (repeated := runs[runs.duplicated(_KEYS)]).size:
        row = repeated.iloc[0]
        raise PaiBenchError(
            f"{path}: row {repeated.index[0] + 2} repeats {row.method}, {row.dataset}, {row.model},"
            f" sparsity {row.sparsity:g}",
            "keep one row per point, or add a column seed for runs",
        )
    groups = runs.groupby(_KEYS, sort=False)
    # The std of pandas has ddof 1, like ours.
    points = groups["accuracy"].agg(accuracy="mean", std="std", n="count").astype(float)
    if by_point:
        points["n"] = float("nan")
    for column in ("std", "n"):
        if column in runs:
            given = pd.to_numeric(groups[column].first(), errors="coerce")
            points[column] = given.fillna(points[column])
    for column in ("suspect", "differs"):
        points[column] = groups[column].first().fillna("") if column in runs else ""
    return points.reset_index().assign(match="near"), remarks


def _check(path: Path, runs: pd.DataFrame) -> None:
    """Check the columns `std` and `n`."""
    for column, low, top, allowed in (
        ("std", 0.0, _LARGEST, "a standard deviation of fractions: write 0.003 for 0.3 points"),
        ("n", 1.0, float("inf"), "a number of runs"),
    ):
        values = pd.to_numeric(runs[column], errors="coerce").dropna() if column in runs else pd.Series(dtype=float)
        wrong = values[~values.between(low, top)]
        if len(wrong):
            row = wrong.index[0] + 2
            raise PaiBenchError(f"{path}: {column} {wrong.iloc[0]:g} (row {row}) is not {allowed}", "correct the table")


def _unify(runs: pd.DataFrame, beside: pd.DataFrame | None) -> list[str]:
    """Replace names in place that differ in case only from those of pai-bench and of the results `beside`."""
    ours = runs.iloc[:0] if beside is None else beside[_NAMES].drop_duplicates().assign(source=OURS)
    both = pd.concat([ours, runs], ignore_index=True)
    remarks = unify_names(both)
    runs[_NAMES] = both[_NAMES].iloc[len(ours) :].to_numpy()
    return remarks
