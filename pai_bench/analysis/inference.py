"""Statistical procedures of the report: pure functions on arrays of accuracies (fractions), without pandas or files.

Unit of analysis: the accuracy of one run. Runs of two methods at the same seed share the initial weights and the order
of the data, so methods are compared by paired differences. Every random number follows from a `seed` argument.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtr, stdtrit

Array = NDArray[np.float64]

LEVEL = 0.05
"""Error rate of every test and interval."""
MARGIN = 0.005
"""Default equivalence margin: half a percentage point of accuracy."""
EXACT_FLIPS = 14
"""Largest number of differences whose sign flips are enumerated (2^14 = 16,384)."""
DRAWS = 99_999
"""Random sign flips, or bootstrap resamples, where enumeration is too large."""
MIN_STRATA = 10
"""Smallest number of strata for a stratified bootstrap interval."""
MIN_BLOCKS = 6
"""Smallest number of settings from which a statement about new settings can reach p < 0.05 (2/2^6 = 0.031)."""


@dataclass(frozen=True)
class Interval:
    """Sample mean with Student t interval; `std` is the sample deviation (ddof 1). NaN where n < 2."""

    n: int
    mean: float
    std: float
    low: float
    high: float


@dataclass(frozen=True)
class SignFlip:
    """Two-sided sign-flip test of the mean of paired differences."""

    n: int
    count: int
    """Flips whose mean is at least as extreme as the observed one, the observed one included."""
    total: int
    p: float
    smallest: float
    """Smallest p that these differences could have reached: 2^(z+1)/2^n with z zero differences."""


@dataclass(frozen=True)
class Pooled:
    """A comparison pooled over settings."""

    estimate: float
    """Mean over settings of the mean over seeds."""
    seeds: SignFlip
    """Inference about these settings: the difference of each (setting, seed) is flipped."""
    interval: Interval
    """t interval over the means of the settings: inference about new settings."""
    settings: SignFlip
    """Inference about new settings: the mean difference of each setting is flipped."""


@dataclass(frozen=True)
class Ranks:
    """Friedman test with Nemenyi's critical difference; rank 1 is the best."""

    mean_ranks: Array
    chi2: float
    p: float
    critical_difference: float


@dataclass(frozen=True)
class Equivalence:
    """Two one-sided t tests (TOST) of paired differences, with the 90 % interval that decides them."""

    n: int
    mean: float
    margin: float
    p: float
    low90: float
    high90: float
    equivalent: bool
    seeds_needed: int | None
    """Seeds that show equivalence with power 0.8 if the methods are equal, at this deviation; None where n < 2."""


def t_interval(values: ArrayLike, level: float = LEVEL) -> Interval:
    """Mean and Student t interval of `values` [n] at confidence 1 - level.

    Raises: ValueError when `values` is empty.
    """
    sample = _vector(values)
    n, mean = len(sample), float(sample.mean())
    if n < 2:
        return Interval(n, mean, math.nan, math.nan, math.nan)
    std = float(sample.std(ddof=1))
    half = float(stdtrit(n - 1, 1 - level / 2)) * std / math.sqrt(n)
    return Interval(n, mean, std, mean - half, mean + half)


def pair(method: Mapping[int, float], baseline: Mapping[int, float]) -> tuple[Array, list[int], list[int]]:
    """Differences method - baseline [n] in order of the seed, the seeds used, and the seeds that only one side has."""
    used = sorted(method.keys() & baseline.keys())
    dropped = sorted(method.keys() ^ baseline.keys())
    return np.array([method[seed] - baseline[seed] for seed in used], dtype=np.float64), used, dropped


def sign_flip(differences: ArrayLike, seed: int = 0) -> SignFlip:
    """Two-sided sign-flip test of the mean of `differences` [n]: exact for n <= EXACT_FLIPS, else by random flips.

    Zero differences stay in the sample. Ties with the observed mean are counted within a tolerance, because sums of
    equal differences in another order differ in their last bits.

    Raises: ValueError when `differences` is empty.
    """
    sample = _vector(differences)
    n = len(sample)
    scale = float(np.abs(sample).max())
    zeros = int((np.abs(sample) <= 1e-9 * scale).sum())
    smallest = min(1.0, 2.0 ** (zeros + 1 - n))
    observed = abs(float(sample.sum())) - 1e-9 * scale * n
    if n <= EXACT_FLIPS:
        flips = 1 - 2 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)
        extreme = int((np.abs(flips @ sample) >= observed).sum())
        return SignFlip(n, extreme, 2**n, extreme / 2**n, smallest)
    generator = np.random.default_rng(seed)
    extreme = 1
    for part in np.array_split(np.arange(DRAWS), 1 + DRAWS * n // 2**22):  # bounds the memory
        flips = 2 * generator.integers(0, 2, (len(part), n)) - 1
        extreme += int((np.abs(flips @ sample) >= observed).sum())
    return SignFlip(n, extreme, DRAWS + 1, extreme / (DRAWS + 1), max(smallest, 1 / (DRAWS + 1)))


def seeds_needed(comparisons: int, level: float = LEVEL) -> int:
    """Smallest number of seeds at which the sign flip can reach p < level after Holm over `comparisons` methods."""
    return next(n for n in count(1) if comparisons * 2 / 2**n < level)


def holm(p: ArrayLike) -> Array:
    """Holm's adjusted p values, in the order of `p` [m] (Holm 1979)."""
    values = np.asarray(p, dtype=np.float64)
    order = np.argsort(values, kind="stable")
    steps = np.minimum(1, np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1)))
    return steps[np.argsort(order)]


def indistinguishable(differences: Sequence[ArrayLike], level: float = LEVEL) -> list[bool]:
    """For each comparison, whether the Holm-adjusted t interval of the mean paired difference contains zero.

    `differences`: one array [n] a comparison. Without an interval (n < 2) nothing can be distinguished.
    """
    p = [float(_t_test(_vector(sample))) for sample in differences]
    return [bool(adjusted >= level) for adjusted in holm(p)]


def pooled(differences: Sequence[ArrayLike], seed: int = 0) -> Pooled:
    """Pool paired differences over settings; `differences[setting]` is [seeds, sparsities] or, averaged, [seeds].

    All sparsities of a (setting, seed) share weights and data: they count once, by their mean, and flip together.
    """
    per_seed = [np.asarray(one, dtype=np.float64) for one in differences]
    per_seed = [one.mean(axis=1) if one.ndim == 2 else one for one in per_seed]
    means = np.array([one.mean() for one in per_seed])
    return Pooled(
        estimate=float(means.mean()),
        # Weights that make the flipped statistic the mean over settings, whatever their numbers of seeds.
        seeds=sign_flip(np.concatenate([one / len(one) for one in per_seed]), seed),
        interval=t_interval(means),
        settings=sign_flip(means, seed),
    )


def normalise(accuracy: ArrayLike, chance: float, dense: float) -> Array:
    """(accuracy - chance) / (dense - chance): 0 at guessing, 1 at the mean of the dense network.

    Raises: ValueError when the dense network is not better than chance.
    """
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
    samples = [_vector(stratum) for stratum in strata]
    generator = np.random.default_rng(seed)
    resampled = [sample[generator.integers(0, len(sample), (draws, len(sample)))] for sample in samples]
    low, high = np.quantile(_iqm_of_rows(np.concatenate(resampled, axis=1)), (level / 2, 1 - level / 2))
    return float(low), float(high)


def probability_of_improvement(ours: Sequence[ArrayLike], others: Sequence[ArrayLike]) -> float:
    """P(X > Y), ties as one half, averaged over tasks; element i of each is the raw accuracies [runs] of task i."""
    wins = []
    for x, y in zip(ours, others, strict=True):
        difference = np.subtract.outer(_vector(x), _vector(y))
        wins.append(float((difference > 0).mean() + (difference == 0).mean() / 2))
    return float(np.mean(wins))


def performance_profile(values: ArrayLike, thresholds: ArrayLike) -> Array:
    """Share of all normalised values above each threshold [t] (Agarwal et al. 2021)."""
    flat = np.asarray(values, dtype=np.float64).ravel()
    shares: Array = (flat[:, None] > np.asarray(thresholds, dtype=np.float64)).mean(axis=0)
    return shares


def area(density: ArrayLike, accuracy: ArrayLike) -> float:
    """Mean accuracy over log density: the area under the curve through the points, divided by its width."""
    x = np.log(_vector(density))
    order = np.argsort(x)
    x, y = x[order], _vector(accuracy)[order]
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
    q = float(stats.studentized_range.ppf(1 - level, methods, np.inf)) / math.sqrt(2)
    if np.ptp(ranks) == 0:  # nothing differs: the statistic is 0/0
        chi2, p = 0.0, 1.0
    else:
        chi2, p = map(float, stats.friedmanchisquare(*table.T))
    return Ranks(ranks.mean(axis=0), chi2, p, q * math.sqrt(methods * (methods + 1) / (6 * blocks)))


def equivalence(differences: ArrayLike, margin: float = MARGIN, level: float = LEVEL) -> Equivalence:
    """TOST of paired differences [n] against +-margin (Schuirmann 1987); decided by the 1 - 2 * level interval.

    Differences without any spread give no test: p is NaN and nothing is claimed.
    """
    interval = t_interval(differences, 2 * level)
    n = interval.n
    if n < 2:
        return Equivalence(n, interval.mean, margin, math.nan, math.nan, math.nan, False, None)
    error = interval.std / math.sqrt(n)
    if error <= 1e-12:
        return Equivalence(n, interval.mean, margin, math.nan, interval.low, interval.high, False, None)
    p = float(stdtr(n - 1, (abs(interval.mean) - margin) / error))
    needed = equivalence_seeds(interval.std, margin, level=level)
    return Equivalence(n, interval.mean, margin, p, interval.low, interval.high, p < level, needed)


def equivalence_seeds(std: float, margin: float = MARGIN, power: float = 0.8, level: float = LEVEL) -> int:
    """Number of seeds at which TOST has `power` if the true difference is 0 and its deviation is `std`.

    Normal approximation with t quantiles (Julious 2004, eq. 5), at least 2.
    """

    def enough(n: int) -> bool:
        reach = margin * math.sqrt(n) / std - float(stdtrit(n - 1, 1 - level))
        return 2 * float(stdtr(n - 1, reach)) - 1 >= power

    return 2 + bisect_left(range(2, 10_000), True, key=enough)


def _vector(values: ArrayLike) -> Array:
    sample = np.asarray(values, dtype=np.float64).ravel()
    if not len(sample):
        raise ValueError("a sample needs at least one value")
    return sample


def _t_test(sample: Array) -> float:
    """Two-sided p of the paired t test; 1 where there is no interval."""
    interval = t_interval(sample)
    if interval.n < 2:
        return 1.0
    error = interval.std / math.sqrt(interval.n)
    if error <= 1e-12:
        return 1.0 if abs(interval.mean) <= 1e-12 else 0.0
    return float(2 * stdtr(interval.n - 1, -abs(interval.mean) / error))
