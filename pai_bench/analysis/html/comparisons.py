"""Tables of the HTML page that compare methods with the baseline, and methods with their controls."""

from __future__ import annotations

import pandas as pd

from pai_bench.analysis.comparison import is_testable
from pai_bench.analysis.difference_tables import p_text
from pai_bench.analysis.grid import NONE
from pai_bench.analysis.html.tables import SETTING, Column, Row, Table, decimal, known, sparsity, table, whole, word
from pai_bench.analysis.inference import MIN_BLOCKS

_METHOD = word("method", "Method")
_NOTE = word("note", "Note", varies=True)


def comparison(compared: pd.DataFrame) -> Table:
    """Return the comparison of methods with the baseline (see `compare`); its numbers equal comparison.csv."""
    columns = (
        _METHOD,
        word("baseline", "Baseline", varies=True),
        *SETTING,
        word("epoch", "Epoch", varies=True),
        *_interval(),
        whole("n", "n"),
        whole("sparsities", "Sparsities"),
        whole("failed", "Failed runs"),
        _p("p", "p"),
        Column("p_smallest", "Smallest p", lambda row: _p_value(row, "p_smallest"), True),
        _p("p_holm", "p (Holm)"),
        whole("seeds_needed", "Seeds needed"),
        _NOTE,
    )
    intro = (
        "Accuracy of the method minus accuracy of the baseline, paired by seed, mean over the sparsities that both"
        " have, in points, with 95 % t interval. p of a two-sided sign flip, the smallest p that the number of seeds"
        " allows, and p adjusted by Holm over the methods of a panel; no p where it could not be below 0.05, and the"
        " number of seeds from which it can. Failed runs collapsed, diverged or are at chance: they count at their"
        " accuracy, or at chance without one, and leave no interval."
    )
    return table("comparison", "Comparison", intro, columns, compared.to_dict("records"))


def pooled(found: pd.DataFrame) -> Table:
    """Return the comparison pooled over settings (see `pool`); its numbers equal pooled.csv."""
    columns = (
        _METHOD,
        word("baseline", "Baseline", varies=True),
        word("recipe", "Recipe", varies=True),
        word("source", "Source", varies=True),
        word("epoch", "Epoch", varies=True),
        *_interval(),
        whole("settings", "Settings"),
        whole("failed", "Failed runs"),
        _p("p", "p"),
        Column("p_smallest", "Smallest p", lambda row: _p_value(row, "p_smallest"), True),
        _p("p_holm", "p (Holm)"),
        _p("p_settings", "p, new", "p_settings_smallest"),
        Column("p_settings_smallest", "Smallest p, new", lambda row: _p_value(row, "p_settings_smallest"), True),
        _p("p_settings_holm", "p, new (Holm)", "p_settings_smallest"),
        _NOTE,
    )
    intro = (
        "Mean difference to the baseline over settings (data set and network), in points; p for these settings. The"
        f" 95 % t interval and the p marked as new are about new settings and need {MIN_BLOCKS} of them. Failed runs"
        " collapsed, diverged or are at chance; they count in the means of their settings."
    )
    return table("pooled", "Comparison over settings", intro, columns, found.to_dict("records"))


def controls(compared: pd.DataFrame) -> Table:
    """Return the differences between controls and methods; its numbers equal controls.csv."""
    columns = (
        _METHOD,
        word("control", "Control"),
        *SETTING,
        sparsity(),
        whole("n", "n"),
        *_interval(),
        decimal("low90", "Low, 90 %", 2, 100.0, "+"),
        decimal("high90", "High, 90 %", 2, 100.0, "+"),
        decimal("p", "p (TOST)", 4),
        Column("equivalent", "Equal", lambda row: "yes" if row["equivalent"] else "not shown"),
        _NOTE,
    )
    margin = f"{100 * compared['margin'].iloc[0]:g}" if len(compared) else "the margin"
    intro = (
        "Accuracy of the control minus accuracy of the method, paired by seed, in points, with 95 % t interval. Equal:"
        f" the 90 % t interval is within ±{margin} points, which is the decision of two one-sided tests (p). There is"
        " neither an interval nor a test where a run of the control or the method collapsed, diverged or is at chance."
    )
    return table("controls", "Controls", intro, columns, compared.to_dict("records"))


def _interval() -> tuple[Column, ...]:
    titles = (("difference", "Difference"), ("low", "Low"), ("high", "High"))
    return tuple(decimal(name, title, 2, 100.0, "+") for name, title in titles)


def _p(name: str, title: str, smallest: str = "p_smallest") -> Column:
    """Return a column of p values, without those that could not have been below 0.05."""
    return Column(name, title, lambda row: _p_value(row, name) if is_testable(row, smallest) else NONE, True)


def _p_value(row: Row, name: str) -> str:
    return p_text(row[name]) if known(row[name]) else NONE
