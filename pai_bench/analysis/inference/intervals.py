"""Means, paired differences and their Student t intervals, with Holm's correction."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtr, stdtrit

Array = NDArray[np.float64]

LEVEL = 0.05
"""Error rate of every test and interval."""


@dataclass(frozen=True)
class Interval:
    """Sample mean with Student t interval; `std` is the sample deviation (ddof 1). NaN where n < 2."""

    n: int
    mean: float
    std: float
    low: float
    high: float


def t_interval(values: ArrayLike, level: float = LEVEL) -> Interval:
    """Mean and Student t interval of `values` [n] at confidence 1 - level.

    Raises: ValueError when `values` is empty.
    """
    sample = vector(values)
    n, mean = len(sample), float(sample.mean())
    if n < 2:
        return Interval(n, mean, math.nan, math.nan, math.nan)
    # ddof 1: seeds are a sample, and the mean is estimated from the same values.
    std = float(sample.std(ddof=1))
    # Student's t and not a bootstrap, whose intervals over three to five seeds are too short (docs/statistics.md).
    half = float(stdtrit(n - 1, 1 - level / 2)) * std / math.sqrt(n)
    return Interval(n, mean, std, mean - half, mean + half)


def welch_half_width(std: float, n: float, other_std: float, other_n: float, level: float = LEVEL) -> float:
    """Half width of the interval of the difference of two independent means (Welch 1947); NaN without two deviations.

    std, other_std: sample deviations (ddof 1) of n and other_n values.
    """
    if not (n > 1 and other_n > 1 and math.isfinite(std) and math.isfinite(other_std)):
        return math.nan
    one, two = std**2 / n, other_std**2 / other_n
    if one + two == 0:
        return 0.0
    # Welch-Satterthwaite: published runs and ours need not have equal variances.
    freedom = (one + two) ** 2 / (one**2 / (n - 1) + two**2 / (other_n - 1))
    return float(stdtrit(freedom, 1 - level / 2)) * math.sqrt(one + two)


def pair(method: Mapping[int, float], baseline: Mapping[int, float]) -> tuple[Array, list[int], list[int]]:
    """Differences method - baseline [n] in order of the seed, the seeds used, and the seeds that only one side has."""
    used = sorted(method.keys() & baseline.keys())
    dropped = sorted(method.keys() ^ baseline.keys())
    return np.array([method[seed] - baseline[seed] for seed in used], dtype=np.float64), used, dropped


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
    # A table has thousands of short samples, for which Python is faster than NumPy.
    samples = [sample if isinstance(sample, list) else np.ravel(sample).tolist() for sample in differences]
    t = [_t_statistic(sample) for sample in samples]
    freedom = [max(len(sample) - 1, 1) for sample in samples]
    return [bool(adjusted >= level) for adjusted in holm(2 * stdtr(freedom, t))]


def vector(values: ArrayLike) -> Array:
    """Return the values [n] as one-dimensional float64 array.

    Raises: ValueError when there are none.
    """
    sample = np.asarray(values, dtype=np.float64).ravel()
    if not len(sample):
        raise ValueError("a sample needs at least one value")
    return sample


def _t_statistic(values: list[float]) -> float:
    """Minus the absolute t of the paired t test; 0 where there is no interval.

    Raises: ValueError when there are no values.
    """
    n = len(values)
    if not n:
        raise ValueError("a sample needs at least one value")
    # Correctly rounded sums, whose result does not depend on the order of the values.
    mean = math.fsum(values) / n
    error = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1) / n) if n > 1 else math.inf
    # Equal values have a spread of rounding errors only; dividing by it would give a meaningless t.
    if error <= 1e-12:
        return 0.0 if abs(mean) <= 1e-12 else -math.inf
    return -abs(mean) / error
