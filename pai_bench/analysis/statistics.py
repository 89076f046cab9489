"""Statistics over seeds: n, mean and sample deviation of each point, and comparison of controls with methods."""

from __future__ import annotations

import math
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from pai_bench.analysis import inference
from pai_bench.analysis.collect import Collection
from pai_bench.analysis.columns import PANEL, POINT
from pai_bench.analysis.inference import LEVEL, MARGIN
from pai_bench.analysis.information import known
from pai_bench.analysis.style import by_value
from pai_bench.cells import CONTROLS, DENSE, MethodSpec
from pai_bench.core.garbage import uncollected
from pai_bench.errors import PaiBenchError
from pai_bench.results import ties

__all__ = [
    "LEVEL",
    "MARGIN",
    "PANEL",
    "POINT",
    "compare_controls",
    "number_of_seeds",
    "split_control",
    "summarise",
    "without_controls",
]

_TEXT = ("source", "method", *PANEL, "epoch", "note", "suspect")


@uncollected()
def summarise(collection: Collection) -> pd.DataFrame:
    """Return one row per point, sorted, with the columns that `columns` describes."""
    rows = collection.rows
    rows = rows if "saw" in rows else rows.assign(saw=rows["method"].map(known))
    tied = _tied(rows)
    groups = rows.groupby(POINT, sort=False, dropna=False)
    number = groups.ngroup()
    table = groups[["epoch", "chance", "saw"]].first().reset_index()
    by_point = rows["counted"].groupby(number, sort=True)
    table["n"], table["runs"] = by_point.count(), by_point.size()
    table["mean"], table["std"] = by_point.mean(), by_point.std(ddof=1)
    table["low"], table["high"] = by_point.min(), by_point.max()
    for status in ("collapsed", "diverged"):
        table[status] = (rows["status"] == status).groupby(number).sum()
    for name, flags in (("at_chance", rows["at_chance"]), ("tied", tied)):
        table[name] = flags.groupby(number).sum()
    reported = rows["sparsity_reported"].groupby(number)
    table["sparsity_low"], table["sparsity_high"] = reported.min(), reported.max()
    for text in ("note", "suspect"):
        has_text = rows[text] != ""
        said = rows.loc[has_text, text].groupby(number).agg(lambda texts: "; ".join(dict.fromkeys(texts)))
        table[text] = said.reindex(table.index, fill_value="")
        # A note about some of the dense runs, which tables list for each method, is not one about the dense network.
        noted = has_text.groupby(number).sum()
        table.loc[(table["method"] == DENSE) & (noted < table["runs"]), text] = ""
    table["seeds"] = _seeds(rows, number, len(table))
    failed = table["collapsed"] + table["diverged"] > 0
    numbers = ["mean", "std", "low", "high"]
    # A failed run without a number would be left out of the mean.
    unknown = failed & (table["n"] < table["runs"])
    table.loc[unknown, numbers] = math.nan
    table.loc[unknown, "n"] = 0
    table.loc[failed | (table["at_chance"] > 0), "std"] = math.nan
    # Python strings, because iterating over Arrow strings takes ten times as long.
    return _sorted(_with_missing(table, collection.missing)).astype(dict.fromkeys(_TEXT, object))


def _seeds(rows: pd.DataFrame, number: pd.Series, count: int) -> list[tuple[int, ...]]:
    """Return the seeds of the counted runs of each of `count` points, in order; `number` is the point of each row."""
    counted = rows["counted"].notna()
    points, seeds = number[counted].to_numpy(), rows.loc[counted, "seed"].to_numpy()
    order = np.lexsort((seeds, points))
    ends = np.searchsorted(points[order], np.arange(count + 1)).tolist()
    ordered = seeds[order].tolist()
    return [tuple(ordered[start:end]) for start, end in pairwise(ends)]


def _tied(rows: pd.DataFrame) -> pd.Series:
    """Return True for each row whose mask is decided by ties; only rows of the results folder can have any."""
    flags = pd.Series(False, index=rows.index)
    if "tied_at_cut" in rows:
        known = rows[pd.to_numeric(rows["tied_at_cut"], errors="coerce").fillna(0) > 0]
        flags |= flags.index.isin([row for row, each in known.T.items() if ties.decide(each)])
    return flags


def _with_missing(table: pd.DataFrame, missing: pd.DataFrame) -> pd.DataFrame:
    """Add the points without any result, and the number of planned runs of every point."""
    lacking = missing.groupby(POINT).size().rename("lacking").reset_index()
    table = table.merge(lacking, on=POINT, how="outer")
    counts = ["n", "runs", "collapsed", "diverged", "at_chance", "tied", "lacking"]
    table[counts] = table[counts].fillna(0).astype(int)
    table["planned"] = table["runs"] + table["lacking"]
    table[["note", "suspect"]] = table[["note", "suspect"]].fillna("")
    table["epoch"] = table["epoch"].fillna("last")
    table["saw"] = table["saw"].fillna(table["method"].map(known))
    table["seeds"] = [seeds if isinstance(seeds, tuple) else () for seeds in table["seeds"]]
    for column in ("sparsity_low", "sparsity_high"):
        table[column] = table[column].fillna(table["sparsity"])
    return table.drop(columns="lacking")


def _sorted(table: pd.DataFrame) -> pd.DataFrame:
    """Sort by panel and source; the dense reference comes first, and every method before its controls and variants."""
    names = sorted(table["method"].unique(), key=lambda method: (method != DENSE, *by_value(method)))
    place = {name: index for index, name in enumerate(names)}
    table = table.assign(order=table["method"].map(place))
    return table.sort_values([*PANEL, "source", "order", "sparsity"], ignore_index=True).drop(columns="order")


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
    return table.loc[[split_control(method)[1] is None for method in table["method"]]]


def compare_controls(collection: Collection, margin: float = MARGIN) -> pd.DataFrame:
    """Compare controls with their methods: one row per point and control, with POINT (of the method), control, and

    n, difference (mean difference in accuracy, control minus method, paired by seed; a fraction), low, high (its 95 %
    Student t interval), low90, high90 (the 90 % interval that decides equivalence), p (two one-sided tests against the
    margin, Schuirmann 1987), equivalent (p < 0.05), seeds_needed (number of seeds at which equal accuracies with this
    spread are shown to be equivalent with power 0.8), margin, collapsed, diverged, at_chance (numbers of the control's
    runs), failed_of_method (number of the method's runs that collapsed, diverged or are at chance).

    Intervals and p are NaN when n < 2, and when a run of the control or of the method failed: such runs are another
    population, and two networks at chance level are not evidence of equivalence. low90, high90, p and seeds_needed are
    also NaN when all differences are equal.
    """
    rows = collection.rows
    spec = {name: split_control(name) for name in rows["method"].unique()}
    controlled = rows["method"].isin([name for name, (_, control) in spec.items() if control])
    found = [spec[name] for name in rows.loc[controlled, "method"]]
    controls = rows[controlled].assign(control=[control for _, control in found])
    controls["method"] = pd.Series([name for name, _ in found], index=controls.index, dtype=object)
    plain = rows[~controlled & rows["method"].isin(controls["method"].unique())]
    other = plain[[*POINT, "seed", "counted", "status", "at_chance"]]
    pairs = controls.merge(other, on=[*POINT, "seed"], suffixes=("", "_of_method"))
    pairs["difference"] = pairs["counted"] - pairs["counted_of_method"]
    pairs = pairs.dropna(subset="difference")
    pairs["failed"] = (pairs["status"] != "ok") | pairs["at_chance"].astype(bool)
    pairs["failed_of_method"] = (pairs["status_of_method"] != "ok") | pairs["at_chance_of_method"].astype(bool)
    lines = [
        {
            **dict(zip([*POINT, "control"], key, strict=True)),
            **_paired(group["difference"].to_list(), margin, not group[["failed", "failed_of_method"]].any(axis=None)),
            **{status: int((group["status"] == status).sum()) for status in ("collapsed", "diverged")},
            **{name: int(group[name].sum()) for name in ("at_chance", "failed_of_method")},
        }
        for key, group in pairs.groupby([*POINT, "control"])
    ]
    numbers = ["n", "difference", "low", "high", "low90", "high90", "p", "equivalent", "seeds_needed", "margin"]
    counts = ["collapsed", "diverged", "at_chance", "failed_of_method"]
    table = pd.DataFrame(lines, columns=[*POINT, "control", *numbers, *counts])
    table["order"] = table["control"].map(CONTROLS.index)
    table = table.astype({"seeds_needed": float})
    by = [*PANEL, "source", "method", "order", "sparsity"]
    return table.sort_values(by, ignore_index=True).drop(columns="order")


def _paired(differences: list[float], margin: float, sound: bool) -> dict[str, Any]:
    """Compute the statistics of paired differences [n]; without `sound` there is neither an interval nor a test."""
    interval = inference.t_interval(differences)
    # A difference that is not significant is not evidence of equality, so equivalence must be shown.
    line = {"n": interval.n, "difference": interval.mean, "margin": margin, "equivalent": False}
    if not sound:
        return {**line, **dict.fromkeys(("low", "high", "low90", "high90", "p", "seeds_needed"), math.nan)}
    line |= {"low": interval.low, "high": interval.high}
    test = inference.equivalence(differences, margin)
    if math.isnan(test.p):
        return {**line, **dict.fromkeys(("low90", "high90", "p", "seeds_needed"), math.nan)}
    return {
        **line,
        "low90": test.low90,
        "high90": test.high90,
        "p": test.p,
        "equivalent": test.equivalent,
        "seeds_needed": test.seeds_needed,
    }
