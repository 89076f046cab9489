"""Simulated coverage of every interval that a report prints, and error rates of its tests.

`python -m tests.coverage` prints the table of docs/statistics.md (a few minutes); `--draws 500` is a quick check.

Accuracies of seeds are normal with the deviation that is typical of pruned networks (0.35 points). A 95 % interval
should contain the true value in 95 % of the draws, a test with p < 0.05 should reject a true hypothesis in at most 5 %.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from pai_bench.analysis import inference

STD = 0.0035
TRUTH = 0.93
Row = tuple[str, str, float, float]
"""Procedure, sizes, nominal rate, simulated rate."""


def mean_interval(generator: np.random.Generator, n: int) -> bool:
    """Return True if the t interval of the mean of n seeds contains the true mean."""
    interval = inference.t_interval(generator.normal(TRUTH, STD, n))
    return interval.low <= TRUTH <= interval.high


def paired_interval(generator: np.random.Generator, n: int) -> bool:
    """Return True if the t interval of n paired differences contains the true difference, for a shared seed effect."""
    seeds = generator.normal(0, STD, n)
    differences = (seeds + generator.normal(0.003, STD, n)) - (seeds + generator.normal(0, 2 * STD, n))
    interval = inference.t_interval(differences)
    return interval.low <= 0.003 <= interval.high


def equivalence_interval(generator: np.random.Generator, n: int) -> bool:
    """Return True if the 90 % interval of the equivalence test contains the true difference."""
    test = inference.equivalence(generator.normal(0.001, STD, n))
    return test.low90 <= 0.001 <= test.high90


def wrongly_equivalent(generator: np.random.Generator, n: int) -> bool:
    """Return True if methods that differ by the margin exactly are called equivalent."""
    return inference.equivalence(generator.normal(inference.MARGIN, STD, n)).equivalent


def settings_interval(generator: np.random.Generator, n: int) -> bool:
    """Return True if the interval over n settings of 3 seeds contains the mean over all settings."""
    gains = generator.normal(0.01, 0.01, n)
    found = inference.pooled([generator.normal(gain, STD, 3) for gain in gains])
    return found.interval.low <= 0.01 <= found.interval.high


def flip_rejects(generator: np.random.Generator, n: int) -> bool:
    """Return True if the sign flip of n differences without an effect has p < 0.05."""
    return inference.sign_flip(generator.normal(0, STD, n)).p < inference.LEVEL


def family_rejects(generator: np.random.Generator, n: int) -> bool:
    """Return True if any of 4 methods equal to the baseline has a Holm-adjusted p < 0.05; all share its runs."""
    baseline = generator.normal(0, STD, n)
    p = [inference.sign_flip(generator.normal(0, STD, n) - baseline).p for _ in range(4)]
    return bool((inference.holm(p) < inference.LEVEL).any())


def best_is_bold(generator: np.random.Generator, n: int) -> bool:
    """Return True if the truly best of 5 methods is bold: the best mean, or not distinguishable from it."""
    runs = generator.normal(0, STD, (5, n)) + np.array([0.002, 0.001, 0, 0, -0.002])[:, None]
    order = np.argsort(-runs.mean(axis=1))
    alike = inference.indistinguishable([runs[order[0]] - runs[other] for other in order[1:]])
    return bool(order[0] == 0 or alike[list(order[1:]).index(0)])


def welch_interval(generator: np.random.Generator, n: int) -> bool:
    """Return True if Welch's interval of ours minus published, both of n seeds, contains the true difference."""
    ours, published = generator.normal(TRUTH, STD, n), generator.normal(TRUTH - 0.002, 3 * STD, n)
    half = inference.welch_half_width(float(ours.std(ddof=1)), n, float(published.std(ddof=1)), n)
    return abs(float(ours.mean() - published.mean()) - 0.002) <= half


def iqm_interval(generator: np.random.Generator, n: int, strata: int = 12) -> bool:
    """Return True if the bootstrap interval of the IQM over strata of n seeds contains the IQM of the population."""
    levels = np.linspace(0.5, 1.0, strata)
    population = generator.normal(levels[:, None], 0.02, (strata, 2_000))
    low, high = inference.iqm_interval([generator.choice(values, n) for values in population], draws=500)
    return low <= inference.iqm(population) <= high


SIMULATIONS: tuple[tuple[str, str, Callable[[np.random.Generator, int], bool], tuple[int, ...], float, int], ...] = (
    ("mean, 95 % t interval: coverage", "seeds", mean_interval, (2, 3, 5, 10), 0.95, 1),
    ("paired difference, 95 % t interval: coverage", "seeds", paired_interval, (2, 3, 5, 10), 0.95, 1),
    ("equivalence, 90 % t interval: coverage", "seeds", equivalence_interval, (3, 5, 10), 0.90, 1),
    ("pooled over settings, 95 % t interval: coverage", "settings", settings_interval, (6, 9, 12), 0.95, 4),
    ("ours minus published, 95 % Welch interval: coverage", "seeds", welch_interval, (3, 5, 10), 0.95, 1),
    ("IQM of 12 strata, 95 % bootstrap interval: coverage", "seeds", iqm_interval, (3, 5, 10), 0.95, 10),
    (
        "IQM of 36 strata, 95 % bootstrap interval: coverage",
        *("seeds", partial(iqm_interval, strata=36), (3, 5, 10), 0.95, 50),
    ),
    ("bold contains the best of 5 methods", "seeds", best_is_bold, (3, 5, 10), 0.95, 4),
    ("sign flip, p < 0.05 without an effect", "seeds", flip_rejects, (3, 6, 10), 0.05, 2),
    ("Holm over 4 methods, any p < 0.05 without an effect", "seeds", family_rejects, (3, 8, 10), 0.05, 8),
    ("equivalence claimed at a difference of 0.5 points", "seeds", wrongly_equivalent, (3, 5, 10), 0.05, 1),
)
"""Name, meaning of the sizes, simulation, sizes, nominal rate, and the factor by which it gets fewer draws."""


def simulate(draws: int, seed: int = 0) -> Iterator[Row]:
    """Yield a row per procedure and size."""
    for name, unit, procedure, sizes, nominal, factor in SIMULATIONS:
        for size in sizes:
            generator = np.random.default_rng([seed, size])
            count = max(1, draws // factor)
            yield name, f"{size} {unit}", nominal, float(np.mean([procedure(generator, size) for _ in range(count)]))


def table(draws: int) -> str:
    """Return the rates as a Markdown table."""
    rows = [
        f"| {name} | {size} | {100 * nominal:.0f} % | {100 * rate:.1f} % |"
        for name, size, nominal, rate in simulate(draws)
    ]
    return "\n".join(["| procedure | size | nominal | simulated |", "|---|---|---|---|", *rows])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=20_000)
    print(table(parser.parse_args().draws))
