r"""All numbers of a report as TeX macros: \paibench{method}{dataset}{model}{sparsity}{statistic}."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import pandas as pd

from pai_bench.analysis.comparison import is_testable
from pai_bench.analysis.difference_tables import p_text
from pai_bench.analysis.labels import decimals

_HEAD = r"""% Numbers of a pai-bench report. \input this file, then write, for instance,
%   \paibench{METHOD}{DATASET}{MODEL}{SPARSITY}{mean}
% Statistics of a point: mean, std, pm (mean and std), n, low and high (range of the runs), collapsed, diverged,
% at-chance (numbers of runs); accuracies in per cent. SPARSITY is a fraction, 0 for dense. There is no std and no pm
% for one seed and where a run collapsed, diverged or is at chance.
% Differences to the baseline in points: with SPARSITY all (the mean over the common sparsities), difference, low and
% high (95 % interval), n, p, p-smallest, p-holm, failed, runs; with DATASET and MODEL all, pooled over n settings.
% There is no low and no high without an interval: one seed; failed of the runs of the method and the baseline
% collapsed, diverged or are at chance; fewer than six settings. There is no p and no p-holm where they could not be
% below 0.05.
% With several recipes or sources, give them first: \paibench[RECIPE]{...} or \paibench[RECIPE@SOURCE]{...}
% In names, \ { } % # & ^ ~ and characters beyond ASCII are replaced by a hyphen. An unknown key is an error.
\makeatletter
\def\paibench@key#1{\csname paibench/\detokenize{#1}\endcsname}
\def\paibench@set#1#2{\expandafter\gdef\csname paibench/\detokenize{#1}\endcsname{#2}}
\providecommand{\paibench}[6][]{%
  \ifcsname paibench/\detokenize{#1/#2/#3/#4/#5/#6}\endcsname
    \paibench@key{#1/#2/#3/#4/#5/#6}%
  \else
    \PackageError{paibench}{no number has the key \detokenize{#1/#2/#3/#4/#5/#6}}{See the keys in numbers.tex.}%
    \textbf{??}%
  \fi}
"""


def numbers_tex(points: Sequence[Any], compared: pd.DataFrame, pooled: pd.DataFrame) -> str:
    """Return the file numbers.tex for points (rows of a summary), comparisons per panel, and pooled comparisons."""
    found = [*_points(points)]
    for line in compared.to_dict("records"):
        address = (line["method"], line["dataset"], line["model"], "all")
        found.append((address, line["recipe"], line["source"], _difference(line)))
    for line in pooled.to_dict("records"):
        found.append(((line["method"], "all", "all", "all"), line["recipe"], line["source"], _difference(line)))
    named = [("/".join(map(key_part, address)), key_part(recipe), key_part(source), values)
             for address, recipe, source, values in found]  # fmt: skip
    plain = Counter(path for path, *_ in named)
    by_recipe = Counter((path, recipe) for path, recipe, *_ in named)
    texts = []
    for path, recipe, source, values in named:
        keys = [f"/{path}"] * (plain[path] == 1)
        keys += [f"{recipe}/{path}"] * (recipe != "" and by_recipe[path, recipe] == 1)
        keys += [f"{recipe}@{source}/{path}"] * (source != "" and plain[path] > 1)
        lines = [f"{name}}}{{{value}}}" for name, value in values.items()]
        for key in keys:
            start = rf"\paibench@set{{{key}/"
            texts.append(start + f"\n{start}".join(lines))
    return _HEAD + "\n".join(dict.fromkeys(texts)) + "\n\\makeatother\n"


@cache
def key_part(text: str) -> str:
    """Return a name as it is written in a key: ASCII without TeX's special characters."""
    ascii_only = unicodedata.normalize("NFKD", text)
    return re.sub(r"[^ -~]|[\\{}%#&^~]", "-", "".join(c for c in ascii_only if not unicodedata.combining(c)))


def _points(points: Sequence[Any]) -> Iterator[tuple[tuple[str, ...], str, str, dict[str, str]]]:
    sparsities = {value: f"{value:.6g}" for value in dict.fromkeys(point.sparsity for point in points)}
    repeated = {text for text, count in Counter(sparsities.values()).items() if count > 1}
    texts = {value: repr(float(value)) if text in repeated else text for value, text in sparsities.items()}
    for point in points:
        if point.n:
            address = (point.method, point.dataset, point.model, texts[point.sparsity])
            yield address, point.recipe, point.source, _statistics(point)


def _statistics(point: Any) -> dict[str, str]:
    digits = decimals(point.std)
    mean = f"{100 * point.mean:.{digits}f}"
    values = {"mean": mean, "n": str(point.n), "low": f"{100 * point.low:.2f}", "high": f"{100 * point.high:.2f}"}
    if point.std == point.std:
        std = f"{100 * point.std:.{digits}f}"
        values |= {"std": std, "pm": rf"{mean} \ensuremath{{\pm}} {std}"}
    counts = {"collapsed": point.collapsed, "diverged": point.diverged, "at-chance": point.at_chance}
    return values | {name: str(count) for name, count in counts.items()}


def _difference(line: dict[str, Any]) -> dict[str, str]:
    """Return the statistics of a comparison; p values only where they could have been below 0.05."""
    values = {"difference": _signed(line["difference"]), "p-smallest": p_text(line["p_smallest"])}
    values["n"] = str(line["n"] if "n" in line else line["settings"])
    values |= {"failed": str(line["failed"]), "runs": str(line["runs"])}
    if line["low"] == line["low"]:
        values |= {"low": _signed(line["low"]), "high": _signed(line["high"])}
    if is_testable(line):
        values |= {"p": p_text(line["p"]), "p-holm": p_text(line["p_holm"])}
    return values


def _signed(fraction: float) -> str:
    # In text mode LaTeX would print a hyphen; \ensuremath works in both modes.
    return f"{round(100 * fraction, 2) + 0.0:.2f}".replace("-", r"\ensuremath{-}")
