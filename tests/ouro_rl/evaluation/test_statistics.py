"""Estimates and intervals against enumeration, tables and simulation."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest

from ouro_rl.core.summary_stats import wilson_interval
from ouro_rl.evaluation import statistics
from ouro_rl.evaluation.statistics import (
    bootstrap_interval,
    clustered_mean,
    expanded_tail,
    majority_correct,
    mcnemar,
    paired_difference,
    pass_at_k,
    student_quantile,
)


@pytest.mark.parametrize(("samples", "correct"), [(1, 0), (1, 1), (5, 0), (5, 2), (6, 5), (7, 7)])
def test_pass_at_k_is_the_share_of_subsets_with_a_right_sample(samples: int, correct: int) -> None:
    rights = [index < correct for index in range(samples)]
    for k in range(1, samples + 1):
        subsets = list(itertools.combinations(rights, k))
        share = Fraction(sum(any(subset) for subset in subsets), len(subsets))
        assert abs(pass_at_k(samples, correct, k) - share) <= 1e-15


def test_pass_at_k_of_many_samples_keeps_its_digits() -> None:
    for samples, correct, k in ((1000, 1, 1), (10_000, 3, 100), (200, 199, 1), (512, 2, 511)):
        product = 1.0
        for index in range(samples - correct + 1, samples + 1):  # the stable form of arXiv 2107.03374
            product *= 1 - k / index
        assert pass_at_k(samples, correct, k) == pytest.approx(1 - product, abs=1e-12)
    for wrong in ((4, 5, 1), (4, 1, 5), (4, 1, 0), (4, -1, 1)):
        with pytest.raises(ValueError, match="need 0 <= correct"):
            pass_at_k(*wrong)


def test_the_majority_counts_right_answers_as_one_and_shares_ties() -> None:
    assert majority_correct([("1/2", True), ("0.5", True), ("3", False)]) == 1.0
    assert majority_correct([("1/2", True), ("3", False), ("3", False)]) == 0.0
    assert majority_correct([("1/2", True), ("3", False), ("4", False)]) == pytest.approx(1 / 3)
    assert majority_correct([]) == 0.0


def test_student_quantiles_of_a_table() -> None:
    table = {1: 12.7062, 2: 4.30265, 3: 3.18245, 5: 2.57058, 10: 2.22814, 30: 2.04227, 1000: 1.96234}
    for freedom, quantile in table.items():
        assert student_quantile(freedom) == pytest.approx(quantile, abs=5e-3 if freedom < 5 else 5e-4)
    assert expanded_tail(10**6) == pytest.approx(0.025, abs=1e-6) and expanded_tail(20) < 0.02


def test_mcnemar_of_known_tables() -> None:
    assert mcnemar(0, 0) == 1.0 and mcnemar(5, 5) == 1.0
    assert mcnemar(0, 6) == pytest.approx(2 / 64) and mcnemar(6, 0) == mcnemar(0, 6)
    assert mcnemar(2, 10) == pytest.approx(2 * (1 + 12 + 66) / 4096)
    assert mcnemar(1000, 1200) == pytest.approx(math.erfc((200 - 1) / math.sqrt(2 * 2200)), rel=0.02)


def test_a_bootstrap_that_is_known() -> None:
    """Draws of two problems with values 0 and 1 have means 0, 1/2 and 1 with chances 1/4, 1/2, 1/4; the mean of many
    draws from a normal sample has its standard error."""
    values = np.array([[0.0, 1.0], [1.0, 1.0]])
    assert bootstrap_interval(values) == (0.0, 1.0)
    sample = np.random.default_rng(0).normal(size=400)
    low, high = bootstrap_interval(np.stack([sample, np.ones(400)]))
    error = sample.std(ddof=1) / 20
    assert (low, high) == pytest.approx((sample.mean() - 1.96 * error, sample.mean() + 1.96 * error), abs=0.2 * error)


def test_draws_that_do_not_fit_at_once_are_made_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    sample = np.stack([np.random.default_rng(0).normal(size=40), np.ones(40)])
    whole = bootstrap_interval(sample)
    monkeypatch.setattr(statistics, "_DRAWN_AT_ONCE", 40 * 7)
    assert bootstrap_interval(sample) == pytest.approx(whole, abs=0.05)
    assert bootstrap_interval(sample) == bootstrap_interval(sample)


def test_equal_problems_do_not_make_an_interval_of_nothing() -> None:
    right = clustered_mean([4, 4, 4], [4, 4, 4])
    assert (right.value, right.low, right.high) == (1.0, *wilson_interval(3, 3)) and right.low < 0.5
    assert clustered_mean([4, 0, 0], [4, 0, 4]).value == 0.5, "a problem without samples counts for nothing"
    with pytest.raises(ValueError, match="no problem"):
        clustered_mean([0], [0])


def test_samples_of_one_problem_do_not_narrow_the_interval() -> None:
    few, many = clustered_mean([1, 0, 1, 0, 1, 1], [1] * 6), clustered_mean([9, 0, 9, 0, 9, 9], [9] * 6)
    assert (few.low, few.high) == pytest.approx((many.low, many.high))


def test_differences_are_paired() -> None:
    hard, easy = [0.0] * 30 + [1.0] * 30, [0.0] * 28 + [1.0] * 32
    paired = paired_difference(hard, easy)
    assert paired.value == pytest.approx(2 / 60) and 0 <= paired.low < paired.value < paired.high < 0.1
    assert paired_difference([0, 1], [0, 1]).high == 0.0


@pytest.mark.parametrize(("problems", "samples"), [(200, 4), (30, 16)])
def test_intervals_of_clusters_cover_as_they_say(problems: int, samples: int) -> None:
    """2,000 evaluations of problems whose difficulties are drawn anew; the true accuracy is the mean of the law."""
    generator = np.random.default_rng(1)
    chances = generator.beta(2, 3, size=(2000, problems))
    rights = generator.binomial(samples, chances)
    covered = 0
    for row in rights:
        estimate = clustered_mean(row.tolist(), [samples] * problems)
        covered += estimate.low <= 0.4 <= estimate.high
    assert 0.94 <= covered / 2000 <= 0.96


def test_intervals_of_single_answers_cover_as_they_say() -> None:
    generator = np.random.default_rng(2)
    shares = generator.uniform(0.1, 0.9, size=2000)
    covered = 0
    for share in shares:
        low, high = wilson_interval(int(generator.binomial(500, share)), 500)
        covered += low <= share <= high
    assert 0.94 <= covered / 2000 <= 0.96


def test_intervals_of_differences_cover_as_they_say() -> None:
    generator = np.random.default_rng(3)
    covered = 0
    for _ in range(2000):
        chance = generator.beta(2, 2, size=150)
        first = generator.random(150) < chance
        second = generator.random(150) < np.minimum(1, chance * 1.2)
        estimate = paired_difference(first.astype(float).tolist(), second.astype(float).tolist())
        covered += estimate.low <= EXPECTED_GAIN <= estimate.high
    assert 0.94 <= covered / 2000 <= 0.96


def _expected_gain() -> float:
    """E[min(1, 1.2 p) - p] for p of beta(2, 2), by the midpoint rule."""
    p = (np.arange(200_000) + 0.5) / 200_000
    return float(np.mean(6 * p * (1 - p) * (np.minimum(1, 1.2 * p) - p)))


EXPECTED_GAIN = _expected_gain()
