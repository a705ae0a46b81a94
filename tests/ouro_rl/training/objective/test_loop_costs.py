"""Who pays for which loops, by hand."""

import math

import pytest
import torch

from ouro_rl.core.sampling_params import NO_DEPTH
from ouro_rl.training.objective.loop_costs import (
    excess_to_come,
    exit_hazards,
    extra_loops,
    loops_to_come,
    mean_extra,
    payment_weights,
)


def test_solved_answers_pay_in_proportion_to_their_groups_solve_rate():
    rewards = torch.tensor([1.0, 0.0, 1.0, math.nan, 0.0, 0.0, 0.0, 0.0])
    finished = torch.tensor([True, True, False, True, True, True, True, False])
    solved = payment_weights(rewards, finished, 4, solved_reward=0.5, solved_only=True)
    assert solved.tolist() == pytest.approx([2 / 3, 0, 0, 0, 0, 0, 0, 0])  # cut off, unscored, nothing right: free
    everyone = payment_weights(rewards, finished, 4, solved_reward=0.5, solved_only=False)
    assert everyone.tolist() == pytest.approx([2 / 3, 2 / 3, 0, 0, 0, 0, 0, 0])
    nobody = payment_weights(torch.full((4,), math.nan), finished[:4], 4, solved_reward=0.5, solved_only=False)
    assert nobody.tolist() == [0, 0, 0, 0]


def test_extra_loops_are_those_after_a_decision_and_above_the_floor():
    depths = torch.tensor([[1, 3, NO_DEPTH]])
    assert extra_loops(depths, 3)[:, 0].tolist() == [[0, 2, 0], [0, 1, 0]]
    assert extra_loops(depths, 3, floor=2)[:, 0].tolist() == [[0, 1, 0], [0, 1, 0]]
    assert extra_loops(depths, 3, floor=3).abs().max() == 0
    assert extra_loops(depths, 3, min_depth=2)[:, 0].tolist() == [[0, 0, 0], [0, 1, 0]]


def test_the_mean_of_extra_loops_counts_decisions_by_their_weight():
    extra = torch.tensor([[[0.0, 2.0], [1.0, 5.0]]])
    counted = torch.tensor([[[True, True], [True, False]]])
    assert mean_extra(extra, counted, torch.tensor([1.0, 0.5])).tolist() == pytest.approx([2.5 / 2.5])
    assert mean_extra(extra, counted, torch.zeros(2)).tolist() == [0.0]


def test_loops_to_come_are_compared_with_those_of_the_others_that_pay():
    depths = torch.tensor([[1, 2, 3], [4, NO_DEPTH, NO_DEPTH], [2, 2, NO_DEPTH], [1, 1, 1]])
    assert loops_to_come(depths)[0].tolist() == [5, 3, 0]
    paying = torch.tensor([True, True, True, False])
    excess = excess_to_come(depths, paying, 4)
    assert excess[0].tolist() == pytest.approx([5 - (0 + 2) / 2, 3 - 0, 0])  # one that has ended has none to come
    assert excess[1, 0].item() == pytest.approx(0 - (5 + 2) / 2)
    assert excess[3].tolist() == [0, 0, 0]
    alone = excess_to_come(depths, torch.tensor([True, False, False, False]), 4)
    assert alone.abs().max() == 0, "nothing to compare with"


def test_hazards_are_smoothed_shares_of_exits():
    depths = torch.tensor([[1, 2], [3, NO_DEPTH], [1, 1]])
    counted = torch.tensor([True, True, False])
    assert exit_hazards(depths, counted, 3).tolist() == pytest.approx([1.5 / 4, 1.5 / 3])
