"""Objections to the number of runs: few or unequal seeds, missing runs, failed runs, undecided controls."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import pandas as pd

from pai_bench.analysis.check.objection import Objection, counted, panel_name, places, seed_list, sweep
from pai_bench.analysis.columns import PANEL, POINT
from pai_bench.analysis.labels import per_cent
from pai_bench.cells import MethodSpec

MIN_SEEDS = 3
"""Smallest number of seeds that is accepted without objection."""
SUGGESTED_SEEDS = "0-4"
"""Seeds in remedies; five, because three cannot show the usual differences of half a point."""


def few_seeds(points: pd.DataFrame) -> Iterator[Objection]:
    """Object to points with fewer than MIN_SEEDS runs."""
    few = points[(points["n"] > 0) & (points["n"] < MIN_SEEDS)]
    if len(few):
        yield Objection(
            "few-seeds",
            f"{counted(len(few), 'point')} with fewer than {MIN_SEEDS} seeds",
            f"run more seeds: {sweep(few, seeds=SUGGESTED_SEEDS)}",
            places(few, [f"n = {n}" for n in few["n"]]),
        )


def unequal_seeds(points: pd.DataFrame) -> Iterator[Objection]:
    """Object to panels whose points have different sets of seeds."""
    odd, panels = [], []
    for _, panel in points[points["n"] > 0].groupby([*PANEL, "source"], sort=False):
        (usual, _), *others = Counter(panel["seeds"]).most_common()
        if others:
            odd.append(panel[panel["seeds"] != usual])
            panels.append(panel)
    if odd:
        found = pd.concat(odd)
        yield Objection(
            "unequal-seeds",
            f"{counted(len(found), 'point')} with other seeds than most points of the panel, so that means differ in"
            " their seeds as well",
            f"run the seeds that are missing: {sweep(pd.concat(panels))}",
            places(found, [f"seeds {seed_list(seeds)}" for seeds in found["seeds"]]),
        )


def missing_runs(missing: pd.DataFrame) -> Iterator[Objection]:
    """Object to planned runs without a result."""
    if len(missing):
        states = Counter(missing["state"])
        yield Objection(
            "missing-runs",
            f"{counted(len(missing), 'planned run')} without a result"
            f" ({', '.join(f'{count} {state}' for state, count in states.items())})",
            "run the sweep again, with --retry failed for failed runs, or report the failures",
            _missing_places(missing),
        )


def _missing_places(missing: pd.DataFrame) -> tuple[str, ...]:
    seeds = missing.groupby([*POINT, "state"], sort=False)["seed"].agg(list).reset_index()
    return places(seeds, [f"{row['state']}: seeds {seed_list(row['seed'])}" for _, row in seeds.iterrows()])


def failed_runs_in_means(points: pd.DataFrame) -> Iterator[Objection]:
    """Object to means over failed runs and others. Points of which all runs failed have one population."""
    failed = points["collapsed"] + points["diverged"] + points["at_chance"]
    mixed = points[(failed > 0) & (failed < points["runs"])]
    if len(mixed):
        yield Objection(
            "failed-runs-in-mean",
            f"{counted(len(mixed), 'mean')} over runs that trained and runs that collapsed, diverged or stayed at"
            " chance",
            "state the number of failed runs and show the single runs; a mean of two populations describes neither",
            places(mixed, [f"{_failures(row)} of {row['runs']}" for _, row in mixed.iterrows()]),
        )


def undecided_controls(comparison: pd.DataFrame) -> Iterator[Objection]:
    """Object to controls for which neither a difference nor equivalence is shown at this number of seeds."""
    if comparison.empty:
        return
    failures = comparison["collapsed"] + comparison["diverged"] + comparison["at_chance"]
    fails = (failures == comparison["n"]) & (comparison["failed_of_method"] == 0)  # although the method never fails
    different = (comparison["low"] > 0) | (comparison["high"] < 0) | fails
    undecided = comparison[~comparison["equivalent"] & ~different]
    where, most = [], 0
    for (source, method, control, *key), rows in undecided.groupby(["source", "method", "control", *PANEL], sort=False):
        needed = int(rows["seeds_needed"].fillna(0).max())
        most = max(most, needed)
        title = panel_name(pd.Series({**dict(zip(PANEL, key, strict=True)), "source": source}))
        at = ", ".join(map(per_cent, rows["sparsity"]))
        suggestion = f"; about {needed} needed" if needed else ""
        spec = replace(MethodSpec.parse(method), control=control)
        where.append(f"{title}: {spec} at {at} % (n = {_range(rows['n'])}{suggestion})")
    if where:
        yield Objection(
            "undecided-controls",
            f"{counted(len(where), 'control')} for which neither a difference nor equality within"
            f" {100 * comparison['margin'].iloc[0]:g} points is shown",
            f"run about {most} seeds, or claim neither" if most else "run more seeds, or claim neither",
            tuple(where),
        )


def _failures(row: pd.Series) -> str:
    counts = ((row["collapsed"], "collapsed"), (row["diverged"], "diverged"), (row["at_chance"], "at chance"))
    return ", ".join(f"{count} {name}" for count, name in counts if count)


def _range(values: pd.Series) -> str:
    low, high = values.min(), values.max()
    return str(low) if low == high else f"{low} to {high}"
