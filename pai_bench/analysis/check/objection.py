"""The objection, and its texts: points, panels, and the sweep that would resolve it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
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


def sweep(
    rows: pd.DataFrame, *, methods: Iterable[str] = (), seeds: str = "", sparsities: str = "", redo: bool = False
) -> str:
    """Return the commands that compute the cells of `rows`, with other methods, seeds or sparsities where given.

    A sweep combines all of its data sets, models, recipes and settings, so that panels that are not such a product need
    several commands, joined by "&&". Rows of tables are left out; without any row of the results folder, the text tells
    the user to extend the table.
    """
    ours = rows[rows["source"] == OURS]
    if ours.empty:
        return "add the rows to the table"
    pruned = ours[ours["method"] != DENSE]
    names = ",".join(methods or sorted(pruned["method"].unique()) or [DENSE])
    return " && ".join(
        " ".join(["pai-bench sweep", *_options(part, names, seeds, sparsities), *["--redo"] * redo])
        for part in _products(ours)
    )


def _options(rows: pd.DataFrame, methods: str, seeds: str, sparsities: str) -> Iterator[str]:
    levels = sorted(rows.loc[rows["method"] != DENSE, "sparsity"].unique())
    # Names of recipes contain the changed values, which the command takes as --set.
    recipes = ",".join(sorted({base for base, *_ in rows["recipe"].str.split("+")}))
    changes = rows["recipe"].iloc[0].split("+")[1:]
    options = {
        "methods": methods,
        "datasets": ",".join(sorted(rows["dataset"].unique())),
        "models": ",".join(sorted(rows["model"].unique())),
        "recipes": " ".join([recipes, *(f"--set {change}" for change in changes)]),
        "sparsities": sparsities or ",".join(f"{level:.12g}" for level in levels),
        "seeds": seeds or seed_list(_seeds(rows)),
    }
    yield from (f"--{option} {text}" for option, text in options.items() if text)


def _products(rows: pd.DataFrame) -> list[pd.DataFrame]:
    """Divide rows into parts with equal settings in which every data set has the same models with every recipe."""
    datasets: dict[tuple[str, frozenset[str]], list[str]] = {}
    for (dataset, recipe), models in rows.groupby(["dataset", "recipe"], sort=False)["model"].agg(frozenset).items():
        datasets.setdefault((recipe, models), []).append(dataset)
    recipes: dict[tuple[str, frozenset[str], tuple[str, ...]], list[str]] = {}
    for (recipe, models), names in datasets.items():
        recipes.setdefault((recipe.partition("+")[2], models, tuple(names)), []).append(recipe)
    return [
        rows[rows["recipe"].isin(found) & rows["dataset"].isin(names) & rows["model"].isin(models)]
        for (_, models, names), found in recipes.items()
    ]


def _seeds(rows: pd.DataFrame) -> list[float]:
    """Return the seeds of runs, or of points, which have a tuple of them."""
    if "seeds" in rows:
        return [seed for seeds in rows["seeds"] for seed in seeds]
    return list(rows["seed"])
