"""Equivalence of paired accuracies within a margin: two one-sided tests (TOST)."""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass

from numpy.typing import ArrayLike
from scipy.special import stdtr, stdtrit

from pai_bench.analysis.inference.intervals import LEVEL, t_interval

MARGIN = 0.005
"""Default equivalence margin: half a percentage point of accuracy."""


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


def equivalence(differences: ArrayLike, margin: float = MARGIN, level: float = LEVEL) -> Equivalence:
    """TOST of paired differences [n] against +-margin (Schuirmann 1987); decided by the 1 - 2 * level interval.

    Differences without any spread give no test: p is NaN and nothing is claimed.
    """
    # Two one-sided tests at 5 % each correspond to the 90 % interval.
    interval = t_interval(differences, 2 * level)
    n = interval.n
    if n < 2:
        return Equivalence(n, interval.mean, margin, math.nan, math.nan, math.nan, False, None)
    error = interval.std / math.sqrt(n)
    # Rounding leaves a spread of 1e-17 between equal differences, for which t would be huge.
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

    # Power grows with the number of seeds, so that bisection finds the smallest one.
    return 2 + bisect_left(range(2, 10_000), True, key=enough)
