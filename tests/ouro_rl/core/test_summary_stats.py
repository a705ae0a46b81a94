"""Means, fractions and intervals, compared with values computed by hand."""

import math
import random

import pandas
import pytest

from ouro_rl.core.summary_stats import depth_shares, deviation, mean, mean_depth, rank_correlation, wilson_interval


def test_wilson_interval_matches_published_values():
    assert wilson_interval(8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert wilson_interval(0, 10) == pytest.approx((0.0, 0.2775), abs=1e-4)
    assert wilson_interval(10, 10) == pytest.approx((0.7225, 1.0), abs=1e-4)


def test_wilson_interval_contains_the_share_and_narrows():
    previous = 1.0
    for n in (1, 10, 100, 1000):
        for correct in range(0, n + 1, max(1, n // 10)):
            low, high = wilson_interval(correct, n)
            assert 0.0 <= low <= correct / n <= high <= 1.0
            mirrored = wilson_interval(n - correct, n)
            assert (low, high) == pytest.approx((1 - mirrored[1], 1 - mirrored[0]))
        low, high = wilson_interval(n // 2, n)
        assert high - low < previous
        previous = high - low


def test_wilson_interval_of_no_trials_and_of_invalid_counts():
    assert wilson_interval(0, 0) == (0.0, 1.0)
    for correct, n in ((-1, 3), (4, 3)):
        with pytest.raises(ValueError, match="correct"):
            wilson_interval(correct, n)


def test_rank_correlation_matches_pandas_with_and_without_ties():
    draws = random.Random(0)
    for most in (3, 1000):
        xs, ys = ([draws.randint(0, most) for _ in range(50)] for _ in range(2))
        expected = pandas.DataFrame({"x": xs, "y": ys}).corr(method="spearman").loc["x", "y"]
        assert rank_correlation(xs, ys) == pytest.approx(expected)
    assert rank_correlation([1, 2, 3], [10, 100, 1000]) == pytest.approx(1.0)


def test_rank_correlation_of_what_does_not_vary_and_of_unequal_lengths():
    assert rank_correlation([1, 1, 1], [1, 2, 3]) is None and rank_correlation([], []) is None
    with pytest.raises(ValueError, match="as many xs as ys"):
        rank_correlation([1, 2], [1])


def test_a_mean_does_not_depend_on_the_order():
    assert mean([1e16, 1.0, -1e16]) == mean([1.0, 1e16, -1e16]) == 1 / 3 and math.isnan(mean([]))


def test_mean_depth_is_over_tokens_not_over_completions():
    assert mean_depth([[4], [1, 1, 2]]) == 2.0
    assert mean_depth([[0, 3], [0]]) == 3.0  # 0 is padding, not a depth
    assert math.isnan(mean_depth([]))


def test_depth_shares():
    assert depth_shares([1, 1, 2, 4, 0], max_loops=4) == [0.5, 0.25, 0.0, 0.25]
    assert all(math.isnan(share) for share in depth_shares([], max_loops=2))
    for illegal in (5, -1):
        with pytest.raises(ValueError, match=str(illegal)):
            depth_shares([1, illegal], max_loops=4)


def test_deviation_of_extreme_rewards():
    assert deviation([1e300, -1e300]) == 1e300 and deviation([1e-300, 3e-300]) == pytest.approx(1e-300)
    assert deviation([5.0]) == deviation([0.0, 0.0]) == 0.0 and math.isnan(deviation([]))
