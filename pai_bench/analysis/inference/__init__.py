"""Statistical procedures of the report: pure functions on arrays of accuracies (fractions), without pandas or files.

Unit of analysis: the accuracy of one run. Runs of two methods at the same seed share the initial weights and the order
of the data, so methods are compared by paired differences. Every random number follows from a `seed` argument.
"""

from pai_bench.analysis.inference.aggregates import (
    IQM_COVERAGE,
    MIN_STRATA,
    Ranks,
    area,
    centred_ranks,
    iqm,
    iqm_interval,
    normalise,
    performance_profile,
    probability_of_improvement,
    rank,
    spearman,
)
from pai_bench.analysis.inference.equivalence import MARGIN, Equivalence, equivalence, equivalence_seeds
from pai_bench.analysis.inference.flips import (
    DRAWS,
    EXACT_FLIPS,
    MIN_BLOCKS,
    Pooled,
    SignFlip,
    pooled,
    seeds_needed,
    sign_flip,
)
from pai_bench.analysis.inference.intervals import (
    LEVEL,
    Interval,
    holm,
    indistinguishable,
    pair,
    t_interval,
    welch_half_width,
)

__all__ = [
    "DRAWS",
    "EXACT_FLIPS",
    "IQM_COVERAGE",
    "LEVEL",
    "MARGIN",
    "MIN_BLOCKS",
    "MIN_STRATA",
    "Equivalence",
    "Interval",
    "Pooled",
    "Ranks",
    "SignFlip",
    "area",
    "centred_ranks",
    "equivalence",
    "equivalence_seeds",
    "holm",
    "indistinguishable",
    "iqm",
    "iqm_interval",
    "normalise",
    "pair",
    "performance_profile",
    "pooled",
    "probability_of_improvement",
    "rank",
    "seeds_needed",
    "sign_flip",
    "spearman",
    "t_interval",
    "welch_half_width",
]
