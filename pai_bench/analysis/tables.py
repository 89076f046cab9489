"""Tables for papers: mean ± sample deviation with n, as Markdown and LaTeX; and all numbers as CSV."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pandas as pd

from pai_bench.analysis.latex_text import escape, is_transliterated, row_start
from pai_bench.analysis.statistics import LEVEL, MARGIN, PANEL
from pai_bench.cells import canonical_sparsity, exact_sparsity

NONE = "–"

PAGE_WIDTH = 80
"""Width of a line of an article in characters of \\footnotesize."""
_TOST = f"two one-sided tests, p < {LEVEL:g}"


def panel_title(dataset: str, model: str, recipe: str) -> str:
    """Return the title of a panel."""
    return " · ".join(part for part in (dataset, model, recipe) if part)


def series_label(method: str, source: str, several_sources: bool) -> str:
    """Return the label of a series; with several sources, the label of a table's series includes its source."""
    return f"{method} [{source}]" if source and several_sources else method


def per_cent(sparsity: float) -> str:
    """Format a sparsity in per cent without superfluous digits, but never rounded to 100."""
    for digits in range(1, 12):
        text = f"{100 * sparsity:.{digits}f}".rstrip("0").rstrip(".")
        if digits >= 2 and abs(float(text) / 100 - sparsity) < 0.002 * (1 - sparsity):
            return text
        if math.isclose(float(text) / 100, sparsity, rel_tol=0, abs_tol=1e-12):
            return text
    return repr(100 * sparsity)


def csv(summary: pd.DataFrame) -> pd.DataFrame:
    """Return all points with their numbers and density; accuracies are fractions."""
    table = summary.assign(seeds=[" ".join(map(str, seeds)) for seeds in summary["seeds"]])
    densities = {value: canonical_sparsity(float(1 - exact_sparsity(value))) for value in table["sparsity"].unique()}
    density = table["sparsity"].map(densities)
    table.insert(table.columns.get_loc("sparsity") + 1, "density", density)
    return table


def markdown(summary: pd.DataFrame) -> str:
    """Format one table per panel: one row per series (the dense reference first), one column per sparsity."""
    return _markdown(summary, lambda point: _text(point, "±"), note(summary))


def controls_markdown(comparison: pd.DataFrame) -> str:
    """Format the differences between controls and methods in the same way, one row per control."""
    return _markdown(_by_control(comparison), lambda point: _difference(point, "{}"), _controls_note(comparison))


def _markdown(table: pd.DataFrame, entry: Callable[[Any], str], explained: str) -> str:
    parts = []
    for title, columns, lines in _panels(table):
        head = ["sparsity (%)", *columns]
        body = [[label.replace("|", "\\|"), *map(entry, points)] for label, points in lines]
        widths = [max(len(row[i]) for row in [head, *body]) for i in range(len(head))]
        rows = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
                for row in [head, *body]]  # fmt: skip
        rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
        parts.append("\n".join([f"### {title}", "", rows[0], rule, *rows[1:]]))
    return "\n\n".join([*parts, explained]) + "\n"


def measure(recipes: Iterable[str]) -> str:
    """Return the axis label for panels with these recipes; a recipe's name shows if it uses the validation split."""
    parts = {"validation" if "data.split=validation" in recipe else "test" for recipe in recipes}
    return f"{' or '.join(sorted(parts)).capitalize()} accuracy (%)"


def note(summary: pd.DataFrame) -> str:
    """Return the explanation of a table entry."""
    tied = " t: that many runs in which ties of the scores decide the mask." if summary["tied"].any() else ""
    return (
        f"{measure(summary['recipe'])} after the last epoch: mean ± sample standard deviation over seeds (n). "
        "(2 of 3): results are missing; c, d: that many runs with a collapsed layer, diverged."
        f"{tied}"
    )


def latex(summary: pd.DataFrame) -> str:
    """Format one booktabs table per panel, for \\input."""
    return _latex(summary, lambda point: _text(point, "\\pm"), note(summary))


def controls_latex(comparison: pd.DataFrame) -> str:
    """Format the differences between controls and methods as booktabs tables."""
    return _latex(_by_control(comparison), lambda point: _difference(point, "${}$"), _controls_note(comparison))


def _latex(table: pd.DataFrame, entry: Callable[[Any], str], explained: str) -> str:
    """Format one table per panel, in blocks of sparsities that fit the page width."""
    parts = []
    explained = explained.replace(_TOST, _TOST.replace("p <", "$p$ $<$"))
    explained = (
        explained.replace("%", r"\%")
        .replace("±", r"$\pm$")
        .replace("(n)", "($n$)")
        .replace("(n;", "($n$;")
        .replace("≈", r"$\approx$")
    )
    explained = explained.replace("c, d:", r"\emph{c}, \emph{d}:")
    for title, columns, lines in _panels(table):
        parts += [
            r"\begin{table}",
            r"\centering\footnotesize\setlength{\tabcolsep}{4pt}",
            rf"\caption{{{escape(title)}. {explained}}}",
        ]
        for block in _blocks(lines, len(columns), entry):
            shown = [(label, points[block]) for label, points in lines if any(p is not None for p in points[block])]
            body = [" & ".join([row_start(escape(label)), *map(entry, points)]) + r" \\" for label, points in shown]
            parts += [
                rf"\begin{{tabular}}{{l{'c' * len(columns[block])}}}",
                r"\toprule",
                " & ".join(["Sparsity (\\%)", *columns[block]]) + r" \\",
                r"\midrule",
                *body,
                r"\bottomrule",
                r"\end{tabular}" + (r"\par\medskip" if block.stop < len(columns) else ""),
            ]
        parts += [r"\end{table}", ""]
    head = "% needs \\usepackage{booktabs}\n"
    names = {text for title, _, lines in _panels(table) for text in (title, *(label for label, _ in lines))}
    if any(map(is_transliterated, names)):
        head += "% letters of other scripts are transliterated, for pdflatex has no fonts for them\n"
    return head + "\n".join(parts)


def _blocks(lines: list[tuple[str, list[Any]]], n_columns: int, entry: Callable[[Any], str]) -> Iterator[slice]:
    """Yield blocks of columns that fit beside the labels, at least one column each."""

    def width(texts: Iterable[str]) -> int:
        return max((len(re.sub(r"\\[a-z]+", "x", text).replace("$", "")) for text in texts), default=0) + 2

    first, used = 0, width(label for label, _ in lines)
    labels = used
    for column in range(n_columns):
        wide = width(entry(points[column]) for _, points in lines)
        if column > first and used + wide > PAGE_WIDTH:
            yield slice(first, column)
            first, used = column, labels
        used += wide
    yield slice(first, n_columns)


def _panels(summary: pd.DataFrame) -> Iterator[tuple[str, list[str], list[tuple[str, list[Any]]]]]:
    """Yield (title, sparsities in per cent, [(label, point or None by sparsity)]) for each panel."""
    for key, panel in summary.groupby(PANEL, sort=False):
        several = panel["source"].nunique() > 1
        sparsities = sorted(panel["sparsity"].unique())
        lines = []
        for (source, method), series in panel.groupby(["source", "method"], sort=False):
            points = {point.sparsity: point for point in series.itertuples()}
            lines.append((series_label(method, source, several), [points.get(sparsity) for sparsity in sparsities]))
        yield panel_title(*key), [per_cent(sparsity) for sparsity in sparsities], lines


def _text(point: Any, plus_minus: str) -> str:
    """Format one entry, as in "93.26 ± 0.12 (3)"."""
    math_mode = plus_minus.startswith("\\")
    dash = "--" if math_mode else NONE
    if point is None:
        return ""
    n = f"{point.n} of {point.planned}" if point.planned > point.runs else f"{point.n}"
    value = f"{100 * point.mean:.2f}"
    if point.std == point.std:  # none with one run, or with failed runs
        value += f" {plus_minus} {100 * point.std:.2f}"
    text = dash if point.n == 0 else f"${value}$" if math_mode else value
    return f"{text} ({', '.join([n, *_marks(point)])})"


def _marks(point: Any) -> list[str]:
    """Return the numbers of runs that collapsed, diverged, or have a mask decided by ties, as in "3c", "1d", "2t"."""
    counts = (point.collapsed, "c"), (point.diverged, "d"), (getattr(point, "tied", 0), "t")
    return [f"{count}{letter}" for count, letter in counts if count]


def _by_control(comparison: pd.DataFrame) -> pd.DataFrame:
    """Rename the methods so that each control becomes one row."""
    return comparison.assign(method=comparison["method"] + ", " + comparison["control"])


def _controls_note(comparison: pd.DataFrame) -> str:
    return (
        f"{measure(comparison['recipe'])} of the control minus that of the method, paired by seed: mean [95 % t "
        f"interval] (n; c, d: that many runs of the control with a collapsed layer, diverged). ≈: the same to within "
        f"{100 * MARGIN:g} points ({_TOST}, not corrected for the number of tests), never where the method's own runs "
        "collapse or diverge. Without the sign they need not differ: few seeds show little."
    )


def _difference(point: Any, number: str) -> str:
    """Format one entry, as in "-0.31 [-0.80, 0.18] (5) ≈"."""
    if point is None:
        return ""
    text = number.format(f"{_points(point.difference):+.2f}")
    if point.n > 1:
        text += f" [{number.format(f'{_points(point.low):.2f}')}, {number.format(f'{_points(point.high):.2f}')}]"
    sign = (r" $\approx$" if "$" in number else " ≈") if point.equivalent else ""
    return f"{text} ({', '.join([str(point.n), *_marks(point)])}){sign}"


def _points(fraction: float) -> float:
    """Convert a fraction to rounded percentage points without a negative zero."""
    return round(100 * fraction, 2) + 0.0
