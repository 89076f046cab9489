"""Statistics over seeds: n, mean and sample deviation of each point, and comparison of controls with methods."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import pandas as pd
from scipy.special import stdtr, stdtrit

from pai_bench.analysis.collect import Collection
from pai_bench.analysis.style import by_value
from pai_bench.cells import CONTROLS, DENSE, MethodSpec
from pai_bench.errors import PaiBenchError
from pai_bench.results import ties

PANEL = ["dataset", "model", "recipe"]
POINT = ["source", "method", *PANEL, "sparsity"]

MARGIN = 0.005
"""Equivalence margin: half a percentage point, about the spread between seeds."""

LEVEL = 0.05


def summarise(collection: Collection) -> pd.DataFrame:
    """Return one row per point (POINT), sorted, with the columns

    n, mean, std (sample deviation over seeds, ddof 1; NaN when n < 2), low, high (all fractions),
    collapsed, diverged, tied (numbers of runs; see `ties.decide`), planned (n plus missing runs).
    """
    rows = collection.rows.assign(tied=[ties.decide(row) for row in collection.rows.to_dict("records")])
    groups = rows.groupby(POINT, sort=False, dropna=False)
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
            "tied": groups["tied"].sum(),
        }
    )
    lacking = collection.missing.groupby(POINT).size().rename("lacking")
    table = table.join(lacking, how="outer").reset_index()
    counts = ["n", "collapsed", "diverged", "tied", "lacking"]
    table[counts] = table[counts].fillna(0).astype(int)
    table["planned"] = table["n"] + table["lacking"]
    # The dense reference first, and every method before its controls and variants.
    table["order"] = [(method != DENSE, *by_value(method)) for method in table["method"]]
    by = [*PANEL, "source", "order", "sparsity"]
    return table.sort_values(by, ignore_index=True).drop(columns=["order", "lacking"])


def number_of_seeds(summary: pd.DataFrame) -> str:
    """Describe the n of all points with results: "n = 3" or "n = 2 to 3"."""
    counts = summary.loc[summary["n"] > 0, "n"]
    low, high = counts.min(), counts.max()
    return f"n = {low}" if low == high else f"n = {low} to {high}"


@cache
def split_control(method: str) -> tuple[str, str | None]:
    """Split a method into its spec without the control, and the control; names that are not specs have no control."""
    try:
        spec = MethodSpec.parse(method)
    except PaiBenchError:
        return method, None
    return (method, None) if spec.control is None else (str(spec.uncontrolled), spec.control)


def without_controls(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of methods without a control."""
    return table[table["method"].map(lambda method: split_control(method)[1] is None)]


def compare_controls(collection: Collection) -> pd.DataFrame:
    """Compare controls with their methods: one row per point and control, with POINT (of the method), control, and

    n, difference (mean difference in accuracy, control minus method, paired by seed; a fraction), low, high (its 95 %
    Student t interval; NaN when n < 2), p (two one-sided tests against MARGIN, Schuirmann 1987; NaN when n < 2, when
    all differences are equal, and when a run of the method collapsed or diverged, because two networks at chance level
    are no evidence of equivalence), equivalent (p < 0.05), collapsed, diverged (numbers of the control's runs).
    """
    rows = collection.rows
    spec = rows["method"].map(split_control)
    rows = rows.assign(method=[name for name, _ in spec], control=[control for _, control in spec])
    plain, controls = rows[rows["control"].isna()], rows[rows["control"].notna()]
    pairs = controls.merge(
        plain[[*POINT, "seed", "accuracy", "status"]], on=[*POINT, "seed"], suffixes=("", "_of_method")
    )
    pairs["difference"] = pairs["accuracy"] - pairs["accuracy_of_method"]
    pairs = pairs.dropna(subset="difference")
    found = [
        {
            **dict(zip([*POINT, "control"], key, strict=True)),
            **_paired(group["difference"].to_numpy(), sound=bool((group["status_of_method"] == "ok").all())),
            **{status: int((group["status"] == status).sum()) for status in ("collapsed", "diverged")},
        }
        for key, group in pairs.groupby([*POINT, "control"])
    ]
    numbers = ["n", "difference", "low", "high", "p", "equivalent", "collapsed", "diverged"]
    table = pd.DataFrame(found, columns=[*POINT, "control", *numbers])
    table["order"] = table["control"].map(CONTROLS.index)
    by = [*PANEL, "source", "method", "order", "sparsity"]
    return table.sort_values(by, ignore_index=True).drop(columns="order")


def _paired(differences: np.ndarray, sound: bool) -> dict[str, float | bool]:
    """Compute the statistics of paired differences [n]; without `sound` the equivalence test is skipped."""
    n, mean = len(differences), float(differences.mean())
    if n < 2:
        return {"n": n, "difference": mean, "low": math.nan, "high": math.nan, "p": math.nan, "equivalent": False}
    error = float(differences.std(ddof=1)) / math.sqrt(n)
    half = float(stdtrit(n - 1, 1 - LEVEL / 2)) * error
    room = MARGIN - abs(mean)  # distance to the nearer bound, whose one-sided test has the larger p value
    p = float(stdtr(n - 1, -room / error)) if sound and error > 1e-12 else math.nan
    return {
        "n": n,
        "difference": mean,
        "low": mean - half,
        "high": mean + half,
        "p": p,
        "equivalent": p < LEVEL,
    }
