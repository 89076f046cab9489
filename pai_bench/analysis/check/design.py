"""Objections to the design of a comparison: references, densities, recipes, data sets, networks."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from pai_bench.analysis.check.objection import Objection, panel_name, sweep
from pai_bench.analysis.columns import PANEL
from pai_bench.analysis.statistics import without_controls
from pai_bench.cells import DENSE

BASELINE = "erk"
"""Layer-wise random pruning, which a method must exceed to show that its scores matter."""
MIN_DENSITIES = 5
"""Smallest number of densities at which curves can be compared (Blalock et al. 2020, section 6)."""


def without_reference(points: pd.DataFrame) -> Iterator[Objection]:
    """Object to panels without the dense network, and to panels without ERK."""
    for method, code, why in (
        (DENSE, "no-dense", "the loss of accuracy by pruning is unknown"),
        (BASELINE, "no-erk", "a random mask with the same layer densities may do as well"),
    ):
        lacking = [panel for _, panel in _panels(points) if not (panel["method"] == method).any()]
        if lacking:
            rows = pd.concat(lacking)
            yield Objection(
                code,
                f"no results of {method}: {why}",
                sweep(rows, methods=[method]),
                tuple(panel_name(panel.iloc[0]) for panel in lacking),
            )


def few_densities(points: pd.DataFrame) -> Iterator[Objection]:
    """Object to panels with fewer than MIN_DENSITIES densities."""
    pruned = without_controls(points[points["sparsity"] > 0])
    counts = {panel_name(panel.iloc[0]): panel["sparsity"].nunique() for _, panel in _panels(pruned)}
    few = {name: count for name, count in counts.items() if count < MIN_DENSITIES}
    if few:
        rows = pd.concat([panel for _, panel in _panels(pruned) if panel_name(panel.iloc[0]) in few])
        yield Objection(
            "few-densities",
            f"fewer than {MIN_DENSITIES} densities: the order of methods at other densities is unknown",
            f"for example: {sweep(rows, sparsities='0.5,0.8,0.9,0.95,0.98')}",
            tuple(f"{name} ({count})" for name, count in few.items()),
        )


def mixed_recipes(points: pd.DataFrame) -> Iterator[Objection]:
    """Object to methods of one data set and network that were trained with different recipes."""
    where, rows = [], []
    for (dataset, model), both in without_controls(points).groupby(["dataset", "model"], sort=False):
        methods = {recipe: set(part["method"]) - {DENSE} for recipe, part in both.groupby("recipe", sort=False)}
        alone = {recipe: found - set.intersection(*methods.values()) for recipe, found in methods.items()}
        if any(alone.values()):
            shown = (
                f"{', '.join(sorted(found))} with {recipe or 'no recipe'}" for recipe, found in alone.items() if found
            )
            where.append(f"{dataset} · {model}: {'; '.join(shown)}")
            rows.append(both)
    if where:
        yield Objection(
            "mixed-recipes",
            "some methods were trained with one recipe and others with another, so that recipes explain differences",
            f"train all methods with every recipe: {sweep(pd.concat(rows))}",
            tuple(where),
        )


def single_setting(points: pd.DataFrame) -> Iterator[Objection]:
    """Object to results on one data set, or with one network."""
    for column, noun, other in (
        ("dataset", "data set", "--datasets cifar10,cifar100"),
        ("model", "network", "--models resnet20,vgg16-bn"),
    ):
        names = sorted(points[column].unique())
        if len(names) == 1:
            yield Objection(
                f"one-{column}",
                f"one {noun} only ({names[0]}): conclusions may not hold for others",
                f"add a second {noun}, for example with {other}, or limit the claim to this one",
            )


def unknown_information(points: pd.DataFrame) -> Iterator[Objection]:
    """Object to methods of which it is not known whether their masks saw training, beside methods that did not."""
    unknown = points[points["saw"].isin(["", "unknown"])]
    names = {panel_name(row): sorted(set(rows["method"])) for row, rows in _named(unknown)}
    if names:
        yield Objection(
            "unknown-information",
            "it is not known whether some masks were found during training: they may be upper bounds, not competitors",
            'state it in a column `saw` of the table ("nothing", "inputs", "labels" or "9 epochs"); for masks from'
            " files, in the caption",
            tuple(f"{panel}: {', '.join(methods)}" for panel, methods in names.items()),
        )


def _named(points: pd.DataFrame) -> Iterator[tuple[pd.Series, pd.DataFrame]]:
    """Yield the first row and all rows of each panel and source."""
    for _, rows in points.groupby([*PANEL, "source"], sort=False):
        yield rows.iloc[0], rows


def _panels(points: pd.DataFrame) -> Iterator[tuple[object, pd.DataFrame]]:
    """Yield the results of each panel. Tables are combined with the results folder, as in the figures."""
    yield from points.groupby(PANEL, sort=False)
