"""The mathematics of a study, by hand and against slow references."""

from __future__ import annotations

import math
import random
import statistics
from dataclasses import replace

import pytest
import torch

from ouro_rl.evaluation.study.report.frontier import (
    best_mixture,
    compare,
    curve,
    depth_correlations,
    estimate,
    interpolate,
    oracle_ratio,
    outcomes_of,
    router,
    weights,
)
from tests.ouro_rl.evaluation.study.report.made_up import result, rule


def row(*values: float) -> torch.Tensor:
    return torch.tensor([values], dtype=torch.float64)


@pytest.mark.parametrize(
    ("at", "expected"), [(10, 0.2), (15, 0.4), (20, 0.6), (30, 0.5), (40, 0.4), (99, 0.4), (9.9, math.nan)]
)
def test_interpolation_on_straight_lines(at, expected):
    loops, accuracy = row(40, 10, 20), row(0.4, 0.2, 0.6)  # in any order
    found = float(interpolate(loops, accuracy, torch.tensor([float(at)], dtype=torch.float64)))
    assert found == pytest.approx(expected, nan_ok=True)


def test_a_curve_of_one_point():
    assert float(interpolate(row(10), row(0.2), torch.tensor([11.0]))) == pytest.approx(0.2)
    assert interpolate(row(10), row(0.2), torch.tensor([9.0])).isnan()


@pytest.mark.parametrize(
    "at,expected", [(10, 0.2), (15, 0.4), (20, 0.6), (25, 0.6), (30, 0.6), (40, 0.6), (50, 0.7), (60, 0.8), (70, 0.8)]
)
def test_the_best_mixture_of_two_points(at, expected):
    """Between 20 and 60 loops: not below the point at 20, and above the bad one at 40."""
    loops, accuracy = row(40, 10, 20, 60), row(0.4, 0.2, 0.6, 0.8)
    slow = max(
        [y for x, y in zip(loops[0].tolist(), accuracy[0].tolist(), strict=True) if x <= at]
        + [
            y0 + (at - x0) / (x1 - x0) * (y1 - y0)
            for x0, y0 in zip(loops[0].tolist(), accuracy[0].tolist(), strict=True)
            for x1, y1 in zip(loops[0].tolist(), accuracy[0].tolist(), strict=True)
            if x0 <= at < x1
        ]
    )
    found = best_mixture(loops, accuracy, torch.tensor([float(at)], dtype=torch.float64)).item()
    assert found == pytest.approx(slow) and found >= expected - 1e-12
    without = best_mixture(loops[:, 1:], accuracy[:, 1:], torch.tensor([float(at)], dtype=torch.float64)).item()
    assert found == pytest.approx(without), "a bad point changes nothing"
    assert best_mixture(loops, accuracy, torch.tensor([5.0], dtype=torch.float64)).isnan().all()


def test_a_router_that_is_told_the_difficulty():
    arm = outcomes_of([
        result("a", 0, [
            rule("threshold 0.5", "1111", [9] * 4, [3] * 4), rule("fixed 1", "1000", [3] * 4, [3] * 4),
            rule("fixed 2", "1101", [6] * 4, [3] * 4),
        ], [1, 2, 2, 2])
    ])  # fmt: skip
    assert router(arm) == pytest.approx((3 / 4, (3 + 3 * 6) / 4, 1e6 * (4 + 3 * 8) / 4))
    assert router(outcomes_of([result("b", 0, [rule("fixed 1", "1", [3], [3])], [2])])) is None


def test_weights_are_means_in_the_data_and_draws_with_replacement_below():
    drawn = weights(3, 50, draws=400)
    assert torch.allclose(drawn.seeds.sum(1), torch.ones(401, dtype=torch.float64))
    assert torch.equal(drawn.problems[0], torch.full((50,), 1 / 50, dtype=torch.float64))
    copies = drawn.problems[1:] * 50
    assert torch.allclose(copies.round(), copies) and copies.max() > 1.5, "whole numbers of copies"
    assert torch.equal(drawn.problems, weights(3, 50, draws=400).problems), "the same for every arm"
    values = torch.rand(3, 2, 50, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(drawn.mean(values)[0], values.mean((0, 2)))
    slow = sum(
        drawn.seeds[7, s] * drawn.problems[7, p] * values[s, :, p] for s in range(3) for p in range(50)
    )  # fmt: skip
    assert torch.allclose(drawn.mean(values)[7], slow)


def test_the_interval_of_one_seed_is_that_of_a_share():
    rng = random.Random(0)
    correct = "".join(rng.choice("0111") for _ in range(400))
    arm = outcomes_of([result("a", 0, [rule("fixed 2", correct, [2] * 400, [1] * 400)], [1] * 400)])
    _, accuracy = curve(arm, weights(1, 400))
    found = estimate(accuracy[:, 0])
    share = correct.count("1") / 400
    half = 1.96 * math.sqrt(share * (1 - share) / 400)
    assert found.value == pytest.approx(share)
    assert (found.low, found.high) == pytest.approx((share - half, share + half), abs=0.006)


def test_seeds_that_differ_widen_the_interval():
    good, bad = "1" * 90 + "0" * 10, "1" * 50 + "0" * 50
    arms = [
        outcomes_of([result("a", seed, [rule("fixed 2", text, [2] * 100, [1] * 100)], [1] * 100)
                     for seed, text in enumerate(texts)])
        for texts in ([good, bad] * 3, ["1" * 70 + "0" * 30] * 6)
    ]  # fmt: skip
    widths = []
    for arm in arms:
        _, accuracy = curve(arm, weights(6, 100))
        found = estimate(accuracy[:, 0])
        assert found.value == pytest.approx(0.7)
        widths.append(found.high - found.low)
    assert widths[0] > 1.2 * widths[1]


def test_answers_without_a_score_are_left_out():
    arm = outcomes_of([result("a", 0, [rule("fixed 2", "1-0-", [2] * 4, [1] * 4)], [1] * 4)])
    assert float(curve(arm, weights(1, 4, draws=0))[1]) == 0.5


def two_arms(seeds: int = 2, problems: int = 60):
    """The reference: thresholds at 2 and 4 loops with 60% and 80%; another arm at 3 loops with 60%, fixed."""
    reference, other = [], []
    for seed in range(seeds):
        rng = random.Random(seed)
        draw = [rng.random() for _ in range(problems)]
        marks = ["".join("1" if value < share else "0" for value in draw) for share in (0.6, 0.8)]
        reference.append(result("new", seed, [
            rule("threshold 0.9", marks[1], [4] * problems, [1] * problems),
            rule("threshold 0.5", marks[0], [2] * problems, [1] * problems),
        ], [1] * problems))  # fmt: skip
        other.append(result("old", seed, [
            rule("fixed 3", marks[0], [3] * problems, [1] * problems),
            rule("threshold 0.5", marks[0], [5] * problems, [1] * problems),
        ], [1] * problems))  # fmt: skip
    return outcomes_of(reference), outcomes_of(other)


def test_a_comparison_at_equal_loops():
    new, old = two_arms()
    found = compare(new, old)
    low, high = (statistics.fmean(figures.rules[place].accuracy for figures in new.results) for place in (1, 0))
    assert found.accuracy.value == pytest.approx(high - low)
    relative = found.loops.relative
    assert (relative.value, relative.low, relative.high) == pytest.approx((1 / 3,) * 3)
    assert found.loops.at_its.value == pytest.approx((low + high) / 2 - low), "halfway between 2 and 4 loops"
    assert found.loops.at_reference.value == pytest.approx(high - low), "4 loops buy the other arm what 3 do"
    assert found.seeds == (0, 1)


def test_a_comparison_at_equal_flops_counts_the_prompts():
    """Under a fixed depth prompts are cheaper: 3 loops for answers of 3 loops, against 4."""
    new, old = two_arms()
    found = compare(new, old)
    low, high = (statistics.fmean(figures.rules[place].accuracy for figures in new.results) for place in (1, 0))
    assert (found.flops.relative.value, found.flops.relative.low) == pytest.approx((8 / 6 - 1,) * 2)
    assert found.flops.at_its.value == pytest.approx(0), "2 loops and the prompt's 4 are what the other arm takes"
    assert found.loops.at_its.value == pytest.approx((low + high) / 2 - low)
    assert found.flops.at_reference.value == pytest.approx(high - low)
    bare = replace(old.results[0], rules=tuple(replace(one, flops=None) for one in old.results[0].rules))
    without = compare(new, outcomes_of([bare]))
    assert without.flops is None and without.loops is not None


def test_a_paired_difference_is_narrower_than_two_intervals():
    new, old = two_arms(seeds=1, problems=400)
    paired = compare(new, old).accuracy
    _, accuracy = curve(new, weights(1, 400))
    _, others = curve(old, weights(1, 400))
    unpaired = math.hypot(*(one.high - one.low for one in (estimate(accuracy[:, 0]), estimate(others[:, 0]))))
    assert paired.high - paired.low < 0.8 * unpaired


def test_what_cannot_be_compared():
    new, old = two_arms()
    cheap = outcomes_of([result("cheap", 0, [rule("fixed 1", "1" * 60, [1] * 60, [1] * 60)], [1] * 60)])
    found = compare(new, cheap)
    assert found.seeds == (0,) and found.loops.at_its is None, "the reference is never so cheap"
    assert compare(cheap, new).loops.at_reference is None
    later = outcomes_of([result("later", 7, [rule("fixed 1", "1" * 60, [1] * 60, [1] * 60)], [1] * 60)])
    assert compare(new, later) is None
    others = outcomes_of([result("x", 0, [rule("fixed 1", "1" * 60, [1] * 60, [1] * 60)], [2] * 60)])
    with pytest.raises(ValueError, match="different problems"):
        compare(new, others)


def test_depth_against_difficulty_and_the_oracle():
    tokens = [1, 1, 2, 2]
    rising = [rule("threshold 0.5", "1111", [1, 2, 6, 8], tokens), rule("fixed 2", "1111", [2, 2, 4, 4], tokens)]
    arm = outcomes_of([result("a", 0, rising, [1, 2, 3, 4], needed=[1, 2, 6, 8])])
    assert depth_correlations(arm) == [pytest.approx(1.0)]
    assert oracle_ratio(arm, weights(1, 4, draws=10)).value == pytest.approx(17 / (1 + 2 + 6 + 8))
    level = outcomes_of([result("b", 0, rising[1:], [1, 2, 3, 4], needed=[1, 2, 6, 8])])
    assert depth_correlations(level) == [None]
    assert oracle_ratio(level, weights(1, 4, draws=10)).value == pytest.approx(12 / 17)
    unknown = outcomes_of([result("c", 0, rising, [1, 2, 3, 4])])
    assert oracle_ratio(unknown, weights(1, 4, draws=10)) is None


def test_probabilities_may_differ_between_seeds():
    results = [result("iid", seed, [rule(f"iid {0.1 * seed}", "10", [2, 2], [1, 1])], [1, 1]) for seed in (1, 2)]
    assert outcomes_of(results).rules == ("iid",)
