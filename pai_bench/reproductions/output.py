"""Verdicts as Markdown, CSV, LaTeX and a figure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from pai_bench.analysis.display_names import recipe_names
from pai_bench.analysis.latex_text import escape, row_start
from pai_bench.reproductions import figure
from pai_bench.reproductions.judge import RULE, Beside, Judged, Reached, beside, budgets, judge
from pai_bench.reproductions.schema import Reproduction

DASH = "–"
_LABEL = 28
"""Length of labels from which they are broken in LaTeX."""
PLACE = ("dataset", "model", "method", "sparsity", "recipe")


def write(reproduction: Reproduction, rows: pd.DataFrame, folder: Path) -> list[Path]:
    """Write table.md, table.csv, table.tex, figure.pdf and figure.png to `folder` and return their paths.

    `rows` are results as in `load_results`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    judged, reached = judge(reproduction, rows), budgets(reproduction, rows) if reproduction.targets else []
    numbers = csv_rows(judged) if judged else budget_rows(reached)
    texts = {
        "table.md": markdown(reproduction, rows),
        "table.csv": numbers.to_csv(index=False),
        "table.tex": latex(reproduction, judged, reached),
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    drawn = figure.save(reproduction, judged, rows, folder / "figure")
    return [*(folder / name for name in texts), *drawn]


def markdown(reproduction: Reproduction, rows: pd.DataFrame, rule: str = RULE) -> str:
    """Format the verdicts of a reproduction, with the rule and the differences from the published protocol."""
    judged = judge(reproduction, rows)
    parts = [f"{reproduction.summary}\n\n*{reproduction.paper}*"]
    if judged:
        parts.append(table(*_verdict_cells(judged)))
        parts.append(f"Per cent; mean and 95 % interval over n runs. {rule}".rstrip())
    if others := beside(reproduction, rows):
        parts.append(
            "Other methods, controls and kinds of scoring data at the same points, not published there:\n\n"
            f"{_beside(reproduction, others)}"
        )
    if reproduction.targets:
        parts.append(_budget_text(budgets(reproduction, rows)))
    if reproduction.differs:
        parts.append("Differences from the published protocol:\n\n" + "\n".join(f"- {d}" for d in reproduction.differs))
    return "\n\n".join(parts) + "\n"


def csv_rows(judged: Sequence[Judged]) -> pd.DataFrame:
    """Return one row per entry with all numbers, in per cent."""
    return pd.DataFrame(
        [
            {
                **{key: getattr(item.entry, key) for key in ("label", *PLACE)},
                "measure": item.entry.measure,
                "n": item.n,
                "planned": item.entry.planned,
                "ours": item.mean,
                "low": item.low,
                "high": item.high,
                "published": item.entry.published,
                "spread": item.entry.spread,
                "published_n": item.entry.n,
                "difference": item.difference,
                "verdict": item.verdict,
                "source": item.entry.source,
                "others": "; ".join(f"{other.value} ({other.source})" for other in item.entry.others),
            }
            for item in judged
        ]
    )  # fmt: skip


def _verdict_cells(judged: Sequence[Judged]) -> tuple[list[str], list[list[str]]]:
    others = any(item.entry.others for item in judged)
    head = ["entry", "measure (%)", "ours [95 %]", "n", "published", "difference", "verdict"]
    head += ["others"] if others else []
    body = []
    for item in judged:
        entry = item.entry
        spread = "" if entry.spread is None else f" ± {entry.spread:g}"
        runs = "" if entry.n is None else f" (n = {entry.n})"
        line = [
            entry.label,
            entry.measure,
            ours(item),
            _runs(item.n, entry.planned),
            f"{entry.value}{spread}{runs}",
            DASH if not item.n else f"{item.difference:+.2f}",
            item.verdict,
        ]
        line += ["; ".join(f"{other.value} ({other.source})" for other in entry.others)] if others else []
        body.append(line)
    return head, body


def _runs(n: int, planned: int) -> str:
    return str(n) if n == planned else f"{n} of {planned}"


def ours(item: Judged) -> str:
    """Format our mean and its interval."""
    if not item.n:
        return DASH
    interval = "" if math.isnan(item.low) else f" [{item.low:.2f}, {item.high:.2f}]"
    return f"{item.mean:.2f}{interval}"


def _beside(reproduction: Reproduction, others: Sequence[Beside]) -> str:
    names = recipe_names([*(entry.recipe for entry in reproduction.entries), *(item.recipe for item in others)])
    several = len(names) > 1
    body = [
        [
            item.model,
            f"{100 * item.sparsity:g}",
            *([names[item.recipe]] * several),
            item.method,
            f"{item.mean:.2f}" + ("" if math.isnan(item.std) else f" ± {item.std:.2f}"),
            str(item.n),
        ]
        for item in others
    ]
    return table(["model", "sparsity (%)", *(["recipe"] * several), "method", "ours (%)", "n"], body)


def budget_rows(reached: Sequence[Reached]) -> pd.DataFrame:
    """Return one row per model, method and target."""
    return pd.DataFrame(
        [
            {
                "model": item.model,
                "method": item.method,
                "target": item.target.accuracy,
                "known_weights": item.target.weights,
                "n": item.n,
                "budgets": " ".join(map(str, item.tried)),
                "smallest_by_mean": item.by_mean,
                "smallest_by_best": item.by_best,
            }
            for item in reached
        ],
        columns=["model", "method", "target", "known_weights", "n", "budgets", "smallest_by_mean", "smallest_by_best"],
    )


def _budget_cells(reached: Sequence[Reached]) -> tuple[list[str], list[list[str]]]:
    """Return one row per model and method, with two columns for each target."""
    targets = list(dict.fromkeys(item.target for item in reached))
    head = ["model", "method", "n", "budgets run"]
    for target in targets:
        head += [f"{100 * target.accuracy:g} %: mean", "best"]
    lines: dict[tuple[str, str], list[str]] = {}
    for item in reached:
        tried = f"{item.tried[0]} to {item.tried[-1]}" if len(item.tried) > 1 else str(item.tried[0])
        own = [item.model, item.method, _runs(item.n, item.planned), tried]
        line = lines.setdefault((item.model, item.method), own)
        line += [DASH if first is None else str(first) for first in (item.by_mean, item.by_best)]
    known = ["optimum, at most", "", "", ""]
    for target in targets:
        known += [str(target.weights), ""]
    return head, [known, *lines.values()]


def _budget_text(reached: Sequence[Reached]) -> str:
    if not reached:
        return "No run is finished."
    note = (
        "Smallest number of kept weights at which the mean over the n runs, and at which the best of them, reaches the"
        f" accuracy; {DASH}: none of the budgets that were run. `dense`: the network without pruning."
    )
    sources = "\n".join(
        f"- {item.accuracy * 100:g} %: {item.weights} weights, {item.source}"
        for item in dict.fromkeys(one.target for one in reached)
    )
    return "\n\n".join([table(*_budget_cells(reached)), note, f"Bounds of the optimum:\n\n{sources}"])


def table(head: list[str], body: list[list[str]]) -> str:
    rows = [[cell.replace("|", "\\|") for cell in row] for row in (head, *body)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
             for row in rows]  # fmt: skip
    return "\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]])


def latex(reproduction: Reproduction, judged: Sequence[Judged], reached: Sequence[Reached]) -> str:
    """Format the verdicts, or the smallest budgets, as a booktabs table for \\input."""
    head, body, notes = _latex_cells(judged) if judged else (*_budget_cells(reached), [])
    caption = " ".join([reproduction.summary, *([RULE] if judged else []), *notes])
    label = r"p{0.24\linewidth}" if max((len(line[0]) for line in body), default=0) > _LABEL else "l"
    lines = [
        "% needs \\usepackage{booktabs}",
        r"\begin{table}",
        r"\centering\footnotesize\setlength{\tabcolsep}{3pt}",
        rf"\caption{{{escape(caption)}}}",
        rf"\begin{{tabular}}{{{label}{'l' * (len(head) - 1)}}}",
        r"\toprule",
        _latex_row(head),
        r"\midrule",
        *map(_latex_row, body),
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _latex_cells(judged: Sequence[Judged]) -> tuple[list[str], list[list[str]], list[str]]:
    """Return head and rows that fit the width of a page, and sentences for what is moved to the caption.

    These are other reproductions, and the measure and the number of published runs where all entries share them.
    """
    head, body = _verdict_cells(judged)
    columns, notes = dict(zip(head, map(list, zip(*body, strict=True)), strict=True)), []
    others = columns.pop("others", [])
    found = [f"{label}: {other}" for label, other in zip(columns["entry"], others, strict=False) if other]
    if len(measures := set(columns["measure (%)"])) == 1:
        del columns["measure (%)"]
        notes.append(f"Measure: {measures.pop()} (%).")
    if len(runs := {item.entry.n for item in judged}) == 1 and None not in runs:
        columns["published"] = [text.partition(" (n = ")[0] for text in columns["published"]]
        notes.append(f"Published: n = {runs.pop()}.")
    if found:
        notes.append(f"Other reproductions: {'; '.join(found)}.")
    return list(columns), [list(line) for line in zip(*columns.values(), strict=True)], notes


def _latex_row(cells: Sequence[Any]) -> str:
    # LaTeX would take a [ at the start of a row for an argument of the \\ before it.
    first, *others = (escape(str(cell)) for cell in cells)
    return " & ".join([row_start(first), *others]) + r" \\"
