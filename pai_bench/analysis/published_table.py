"""Table of own results beside published ones."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from pai_bench.analysis.columns import EPOCHS
from pai_bench.analysis.display_names import dataset_name, method_name, model_name
from pai_bench.analysis.figures.curves import accuracy_panel
from pai_bench.analysis.figures.material import Material
from pai_bench.analysis.figures.overlay import differences
from pai_bench.analysis.latex_text import escape
from pai_bench.cells import DENSE

HEAD = ("method", "remaining (%)", "ours", "published", "difference", "differs in")


def compare(material: Material) -> pd.DataFrame:
    """Return ours and published, in per cent, for each point that has both: see `overlay.differences`."""
    found = [
        differences(panel).assign(**setting.columns)
        for setting in material.settings
        if (panel := accuracy_panel(material, setting)).published
    ]
    table = pd.concat(found, ignore_index=True) if found else pd.DataFrame()
    return table.rename(columns={"half": "half_width"})


def markdown(table: pd.DataFrame) -> str:
    """Format one table per setting: ours | published | difference | differs in."""
    parts = []
    for (dataset, model, recipe), rows in table.groupby(["dataset", "model", "recipe"], sort=False):
        title = " · ".join(part for part in (dataset_name(dataset), model_name(model), recipe) if part)
        lines = [
            "| " + " | ".join(cell.replace("|", "\\|") for cell in _cells(row, "±")) + " |" for row in rows.itertuples()
        ]
        head = ["| " + " | ".join(HEAD) + " |", "|" + "---|" * len(HEAD)]
        parts.append("\n".join([f"### {title}", "", *head, *lines]))
    return "\n\n".join([*parts, _note(table)]) + "\n"


def latex(table: pd.DataFrame) -> str:
    """Format one booktabs table per setting; the differences in words are below it, by letter."""
    parts = ["% needs \\usepackage{booktabs}"]
    for (dataset, model, recipe), rows in table.groupby(["dataset", "model", "recipe"], sort=False):
        title = ", ".join(part for part in (dataset_name(dataset), model_name(model), recipe) if part)
        words = list(dict.fromkeys(_differs(row) for row in rows.itertuples()))
        letter = {text: chr(ord("a") + i) for i, text in enumerate(words)}
        body = []
        for row in rows.itertuples():
            cells = [escape(cell) for cell in _cells(row, "±")[:-1]]
            body.append(" & ".join([*cells, letter[_differs(row)]]) + r" \\")
        below = "; ".join(f"({letter[text]}) {text or 'nothing known'}" for text in words)
        parts += [
            r"\begin{table}",
            r"\centering\footnotesize\setlength{\tabcolsep}{4pt}",
            rf"\caption{{{escape(f'{title}. {_note(rows)} Differs in: {below}.')}}}",
            r"\begin{tabular}{lccccc}",
            r"\toprule",
            " & ".join(escape(text) for text in HEAD) + r" \\",
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
        ]
    return "\n".join(parts) + "\n"


def _cells(row: Any, plus_minus: str) -> list[str]:
    density = 100.0 if row.method == DENSE else 100 * row.density
    half = "" if math.isnan(row.half_width) else f" {plus_minus} {row.half_width:.2f}"
    n = "" if math.isnan(row.n_published) else f" ({row.n_published:.0f})"
    return [
        "Dense" if row.method == DENSE else method_name(row.method),
        f"{density:.4g}",
        f"{row.ours:.2f} ({row.n})",
        f"{row.published:.2f}{n}",
        f"{row.difference:+.2f}{half}".replace("-", "\N{MINUS SIGN}"),
        _differs(row),
    ]


def _differs(row: Any) -> str:
    return row.differs or ""


def _note(table: pd.DataFrame) -> str:
    papers = ", ".join(dict.fromkeys(table["paper"]))
    epochs = ", ".join(dict.fromkeys(EPOCHS.get(epoch, EPOCHS[""]) for epoch in table["epoch"]))
    return (
        f"Test accuracy in per cent with the number of runs; published: {papers}, {epochs}. The difference is ours"
        " minus published, with the half width of a 95 % Welch interval where both have a deviation."
    )
