"""Comparison of every method with a baseline, by paired differences: per panel, and pooled over settings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from pai_bench.analysis import inference
from pai_bench.analysis.columns import PANEL
from pai_bench.analysis.inference.intervals import Array
from pai_bench.analysis.labels import SAME_NETWORK
from pai_bench.analysis.series import Run, Runs, Series, paired_runs
from pai_bench.analysis.style import by_value

BASELINE = "erk"
"""Default baseline of the comparison: random masks with the layer densities of ERK."""

COMPARED = ["source", "method", *PANEL, "epoch", "baseline", "baseline_source", "n", "sparsities", "dropped", "failed"]
COMPARED += ["runs", "difference", "std", "low", "high", "p", "p_smallest", "p_holm", "comparisons", "seeds_needed"]
"""Columns of `compare`."""

POOLED = ["source", "method", "recipe", "epoch", "baseline", "settings", "units", "failed", "runs", "difference"]
POOLED += ["p", "p_smallest", "p_holm", "low", "high", "p_settings", "p_settings_smallest", "p_settings_holm"]
POOLED += ["comparisons"]
"""Columns of `pool`."""


@dataclass(frozen=True)
class Paired:
    """Differences of one method to the baseline in one panel."""

    series: Series
    epoch: str
    baseline: Series
    seeds: tuple[int, ...]
    sparsities: tuple[float, ...]
    """Sparsities at which both have a run of each of these seeds."""
    differences: Array
    """Mean over the sparsities of the difference in accuracy, by seed [seeds]."""
    dropped: tuple[int, ...]
    """Seeds with a run of the method or the baseline that are not in all pairs."""
    failed: int
    """Number of used runs of the method and the baseline that collapsed, diverged or are at chance."""
    runs: int
    """Number of used runs of the method and the baseline."""


def pairs(runs: Runs, epochs: dict[str, str], baseline: str = BASELINE) -> list[Paired]:
    """Pair every method with the baseline of its panel and epoch: at equal sparsity, seed and initial weights.

    The baseline of the same source is used, else the one of the results folder, else the first. Controls and dense
    runs are not compared. `epochs`: epoch by source.
    """
    baselines: dict[tuple[tuple[str, str, str], str], list[Series]] = {}
    for series in runs:
        if series.method == baseline:
            baselines.setdefault((series.panel, epochs[series.source]), []).append(series)
    found = []
    for series, points in runs.items():
        if series.is_reference or series.method == baseline:
            continue
        others = baselines.get((series.panel, epochs[series.source]), [])
        others = sorted(others, key=lambda other: (other.source != series.source, other.source))
        if others and (pair := _pair(series, epochs[series.source], others[0], points, runs[others[0]])):
            found.append(pair)
    return sorted(found, key=lambda one: (one.series.panel, one.series.source, by_value(one.series.method)))


def _pair(
    series: Series,
    epoch: str,
    baseline: Series,
    points: dict[float, dict[int, Run]],
    others: dict[float, dict[int, Run]],
) -> Paired | None:
    by_sparsity = {
        sparsity: paired
        for sparsity in sorted(points.keys() & others.keys())
        if (paired := paired_runs(points[sparsity], others[sparsity]))
    }
    if not by_sparsity:
        return None
    # Every seed needs the same sparsities: choose the seeds that keep the most pairs.
    options = []
    for common_methods in {frozenset(paired) for paired in by_sparsity.values()}:
        held = tuple(sparsity for sparsity, paired in by_sparsity.items() if common_methods <= paired.keys())
        options.append((len(held) * len(common_methods), len(common_methods), sorted(common_methods), held))
    # Tuples, so that equal numbers of pairs are decided by more seeds, and the result is the same in every run.
    _, _, seeds, sparsities = max(options)
    used = [[by_sparsity[sparsity][seed] for sparsity in sparsities] for seed in seeds]
    differences = np.array([[ours.counted - theirs.counted for ours, theirs in line] for line in used])
    every = {seed for side in (points, others) for runs in side.values() for seed in runs}
    return Paired(
        series=series,
        epoch=epoch,
        baseline=baseline,
        seeds=tuple(seeds),
        sparsities=sparsities,
        differences=differences.mean(axis=1),
        dropped=tuple(sorted(every - set(seeds))),
        failed=sum(ours.failed + theirs.failed for line in used for ours, theirs in line),
        runs=2 * differences.size,
    )


def compare(found: Iterable[Paired]) -> pd.DataFrame:
    """Compare methods with the baseline: one row per method and panel, with the columns COMPARED.

    difference, std, low, high: mean paired difference (fraction), its deviation (ddof 1) and 95 % t interval; NaN with
    one seed, and where a run failed. `failed` of the used `runs` collapsed, diverged or are at chance; they count
    at their accuracy, or at chance where none was recorded. p: two-sided sign flip; p_smallest: the smallest p that
    these differences could reach; p_holm: adjusted over the `comparisons` methods of the panel. seeds_needed: the
    number of seeds from which p_holm can be below 0.05. dropped: seeds without a complete pair, as text.
    """
    lines = []
    for pair in found:
        interval = inference.t_interval(pair.differences)
        flip = inference.sign_flip(pair.differences)
        sound = pair.failed == 0
        lines.append(
            {
                **_address(pair),
                "baseline_source": pair.baseline.source,
                "n": interval.n,
                "sparsities": len(pair.sparsities),
                "dropped": " ".join(map(str, pair.dropped)),
                "failed": pair.failed,
                "runs": pair.runs,
                "difference": interval.mean,
                # Failed runs are another population, for whose mixture a t interval does not hold.
                "std": interval.std if sound else np.nan,
                "low": interval.low if sound else np.nan,
                "high": interval.high if sound else np.nan,
                "p": flip.p,
                "p_smallest": flip.smallest,
            }
        )
    return _with_holm(pd.DataFrame(lines, columns=COMPARED), [*PANEL, "epoch"], {"p_holm": "p"})


def is_testable(row: Mapping[str, Any], smallest: str = "p_smallest") -> bool:
    """Return True if the adjusted p of a row of `compare` or `pool` could have been below 0.05.

    smallest: the column of the smallest p before the adjustment.
    """
    return bool(row["comparisons"] * row[smallest] < inference.LEVEL)


def testable(table: pd.DataFrame) -> pd.Series:
    """Return `is_testable` of each row of `compare` or `pool`."""
    return table["comparisons"] * table["p_smallest"] < inference.LEVEL


def pool(found: Iterable[Paired]) -> pd.DataFrame:
    """Pool the comparisons of a recipe over settings: one row per method with two settings or more (POOLED).

    A setting is a data set and a network; a network that has two names counts once, under the first. p refers to these
    settings (sign flips of every setting and seed). From six settings on, low and high (95 % t interval) and
    p_settings (sign flips of the settings' means) refer to new data sets and networks; with fewer they are NaN. Failed
    runs (`failed` of `runs`) count in the means of their settings, which are the units of the interval.
    """
    groups: dict[tuple[str, str, str, str, str], dict[tuple[str, str], Paired]] = {}
    for pair in found:
        series = pair.series
        key = (series.source, series.method, series.recipe, pair.epoch, pair.baseline.method)
        setting = (series.dataset, SAME_NETWORK.get(series.model, series.model))
        settings = groups.setdefault(key, {})
        if setting not in settings or series.model == setting[1]:
            settings[setting] = pair
    lines = []
    for key, settings in groups.items():
        if len(settings) < 2:
            continue
        result = inference.pooled([pair.differences for pair in settings.values()])
        line: dict[str, Any] = dict(zip(("source", "method", "recipe", "epoch", "baseline"), key, strict=True))
        line |= {"settings": len(settings), "units": result.seeds.n, "difference": result.estimate}
        line |= {"failed": sum(pair.failed for pair in settings.values())}
        line |= {"runs": sum(pair.runs for pair in settings.values())}
        line |= {"p": result.seeds.p, "p_smallest": result.seeds.smallest}
        # With fewer settings no p about new settings could be below 0.05.
        if len(settings) >= inference.MIN_BLOCKS:
            line |= {"low": result.interval.low, "high": result.interval.high}
            line |= {"p_settings": result.settings.p, "p_settings_smallest": result.settings.smallest}
        lines.append(line)
    table = pd.DataFrame(lines, columns=POOLED)
    return _with_holm(table, ["recipe", "epoch"], {"p_holm": "p", "p_settings_holm": "p_settings"})


def _address(pair: Paired) -> dict[str, str]:
    series = pair.series
    return {
        "source": series.source,
        "method": series.method,
        **dict(zip(PANEL, series.panel, strict=True)),
        "epoch": pair.epoch,
        "baseline": pair.baseline.method,
    }


def _with_holm(table: pd.DataFrame, family: list[str], adjusted: dict[str, str]) -> pd.DataFrame:
    """Fill the adjusted p values, the number of comparisons and the seeds needed by family."""
    sizes = np.zeros(len(table), dtype=int)
    corrected = {column: np.full(len(table), np.nan) for column in adjusted}
    for places in table.groupby(family, sort=False).indices.values():
        sizes[places] = len(places)
        for column, p in adjusted.items():
            values = table[p].to_numpy(dtype=float)[places]
            known = ~np.isnan(values)
            corrected[column][places[known]] = inference.holm(values[known])
    table = table.assign(comparisons=sizes, **corrected)
    if "seeds_needed" in table:
        table["seeds_needed"] = [inference.seeds_needed(size) for size in sizes]
    counts = ("n", "sparsities", "failed", "runs", "comparisons", "seeds_needed", "settings", "units")
    return table.astype({column: int for column in counts if column in table})
