"""Aggregates over settings: normalised accuracy, interquartile mean, profiles, ranks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from pai_bench.analysis.inference.intervals import LEVEL, Array, vector

MIN_STRATA = 10
"""Smallest number of strata for a stratified bootstrap interval."""
IQM_COVERAGE = {3: 0.850, 5: 0.898, 10: 0.930}
"""Simulated coverage of the nominal 95 % interval of the IQM of 12 strata, by number of seeds (docs/statistics.md).

The percentile bootstrap over few seeds is too short; below the smallest of these numbers, no interval is printed.
"""


@dataclass(frozen=True)
class Ranks:
    """Friedman test with Nemenyi's critical difference; rank 1 is the best."""

    mean_ranks: Array
    chi2: float
    p: float
    critical_difference: float


def normalise(accuracy: ArrayLike, chance: float, dense: float) -> Array:
    """(accuracy - chance) / (dense - chance): 0 at guessing, 1 at the mean of the dense network.

    Raises: ValueError when the dense network is not better than chance.
    """
    # Written with `not`, so that NaN is refused too.
    if not dense > chance:
        raise ValueError(f"dense accuracy {dense} is not above chance {chance}")
    return (np.asarray(accuracy, dtype=np.float64) - chance) / (dense - chance)


def iqm(values: ArrayLike) -> float:
    """Interquartile mean: the mean of the middle half of all values (Agarwal et al. 2021, arXiv:2108.13264)."""
    return float(_iqm_of_rows(np.asarray(values, dtype=np.float64).reshape(1, -1))[0])


def _iqm_of_rows(rows: Array) -> Array:
    from scipy.stats import trim_mean  # scipy.stats takes a second to import

    return np.asarray(trim_mean(rows, 0.25, axis=1))


def iqm_interval(
    strata: Sequence[ArrayLike], level: float = LEVEL, draws: int = 2_000, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval of the IQM over all values; values [n] are resampled within each stratum."""
    samples = [vector(stratum) for stratum in strata]
    generator = np.random.default_rng(seed)
    # Within strata, because settings are fixed and only the seeds are a sample.
    resampled = [sample[generator.integers(0, len(sample), (draws, len(sample)))] for sample in samples]
    low, high = np.quantile(_iqm_of_rows(np.concatenate(resampled, axis=1)), (level / 2, 1 - level / 2))
    return float(low), float(high)


def probability_of_improvement(ours: Sequence[ArrayLike], others: Sequence[ArrayLike]) -> float:
    """P(X > Y), ties as one half, averaged over tasks; element i of each is the raw accuracies [runs] of task i."""
    wins = []
    for x, y in zip(ours, others, strict=True):
        difference = np.subtract.outer(vector(x), vector(y))
        wins.append(float((difference > 0).mean() + (difference == 0).mean() / 2))
    return float(np.mean(wins))


def performance_profile(values: ArrayLike, thresholds: ArrayLike) -> Array:
    """Share of all normalised values above each threshold [t] (Agarwal et al. 2021)."""
    flat = np.asarray(values, dtype=np.float64).ravel()
    shares: Array = (flat[:, None] > np.asarray(thresholds, dtype=np.float64)).mean(axis=0)
    return shares


def spearman(x: ArrayLike, y: ArrayLike) -> float:
    """Spearman's rank correlation of `x` [n] and `y` [n], ties at their mean rank; NaN if one of them is constant."""
    one, two = centred_ranks(x), centred_ranks(y)
    scale = math.sqrt(float(one @ one) * float(two @ two))
    return float(one @ two) / scale if scale else math.nan


def centred_ranks(values: ArrayLike) -> Array:
    """Ranks of `values` [n] minus their mean, ties at their mean rank."""
    # A report has thousands of short samples, for which this is four times as fast as scipy.stats.rankdata.
    _, places, counts = np.unique(vector(values), return_inverse=True, return_counts=True)
    ranks: Array = (np.cumsum(counts) - (counts - 1) / 2)[places]
    centred: Array = ranks - ranks.mean()
    return centred


def area(density: ArrayLike, accuracy: ArrayLike) -> float:
    """Mean accuracy over log density: the area under the curve through the points, divided by its width."""
    x = np.log(vector(density))
    order = np.argsort(x)
    x, y = x[order], vector(accuracy)[order]
    return float(np.trapezoid(y, x) / (x[-1] - x[0])) if len(x) > 1 else float(y[0])


def rank(scores: ArrayLike, level: float = LEVEL) -> Ranks:
    """Friedman test (tie-corrected) and Nemenyi's critical difference (Demsar 2006) of `scores` [blocks, methods].

    Higher scores are better; ties share their mean rank.

    Raises: ValueError for fewer than two blocks or three methods.
    """
    from scipy import stats  # takes a second to import

    table = np.asarray(scores, dtype=np.float64)
    blocks, methods = table.shape
    if blocks < 2 or methods < 3:
        raise ValueError(f"{blocks} blocks of {methods} methods: ranks need at least 2 blocks and 3 methods")
    ranks = stats.rankdata(-table, axis=1)
    # Infinite degrees of freedom and division by the root of 2, as in the table of Demsar 2006.
    q = float(stats.studentized_range.ppf(1 - level, methods, np.inf)) / math.sqrt(2)
    if np.ptp(ranks) == 0:  # nothing differs: the statistic is 0/0
        chi2, p = 0.0, 1.0
    else:
        chi2, p = map(float, stats.friedmanchisquare(*table.T))
    return Ranks(ranks.mean(axis=0), chi2, p, q * math.sqrt(methods * (methods + 1) / (6 * blocks)))
