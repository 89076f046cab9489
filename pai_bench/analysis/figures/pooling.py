"""Data of the summary figure: normalised accuracies, probabilities of improvement, and ranks over settings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from pai_bench.analysis import inference
from pai_bench.analysis.columns import PANEL
from pai_bench.analysis.figures.material import Material, Setting
from pai_bench.analysis.labels import SAME_NETWORK
from pai_bench.cells import DENSE

Array = np.ndarray

MIN_METHODS = 3
"""Smallest number of methods that can be ranked."""


@dataclass(frozen=True)
class Stratum:
    """Runs of all methods in one setting at one sparsity."""

    setting: Setting
    sparsity: float
    raw: dict[str, Array]
    """Accuracies [runs] by method, as fractions."""
    normalised: dict[str, Array]
    """(accuracy - chance) / (dense - chance) [runs] by method; empty without a dense result or chance."""


@dataclass(frozen=True)
class Pool:
    """Strata of one source, recipe and epoch, in which every method has results."""

    source: str
    recipe: str
    methods: tuple[str, ...]
    strata: tuple[Stratum, ...]
    left_out: tuple[str, ...] = field(default=())
    """Methods that lack results in some setting."""
    repeated: tuple[str, ...] = field(default=())
    """Models that are another one under a second name."""

    @property
    def settings(self) -> list[Setting]:
        """The settings, which are data sets and networks that really differ."""
        return list(dict.fromkeys(stratum.setting for stratum in self.strata))

    @property
    def normalised(self) -> list[Stratum]:
        """The strata with normalised accuracies."""
        return [stratum for stratum in self.strata if stratum.normalised]


def pool(material: Material) -> Pool | None:
    """Return the pool with the most settings; None without two methods that share a sparsity of a setting.

    Results of several sources, recipes or epochs are never pooled, and a network with two names counts once.
    """
    groups: dict[tuple[str, str], list[Setting]] = {}
    for setting in material.settings:
        for source in material.runs_of(setting)["source"].unique():
            groups.setdefault((source, setting.recipe), []).append(setting)
    pools = [found for key, settings in groups.items() if (found := _pool(material, *key, settings))]
    # Settings come first, because strata of one setting are not independent.
    return max(pools, key=lambda one: (len(one.settings), len(one.strata)), default=None)


def _pool(material: Material, source: str, recipe: str, settings: Sequence[Setting]) -> Pool | None:
    distinct: dict[tuple[str, str], Setting] = {}
    repeated = []
    for setting in settings:
        key = (setting.dataset, SAME_NETWORK.get(setting.model, setting.model))
        if key in distinct and setting.model != key[1]:
            repeated.append(setting.model)
            continue
        if key in distinct:
            repeated.append(distinct[key].model)
        distinct[key] = setting
    held = {setting: _accuracies(material, source, setting) for setting in distinct.values()}
    held = {setting: found for setting, found in held.items() if len(found) > 1}
    if not held:
        return None
    shared = [m for m in material.methods if all(m in found for found in held.values())]
    if len(shared) < 2:
        return None
    strata = []
    for setting, found in held.items():
        chance, dense = material.chance(setting), _dense(material, source, setting)
        # A dense network at chance would divide by zero or turn the order of the methods around.
        usable = math.isfinite(chance) and math.isfinite(dense) and dense > chance
        for sparsity in sorted(set.intersection(*(set(found[m]) for m in shared))):
            raw = {m: found[m][sparsity] for m in shared}
            scaled = {m: inference.normalise(values, chance, dense) for m, values in raw.items()} if usable else {}
            strata.append(Stratum(setting, sparsity, raw, scaled))
    left_out = tuple(m for m in material.methods if m not in shared and any(m in f for f in held.values()))
    unique = tuple(dict.fromkeys(repeated))
    return Pool(source, recipe, tuple(shared), tuple(strata), left_out, unique) if strata else None


def _accuracies(material: Material, source: str, setting: Setting) -> dict[str, dict[float, Array]]:
    runs = material.runs_of(setting)
    runs = runs[(runs["source"] == source) & runs["method"].isin(material.methods) & runs["counted"].notna()]
    found: dict[str, dict[float, Array]] = {}
    for (method, sparsity), values in runs.groupby(["method", "sparsity"], sort=False)["counted"]:
        found.setdefault(method, {})[float(sparsity)] = values.to_numpy(dtype=float)
    return found


def _dense(material: Material, source: str, setting: Setting) -> float:
    runs = material.runs_of(setting)
    dense = runs[(runs["method"] == DENSE) & (runs["source"] == source)]["counted"].dropna()
    return float(dense.mean()) if len(dense) else math.nan


def has_strata(found: Pool) -> bool:
    """Return True if there are enough strata for the interquartile mean and its interval."""
    return len(found.normalised) >= inference.MIN_STRATA


def can_rank(found: Pool) -> bool:
    """Return True if there are enough settings and methods for mean ranks."""
    return len(found.settings) >= inference.MIN_BLOCKS and len(found.methods) >= MIN_METHODS


def fewest_seeds(found: Pool) -> int:
    """Return the smallest number of runs of a method in a stratum with normalised accuracies."""
    return min(len(values) for stratum in found.normalised for values in stratum.normalised.values())


def coverage(seeds: int) -> float:
    """Return the simulated coverage of the interval of the interquartile mean; NaN where it is not printed."""
    known = [share for n, share in inference.IQM_COVERAGE.items() if n <= seeds]
    return known[-1] if known else math.nan


def interval_words(found: Pool) -> str:
    """Return the description of the interval of the interquartile mean, or the reason why there is none."""
    seeds, fewest = fewest_seeds(found), min(inference.IQM_COVERAGE)
    if seeds < fewest:
        return f"without an interval, because some pairs have fewer than {fewest} seeds"
    known = max(n for n in inference.IQM_COVERAGE if n <= seeds)
    return (
        "with the percentile interval of a stratified bootstrap over the seeds of these settings, nominally 95 %, which"
        f" contains the true value in {100 * coverage(seeds):.0f} % of simulations with {known} seeds"
    )


def failed_words(material: Material, found: Pool) -> str:
    """Return how many of the runs of a pool failed, "" for none."""
    runs = material.runs
    kept = (runs["source"] == found.source) & (runs["recipe"] == found.recipe) & runs["method"].isin(found.methods)
    runs = runs[kept & runs["counted"].notna()]
    shown = {(*stratum.setting, stratum.sparsity) for stratum in found.strata}
    keys = runs[[*PANEL, "sparsity"]].itertuples(index=False, name=None)
    runs = runs[[key in shown for key in keys]]
    failed = int(((runs["status"] != "ok") | runs["at_chance"]).sum()) if "at_chance" in runs else 0
    words = f"{failed} of {len(runs)} runs collapsed, diverged or are at chance; they count at their accuracy"
    return words if failed else ""


def described(material: Material) -> list[str]:
    """Return the sentences of the methods paragraph on the procedures of the summary figure."""
    found = pool(material)
    parts: list[str] = []
    if found is not None and has_strata(found):
        parts.append(
            f"Over {len(found.normalised)} pairs of setting (data set and network) and sparsity, accuracies normalised"
            " as (accuracy − chance)/(dense − chance) are summarised by their interquartile mean [[agarwal2021]],"
            f" {interval_words(found)}, and by performance profiles. Probabilities of improvement are computed on raw"
            " accuracies, with ties as one half."
        )
    if found is not None and can_rank(found):
        parts.append(
            "Methods are ranked by the area under the mean accuracy over log density, with one block per setting"
            f" ({len(found.settings)} settings) [[demsar2006]]; we report the Friedman test [[friedman1937]] and"
            " Nemenyi's critical difference at 5 % [[nemenyi1963]]."
        )
    return parts


def iqm(found: Pool) -> dict[str, tuple[float, float, float]]:
    """Return the interquartile mean of each method with its stratified bootstrap interval: (value, low, high).

    The interval is NaN where a stratum has too few seeds.
    """
    has_interval = math.isfinite(coverage(fewest_seeds(found)))
    by_method = {m: [stratum.normalised[m] for stratum in found.normalised] for m in found.methods}
    return {
        m: (
            inference.iqm(np.concatenate(strata)),
            *(inference.iqm_interval(strata) if has_interval else (math.nan, math.nan)),
        )
        for m, strata in by_method.items()
    }


def improvement(found: Pool, over: str) -> dict[str, float]:
    """Return P(`over` > method) on raw accuracies for each other method, averaged over the strata."""
    ours = [stratum.raw[over] for stratum in found.strata]
    return {
        m: inference.probability_of_improvement(ours, [stratum.raw[m] for stratum in found.strata])
        for m in found.methods
        if m != over
    }


def ranks(found: Pool) -> inference.Ranks:
    """Rank the methods over the settings by the area under the mean accuracy over log density."""
    table = []
    for setting in found.settings:
        own = [stratum for stratum in found.strata if stratum.setting == setting]
        density = [1 - stratum.sparsity for stratum in own]
        table.append([inference.area(density, [stratum.raw[m].mean() for stratum in own]) for m in found.methods])
    return inference.rank(np.array(table))
