"""The objection, and its texts: points, panels, and the sweep that would resolve it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pandas as pd

from pai_bench.analysis.columns import OURS
from pai_bench.analysis.labels import panel_title, per_cent, series_label
from pai_bench.cells import DENSE


@dataclass(frozen=True)
class Objection:
    """A weakness of the results, with its remedy."""

    code: str
    """Stable name of the rule, for scripts."""
    cause: str
    remedy: str
    where: tuple[str, ...] = ()
    """Points, panels or files concerned; empty if the cause concerns the whole report."""


def counted(number: int, noun: str) -> str:
    """Return a number with a noun, such as "1 result" or "2 results"."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def panel_name(row: pd.Series) -> str:
    """Return the title of the panel of a row, followed by the name of the table that it comes from."""
    return series_label(panel_title(row["dataset"], row["model"], row["recipe"]), row["source"], True)


def places(points: pd.DataFrame, details: Sequence[str]) -> tuple[str, ...]:
    """Name points and a detail of each, such as "digits · conv8 · quick: snip at 80, 90 % (n = 2)".

    Points of one method and panel with the same detail share a line.
    """
    found: dict[tuple[str, str, str], list[float]] = {}
    for (_, row), detail in zip(points.iterrows(), details, strict=True):
        found.setdefault((panel_name(row), row["method"], detail), []).append(row["sparsity"])
    return tuple(
        f"{panel}: {method}{'' if method == DENSE else f' at {_levels(levels)} %'} ({detail})"
        for (panel, method, detail), levels in found.items()
    )


def _levels(sparsities: Iterable[float]) -> str:
    return ", ".join(map(per_cent, sorted(set(sparsities))))


def seed_list(seeds: Iterable[float]) -> str:
    """Return seeds as --seeds takes them, such as "0-2,5"."""
    ranges: list[list[int]] = []
    for seed in sorted({int(seed) for seed in seeds}):
        if ranges and seed == ranges[-1][1] + 1:
            ranges[-1][1] = seed
        else:
            ranges.append([seed, seed])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in ranges)


def sweep(rows: pd.DataFrame, *, methods: Iterable[str] = (), seeds: str = "", sparsities: str = "") -> str:
    """Return the command that computes the cells of `rows`, with other methods, seeds or sparsities where given.

    Rows of tables are left out; without any row of the results folder, the text tells the user to extend the table.
    """
    ours = rows[rows["source"] == OURS]
    if ours.empty:
        return "add the rows to the table"
    pruned = ours[ours["method"] != DENSE]
    levels = sorted(pruned["sparsity"].unique())
    options = {
        "methods": ",".join(methods or sorted(pruned["method"].unique()) or [DENSE]),
        "datasets": ",".join(sorted(ours["dataset"].unique())),
        "models": ",".join(sorted(ours["model"].unique())),
        # Names of recipes contain the changed values, which the command takes as --set.
        "recipes": _recipes(ours["recipe"].unique()),
        "sparsities": sparsities or ",".join(f"{level:.12g}" for level in levels),
        "seeds": seeds or seed_list(_seeds(ours)),
    }
    return " ".join(["pai-bench sweep", *(f"--{option} {text}" for option, text in options.items() if text)])


def _seeds(rows: pd.DataFrame) -> list[float]:
    """Return the seeds of runs, or of points, which have a tuple of them."""
    if "seeds" in rows:
        return [seed for seeds in rows["seeds"] for seed in seeds]
    return list(rows["seed"])


def _recipes(names: Iterable[str]) -> str:
    """Return the value of --recipes, with the --set options of recipes whose name contains changed values."""
    bases, settings = set(), set()
    for name in names:
        base, *changes = name.split("+")
        bases.add(base)
        settings |= {f"--set {change}" for change in changes}
    return " ".join([",".join(sorted(bases)), *sorted(settings)])
