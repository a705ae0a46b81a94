import math

import pytest
import torch

from ouro_rl.exit_gate import (
    decision_logprobs,
    depth_logprobs,
    exit_log_pdf,
    exit_quantiles,
    exits,
    gate_entropy,
    log_stay,
    threshold_depths,
)  # fmt: skip
from ouro_rl.types import NO_DEPTH, ExitRule


def logit(p):
    return math.log(p / (1 - p))


def test_exit_distribution_by_hand():
    # lambda = 1/2, 1/4, (ignored): p = 1/2, 1/2 * 1/4, 1/2 * 3/4
    gates = torch.tensor([logit(0.5), logit(0.25), 7.0])
    assert exit_log_pdf(gates).exp().tolist() == pytest.approx([0.5, 0.125, 0.375])
    assert depth_logprobs(gates.view(3, 1).expand(3, 4), torch.tensor([1, 2, 3, NO_DEPTH])).tolist() == pytest.approx(
        [math.log(0.5), math.log(0.125), math.log(0.375), 0.0]
    )
    entropy = -sum(p * math.log(p) for p in (0.5, 0.125, 0.375))
    assert gate_entropy(gates).item() == pytest.approx(entropy)


def test_decisions_add_up_to_the_depth():
    gates = torch.tensor([[logit(0.5)], [logit(0.25)], [0.3]])
    assert decision_logprobs(gates, torch.tensor([1]))[:, 0].tolist() == pytest.approx([math.log(0.5), 0.0])
    assert decision_logprobs(gates, torch.tensor([3]))[:, 0].tolist() == pytest.approx([math.log(0.5), math.log(0.75)])


def test_one_loop_has_no_decision():
    gates = torch.randn(1, 5)
    assert exit_log_pdf(gates).abs().max() == 0
    assert depth_logprobs(gates, torch.ones(5, dtype=torch.long)).abs().max() == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_threshold_one_never_leaves_early(dtype):
    gates = torch.full((4, 3), 30.0, dtype=dtype)  # lambda rounds to 1
    assert threshold_depths(gates, 1.0).tolist() == [4, 4, 4]
    assert threshold_depths(gates, 0.999).tolist() == [1, 1, 1]


def test_the_incremental_rule_is_the_closed_form():
    generator = torch.Generator().manual_seed(0)
    gates = torch.randn(5, 200, generator=generator) * 2
    for rule in (ExitRule(kind="threshold", value=0.5), ExitRule(kind="threshold", value=0.9), ExitRule(kind="fixed", value=3)):
        quantiles = exit_quantiles(rule, torch.rand(200, generator=generator, dtype=torch.float64))
        survival, depths = torch.zeros(200), torch.full((200,), NO_DEPTH)
        for loop in range(1, 6):
            survival = survival + log_stay(gates[loop - 1])
            leaving = exits(rule, survival, quantiles, torch.full((200,), loop), 5)
            depths = torch.where((depths == NO_DEPTH) & leaving, loop, depths)
        expected = torch.full((200,), 3) if rule.kind == "fixed" else threshold_depths(gates, rule.value)
        assert torch.equal(depths, expected)


def test_sampling_by_a_random_quantile_follows_the_exit_distribution():
    gates = torch.tensor([0.3, -0.5, 1.0, 0.0]).view(4, 1).expand(4, 40_000)
    uniform = torch.rand(40_000, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    quantiles = exit_quantiles(ExitRule(kind="sample"), uniform)
    survival = log_stay(gates).cumsum(0)
    reached = torch.stack([exits(ExitRule(), survival[t], quantiles, torch.full((40_000,), t + 1), 4) for t in range(4)])
    depths = reached.int().argmax(0) + 1
    shares = torch.bincount(depths, minlength=5)[1:] / 40_000
    expected = exit_log_pdf(gates[:, :1]).exp().squeeze(1)
    assert (shares - expected).abs().max() < 4 * math.sqrt(0.25 / 40_000)
