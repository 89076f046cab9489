"""Sign-flip tests of paired differences, for one setting and pooled over settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import count

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pai_bench.analysis.inference.intervals import LEVEL, Array, Interval, t_interval, vector

EXACT_FLIPS = 14
"""Largest number of differences whose sign flips are enumerated (2^14 = 16,384)."""
DRAWS = 99_999
"""Number of random sign flips where enumeration is too large."""
MIN_BLOCKS = 6
"""Smallest number of settings from which a statement about new settings can reach p < 0.05 (2/2^6 = 0.031)."""


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


def sign_flip(differences: ArrayLike, seed: int = 0) -> SignFlip:
    """Two-sided sign-flip test of the mean of `differences` [n]: exact for n <= EXACT_FLIPS, else by random flips.

    Zero differences stay in the sample. Ties with the observed mean are counted within a tolerance, because sums of
    equal differences in another order differ in their last bits.

    Raises: ValueError when `differences` is empty.
    """
    sample = vector(differences)
    n = len(sample)
    scale = float(np.abs(sample).max())
    # A zero difference is the same under both signs, which doubles the number of equally extreme flips.
    zeros = int((np.abs(sample) <= 1e-9 * scale).sum())
    smallest = min(1.0, 2.0 ** (zeros + 1 - n))
    # Sums of other signs that equal the observed one up to rounding must count as equally extreme.
    observed = abs(float(sample.sum())) - 1e-9 * scale * n
    if n <= EXACT_FLIPS:
        extreme = int((np.abs(_all_flips(n) @ sample) >= observed).sum())
        return SignFlip(n, extreme, 2**n, extreme / 2**n, smallest)
    # The observed assignment counts as one of the draws, so that p is never 0 and the test keeps its level.
    extreme = 1 + int((np.abs(_random_flips(sample, seed)) >= observed).sum())
    return SignFlip(n, extreme, DRAWS + 1, extreme / (DRAWS + 1), max(smallest, 1 / (DRAWS + 1)))


@lru_cache(maxsize=2)
def _all_flips(n: int) -> Array:
    """Return all 2^n assignments of signs to n differences [2^n, n]; most samples of a report have the same n."""
    return np.asarray(1 - 2 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1), dtype=np.float64)


def _random_flips(sample: Array, seed: int) -> Array:
    """Return DRAWS sums of the sample with random signs. A random byte selects the signs of eight differences."""
    signs = _all_flips(8)
    sums, part_sums = np.zeros(DRAWS), np.empty(DRAWS)
    for start, selected in zip(range(0, len(sample), 8), _random_bytes(-(-len(sample) // 8), seed), strict=True):
        part = sample[start : start + 8]
        # A byte is always a valid index of 256 sums; with mode="clip", `take` writes to `out` without a copy.
        sums += np.take(signs[:, : len(part)] @ part, selected, out=part_sums, mode="clip")
    return sums


@lru_cache(maxsize=2)
def _random_bytes(count: int, seed: int) -> list[NDArray[np.uint8]]:
    """Return `count` arrays of random bytes [DRAWS]; the methods of a pooled comparison have the same two counts."""
    generator = np.random.default_rng(seed)
    return [generator.integers(0, 256, DRAWS, dtype=np.uint8) for _ in range(count)]


def seeds_needed(comparisons: int, level: float = LEVEL) -> int:
    """Smallest number of seeds at which the sign flip can reach p < level after Holm over `comparisons` methods."""
    return next(n for n in count(1) if comparisons * 2 / 2**n < level)


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
