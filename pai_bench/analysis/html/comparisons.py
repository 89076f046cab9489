"""Tables of the HTML page that compare methods with the baseline, and methods with their controls."""

from __future__ import annotations

import pandas as pd

from pai_bench.analysis.comparison import is_testable
from pai_bench.analysis.difference_tables import p_text
from pai_bench.analysis.grid import NONE
from pai_bench.analysis.html.tables import SETTING, Column, Row, Table, decimal, known, sparsity, table, whole, word

_METHOD = word("method", "Method")


def comparison(compared: pd.DataFrame) -> Table:
    """Return the comparison of methods with the baseline (see `compare`); its numbers equal comparison.csv."""
    columns = (
        _METHOD,
        word("baseline", "Baseline", varies=True),
        *SETTING,
        word("epoch", "Epoch", varies=True),
        whole("n", "n"),
        whole("sparsities", "Sparsities"),
        *_interval(),
        _p("p", "p"),
        Column("p_smallest", "Smallest p", lambda row: _p_value(row, "p_smallest"), True),
        _p("p_holm", "p (Holm)"),
        whole("seeds_needed", "Seeds needed"),
    )
    intro = (
        "Accuracy of the method minus accuracy of the baseline, paired by seed, mean over the sparsities that both"
        " have, in points, with 95 % t interval. p of a two-sided sign flip, the smallest p that the number of seeds"
        " allows, and p adjusted by Holm over the methods of a panel; no p where it could not be below 0.05, and the"
        " number of seeds from which it can."
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
        whole("settings", "Settings"),
        *_interval(),
        _p("p", "p"),
        Column("p_smallest", "Smallest p", lambda row: _p_value(row, "p_smallest"), True),
        _p("p_holm", "p (Holm)"),
    )
    intro = (
        "Mean difference to the baseline over settings (data set and network), in points; p for these settings. The"
        " interval is about new settings and needs six of them."
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
        decimal("p", "p (TOST)", 4),
        Column("equivalent", "Equal", lambda row: "yes" if row["equivalent"] else "not shown"),
    )
    intro = (
        "Accuracy of the control minus accuracy of the method, paired by seed, in points, with 95 % t interval; p of"
        " two one-sided tests of equality."
    )
    return table("controls", "Controls", intro, columns, compared.to_dict("records"))


def _interval() -> tuple[Column, ...]:
    titles = (("difference", "Difference"), ("low", "Low"), ("high", "High"))
    return tuple(decimal(name, title, 2, 100.0, "+") for name, title in titles)


def _p(name: str, title: str) -> Column:
    """Return a column of p values, without those that could not have been below 0.05."""
    return Column(name, title, lambda row: _p_value(row, name) if is_testable(row) else NONE, True)


def _p_value(row: Row, name: str) -> str:
    return p_text(row[name]) if known(row[name]) else NONE
