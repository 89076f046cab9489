"""Tests of statistical procedures against fixed cases, SciPy, explicit enumeration, and invariances."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from pai_bench.analysis import inference
from tests import coverage

CASES = Path(__file__).parent / "statistics"


def read(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((CASES / f"{name}.json").read_text(encoding="utf-8"))
    return content


@pytest.mark.parametrize("case", read("mean_interval")["cases"])
def test_mean_and_t_interval(case: dict[str, Any]) -> None:
    interval = inference.t_interval(case["accuracy"])
    for key, value in case["expect"].items():
        assert getattr(interval, key) == pytest.approx(math.nan if value is None else value, rel=1e-9, nan_ok=True)


@pytest.mark.parametrize("case", read("paired_difference")["cases"])
def test_paired_differences_and_their_sign_flip(case: dict[str, Any]) -> None:
    expect = case["expect"]
    method = {int(seed): value for seed, value in reversed(case["method"].items())}
    differences, used, dropped = inference.pair(method, {int(s): v for s, v in case["baseline"].items()})
    assert (used, dropped) == (expect["seeds_used"], expect["seeds_dropped"])
    interval = inference.t_interval(differences)
    assert [interval.n, interval.mean, interval.std, interval.low, interval.high] == pytest.approx(
        [expect[key] for key in ("n", "mean", "std", "low", "high")], rel=1e-8
    )
    flip, right = inference.sign_flip(differences), expect["sign_flip"]
    assert (flip.n, flip.count, flip.total, flip.p) == (right["n"], right["count"], right["total"], right["p"])
    assert flip.smallest == right["smallest_reachable_p"]
    for order in itertools.islice(itertools.permutations(differences), 0, 5_000, 997):
        assert inference.sign_flip(list(order)) == flip
    assert inference.sign_flip(-differences) == flip


def test_the_exact_sign_flip_is_scipy_s() -> None:
    sample = np.random.default_rng(0).normal(0.3, 1, 9)
    right = stats.permutation_test(
        (sample,), np.mean, permutation_type="samples", n_resamples=np.inf, alternative="two-sided"
    ).pvalue
    assert inference.sign_flip(sample).p == pytest.approx(right)


@pytest.mark.slow
def test_the_random_sign_flip_agrees_with_enumeration_and_is_seeded() -> None:
    sample = np.random.default_rng(3).normal(0.4, 1, 16)
    flips = np.array(list(itertools.product((-1, 1), repeat=16)))
    exact = float((np.abs(flips @ sample) >= abs(sample.sum()) - 1e-9).mean())
    found = inference.sign_flip(sample, seed=1)
    assert found.total == inference.DRAWS + 1
    assert found.p == pytest.approx(exact, abs=4 * math.sqrt(exact / inference.DRAWS))
    assert found == inference.sign_flip(sample, seed=1)
    assert inference.sign_flip(np.ones(40)).p == 1 / (inference.DRAWS + 1)


@pytest.mark.parametrize(("zeros", "smallest"), [(0, 0.0625), (1, 0.125), (4, 1.0), (5, 1.0)])
def test_zero_differences_raise_the_smallest_reachable_p(zeros: int, smallest: float) -> None:
    flip = inference.sign_flip([0.0] * zeros + [0.01] * (5 - zeros))
    assert (flip.n, flip.smallest, flip.p) == (5, smallest, smallest)


def test_smallest_reachable_p_and_the_seeds_needed() -> None:
    table = read("smallest_reachable")
    for n, p in table["n_to_p"].items():
        flip = inference.sign_flip(np.linspace(0.01, 0.02, int(n)))
        assert (flip.smallest, flip.p) == (p, p)
    for comparisons, seeds in table["m_to_seeds_needed"].items():
        assert inference.seeds_needed(int(comparisons)) == seeds


@pytest.mark.parametrize("case", read("holm")["cases"])
def test_holm_equals_the_fixed_cases(case: dict[str, Any]) -> None:
    adjusted = inference.holm(case["p"])
    assert adjusted == pytest.approx(case["expect"]["adjusted"])
    assert list(adjusted < inference.LEVEL) == case["expect"]["reject"]
    assert inference.holm(case["p"][::-1]) == pytest.approx(adjusted[::-1])


def test_pooling_counts_a_seed_of_a_setting_once() -> None:
    case = read("pooled_sign_flip")
    right, found = case["expect"], inference.pooled([np.array(block) for block in case["differences"]])
    assert found.estimate == pytest.approx(right["estimate"], rel=1e-8)
    assert (found.seeds.n, found.seeds.p, found.seeds.smallest) == tuple(right["seed_level"].values())
    block = right["block_level"]
    assert (found.settings.n, found.settings.p, found.settings.smallest) == (
        block["units"],
        block["p"],
        block["smallest_reachable_p"],
    )
    assert [found.interval.mean, found.interval.low, found.interval.high] == pytest.approx(
        [block["mean"], block["low"], block["high"]], rel=1e-8
    )
    assert inference.pooled(right["per_block_seed"]) == found


def test_settings_with_more_seeds_do_not_weigh_more() -> None:
    found = inference.pooled([[0.01], [-0.01, -0.01, -0.01]])
    assert found.estimate == pytest.approx(0, abs=1e-12)
    assert found.seeds.p == 1.0


def test_aggregates_of_normalised_accuracies() -> None:
    case = read("aggregates")
    right = case["expect"]
    settings = zip(case["accuracy"], case["chance"], case["dense"], strict=True)
    tasks = [inference.normalise(*setting) for setting in settings]
    np.testing.assert_allclose(np.array(tasks).T, right["normalised"], atol=1e-9)
    assert inference.iqm(tasks) == pytest.approx(right["iqm"], abs=1e-9)
    profile = right["profile"]
    assert inference.performance_profile(tasks, [float(t) for t in profile]) == pytest.approx(list(profile.values()))
    better = inference.probability_of_improvement(case["accuracy"], case["baseline"])
    assert better == pytest.approx(right["probability_of_improvement"])
    worse = inference.probability_of_improvement(case["baseline"], case["accuracy"])
    assert better + worse == pytest.approx(1)
    with pytest.raises(ValueError, match="not above chance"):
        inference.normalise([0.5], 0.1, 0.1)


def test_the_stratified_bootstrap_of_the_iqm() -> None:
    case = read("stratified_bootstrap_iqm")
    strata = np.array(case["normalised_runs_by_tasks"]).T
    right = case["expect"]
    assert inference.iqm(strata) == pytest.approx(right["iqm"], abs=1e-9)
    low, high = inference.iqm_interval(strata, draws=20_000)
    assert (low, high) == pytest.approx((right["low"], right["high"]), abs=0.002)
    assert inference.iqm_interval(strata, seed=4) == inference.iqm_interval(strata, seed=4)


def test_friedman_and_nemenyi_on_demsar_s_table() -> None:
    case = read("critical_difference")
    right, found = case["expect"], inference.rank(case["scores"])
    assert found.mean_ranks == pytest.approx(right["mean_ranks"], rel=1e-8)
    assert [found.chi2, found.p] == pytest.approx([right["friedman_chi2"], right["friedman_p"]], rel=1e-8)
    assert found.critical_difference == pytest.approx(right["critical_difference"], rel=1e-6)
    equal = inference.rank(np.full((6, 4), 0.5))
    assert (equal.chi2, equal.p) == (0.0, 1.0)
    with pytest.raises(ValueError, match="at least 2 blocks and 3 methods"):
        inference.rank([[0.1, 0.2]])


@pytest.mark.parametrize("case", read("tost")["cases"])
def test_equivalence_tests_equal_the_fixed_cases(case: dict[str, Any]) -> None:
    right, found = case["expect"], inference.equivalence(case["difference"])
    assert [found.n, found.mean, found.p, found.low90, found.high90] == pytest.approx(
        [right[key] for key in ("n", "mean", "p", "low90", "high90")], rel=1e-8
    )
    assert found.equivalent is right["equivalent"]
    # The test and its interval decide alike.
    assert found.equivalent is (-found.margin < found.low90 and found.high90 < found.margin)


def test_nothing_is_claimed_without_spread_or_with_one_seed() -> None:
    assert not inference.equivalence([0.001, 0.001, 0.001]).equivalent
    assert math.isnan(inference.equivalence([0.001, 0.001, 0.001]).p)
    assert inference.equivalence([0.0]).seeds_needed is None


@pytest.mark.parametrize(("std", "power"), [(0.0035, (5, 6)), (0.005, (9, 11))])
def test_the_seeds_that_equivalence_needs(std: float, power: tuple[int, int]) -> None:
    few, enough = power[0], inference.equivalence_seeds(std)
    assert few < enough <= power[1] + 1
    generator = np.random.default_rng(0)
    shown = [inference.equivalence(generator.normal(0, std, enough)).equivalent for _ in range(400)]
    assert np.mean(shown) >= 0.72


def test_methods_indistinguishable_from_the_best_one() -> None:
    clear, close = [0.02, 0.021, 0.019, 0.02], [0.001, -0.002, 0.002, 0.0]
    assert inference.indistinguishable([clear, close]) == [False, True]
    # Holm: a difference that alone would be told (p = 0.042) is not when there are nine more.
    one = [0.01, 0.004, 0.002, 0.006, 0.001]
    assert inference.indistinguishable([one]) == [False]
    assert inference.indistinguishable([one, *[close] * 9])[0]
    assert inference.indistinguishable([[0.01], [0.0, 0.0], [0.01, 0.01]]) == [True, True, False]


def test_rank_correlation_is_scipy_s_and_has_no_value_without_order() -> None:
    x, y = [3, 1, 4, 1, 5, 9, 2, 6], [2, 7, 1, 8, 2, 8, 1, 8]
    assert inference.spearman(x, y) == pytest.approx(stats.spearmanr(x, y).statistic)
    # Ranks 1 2 3 4 5 and 2 1 4 3 5: 1 - 6 * 4 / (5 * 24) = 0.8.
    assert inference.spearman([1, 2, 3, 4, 5], [20, 10, 40, 30, 50]) == pytest.approx(0.8)
    assert inference.spearman([1, 2, 3], [9, 4, 1]) == pytest.approx(-1)
    assert math.isnan(inference.spearman([1, 1, 1], [1, 2, 3]))


def test_welch_s_interval_is_scipy_s() -> None:
    x, y = np.array([0.91, 0.92, 0.95]), np.array([0.90, 0.93, 0.80, 0.85])
    half = inference.welch_half_width(x.std(ddof=1), 3, y.std(ddof=1), 4)
    interval = stats.ttest_ind(x, y, equal_var=False).confidence_interval(0.95)
    assert (interval.high - interval.low) / 2 == pytest.approx(half)
    assert math.isnan(inference.welch_half_width(0.1, 1, 0.1, 3)) and inference.welch_half_width(0, 3, 0, 3) == 0


def test_area_under_accuracy_over_log_density() -> None:
    assert inference.area([1.0, 0.1, 0.01], [0.9, 0.8, 0.1]) == pytest.approx((0.85 + 0.45) / 2)
    assert inference.area([0.01, 1.0, 0.1], [0.1, 0.9, 0.8]) == pytest.approx((0.85 + 0.45) / 2)
    assert inference.area([0.1], [0.7]) == 0.7


def test_empty_samples_are_refused() -> None:
    for procedure in (inference.t_interval, inference.sign_flip, inference.equivalence):
        with pytest.raises(ValueError, match="at least one value"):
            procedure([])


@pytest.mark.slow
def test_intervals_cover_and_tests_hold_their_level() -> None:
    """A short run of `python -m tests.coverage`, whose full numbers are in docs/statistics.md."""
    page = (Path(__file__).parents[2] / "docs" / "statistics.md").read_text(encoding="utf-8")
    for name, size, nominal, rate in coverage.simulate(draws=200):
        if nominal < 0.5:
            assert rate <= nominal + 0.05, (name, size, rate)
        elif "bootstrap" not in name:
            assert rate >= nominal - 0.06, (name, size, rate)
        assert f"| {name} | {size} | {100 * nominal:.0f} % |" in page
