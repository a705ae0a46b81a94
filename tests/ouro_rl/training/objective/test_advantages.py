"""Advantages, compared with values computed by hand and with exact fractions."""

import math
import statistics
from fractions import Fraction

import pytest
import torch

from ouro_rl.core.errors import RunError
from ouro_rl.training.objective.advantages import group_advantages, only_best, reward_scales


def test_group_advantages_by_hand():
    rewards = torch.tensor([1.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0])
    assert group_advantages(rewards, 4, "none").tolist() == pytest.approx([0.75, -0.25, -0.25, -0.25, 0, 0, 0, 0])
    scaled = group_advantages(rewards, 4, "group")
    assert scaled[0].item() == pytest.approx(0.75 / (0.5 + 1e-4)) and scaled[4:].abs().max() == 0


def test_an_unscored_rollout_is_left_out_of_the_baseline():
    rewards = torch.tensor([1.0, 0.0, math.nan, math.nan])
    assert group_advantages(rewards, 4, "none").tolist() == pytest.approx([0.5, -0.5, 0.0, 0.0])
    assert group_advantages(torch.full((4,), math.nan), 4, "group").tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("scale", ["group", "batch", "none"])
@pytest.mark.parametrize("size", [1.0, 1e30, 1e-3])
def test_rewards_of_any_size_have_advantages(size, scale):
    """Squares of 1e30 are infinite in fp32: advantages were 0 while groups were said to have a signal."""
    rewards = torch.tensor([1.0, 0.0, 0.25, math.nan, 0.3, 0.3, 0.3, 0.3], dtype=torch.float64) * size
    advantages = group_advantages(rewards, 4, scale)
    exact = [Fraction(value) for value in rewards[:3].tolist()]
    centered = [value - sum(exact) / 3 for value in exact]
    everything = [Fraction(value) for value in rewards.tolist() if not math.isnan(value)]
    of = exact if scale == "group" else everything
    variance = sum((value - sum(of) / len(of)) ** 2 for value in of) / (len(of) - 1)
    deviation = 1.0 if scale == "none" else size * math.sqrt(variance / Fraction(size) ** 2) + 1e-4
    assert advantages[:3].tolist() == pytest.approx([float(value) / deviation for value in centered], rel=1e-6)
    assert advantages[3:].tolist() == [0.0] * 5, "equal rewards give exactly 0, though 0.3 + 0.3 + 0.3 is rounded"
    assert advantages.dtype == torch.float32


@pytest.mark.parametrize("size", [1.0, 1e3])
def test_scales_are_what_rewards_are_divided_by(size):
    rewards = torch.tensor([1.0, 0.0, 0.25, math.nan, 0.3, 0.3, 0.3, 0.3, 2.0, 0.0, 0.0, 0.0]) * size
    centered = group_advantages(rewards, 4, "none")
    for scale in ("group", "batch", "none"):
        scales, advantages = reward_scales(rewards, 4, scale), group_advantages(rewards, 4, scale)
        torch.testing.assert_close(advantages * scales, centered)
    scales = reward_scales(rewards, 4, "group")
    assert scales[4:8].tolist() == pytest.approx([(scales[0] + scales[8]).item() / 2] * 4), "without variance: the mean"


@pytest.mark.parametrize("odd, share", [(1 - 1e-16, 1.0), (1 - 5e-5, 1.0), (0.999, 0.1), (0.5, 1.0)])
def test_charges_are_not_blown_up_by_rewards_that_are_nearly_equal(odd, share):
    """Of groups with deviations of 0.5 and 0.5, and one whose own is nothing, next to nothing, or 0.25."""
    rewards = torch.tensor([1.0, 0.0, 0.0, 0.0] * 2 + [1.0, 1.0, 1.0, odd], dtype=torch.float64)
    scales = reward_scales(rewards, 4, "group").tolist()
    assert scales[:8] == pytest.approx([0.5] * 8, rel=1e-3)
    own = 0.25 if odd == 0.5 else share * statistics.fmean([0.5, 0.5, *([0.0005] if odd == 0.999 else [])])
    assert scales[8:] == pytest.approx([own] * 4, rel=1e-3)


@pytest.mark.parametrize("rewards", [[0.3] * 3 + [1.0] * 3, [math.nan] * 6])
def test_without_variance_anywhere_nothing_is_scaled(rewards):
    assert reward_scales(torch.tensor(rewards), 3, "group").tolist() == [1.0] * 6
    assert reward_scales(torch.tensor([0.3] * 6), 3, "batch").tolist() == [1.0] * 6


def test_extreme_rewards():
    mixed = torch.tensor([1e300, 0.0, 1.0, 0.0, 1e-300, 0.0], dtype=torch.float64)
    assert group_advantages(mixed, 2, "group").tolist() == pytest.approx(
        [0.7071, -0.7071] + [0.707, -0.707] + [0, 0], abs=1e-3
    )
    assert group_advantages(torch.tensor([1.7e308, -1.7e308], dtype=torch.float64), 2, "group")[0] > 0.7
    with pytest.raises(RunError, match="rewards of up to 1e.300 give advantages that fp32 cannot hold"):
        group_advantages(mixed, 2, "none")


def test_the_best_of_a_group_by_reward_per_loop():
    rewards = torch.tensor([1.0, 1.0, 0.0, math.nan, 1.0, 1.0, 1.0, 0.5])
    loops = torch.tensor([30, 20, 5, 4, 10, 10, 10, 5])
    kept = only_best(rewards, loops, 4, keep=2)
    assert kept[:2].tolist() == [1.0, 1.0] and kept[2:4].isnan().all()
    assert kept[4:6].tolist() == [1.0, 1.0] and kept[6:].isnan().all()  # of equal ones the first
    assert group_advantages(kept, 4, "none").tolist() == [0.0] * 8
