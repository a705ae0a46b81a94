"""Gate calibration by hand."""

import math

import pytest
import torch

from ouro_rl.training.objective.gate_calibration import calibration


def test_predictions_are_compared_with_gains():
    gates = torch.tensor([[math.log(3.0), 0.0], [0.0, math.log(1 / 3)], [9.0, 9.0]])  # stay: 1/4, 1/2; 1/2, 3/4
    logprobs = torch.tensor([[-2.0, -1.0], [-1.0, -1.002], [-1.5, -0.5]])
    found = {name: values.tolist() for name, values in calibration(gates, logprobs).items()}
    assert found["gate/gain"] == pytest.approx([1.0, -0.002, -0.5, 0.502], abs=1e-6)
    assert found["gate/helps"] == [1, 0, 0, 1]
    assert found["gate/brier"] == pytest.approx([9 / 16, 1 / 4, 1 / 4, 1 / 16])
    assert found["gate/stay_if_helps"] == pytest.approx([1 / 4, 3 / 4])
    assert found["gate/stay_if_not"] == pytest.approx([1 / 2, 1 / 2])
    assert len(calibration(gates, logprobs, min_depth=2)["gate/gain"]) == 2


def test_a_loop_that_cannot_say_the_token_is_left_out():
    logprobs = torch.tensor([[-1.0], [-math.inf], [-0.5]])
    assert len(calibration(torch.zeros(3, 1), logprobs)["gate/gain"]) == 0
