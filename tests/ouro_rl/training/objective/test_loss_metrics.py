"""Metrics of the losses, compared with values computed by hand and with the losses' own gradients."""

import math

import pytest
import torch

from ouro_rl.training.objective.loss_metrics import clip_fractions, kl_to_sampler
from ouro_rl.training.objective.losses import token_loss


def test_clip_fractions_are_the_tokens_without_a_gradient():
    log_ratios = torch.tensor([-0.5, -0.5, 0.5, 0.5, 0.01, -0.5]).requires_grad_()
    advantages = torch.tensor([-1.0, 1.0, 1.0, -1.0, 1.0, -1.0])
    counted = torch.tensor([True] * 5 + [False])
    got = clip_fractions("token", log_ratios.detach(), advantages, 0.2, 0.28, counted)
    assert {name: values.tolist() for name, values in got.items()} == {
        "clip/token_low": [1, 0, 0, 0, 0], "clip/token_high": [0, 0, 1, 0, 0]
    }  # fmt: skip
    token_loss(log_ratios, torch.zeros(6), advantages, 0.2, 0.28).sum().backward()
    clipped = got["clip/token_low"] + got["clip/token_high"] > 0
    assert torch.equal(log_ratios.grad[:5] == 0, clipped)
    assert clip_fractions("token", log_ratios.detach(), advantages, 0.2, 0.28, counted & False) == {}


def test_kl_estimates_by_hand_and_in_expectation():
    estimates = kl_to_sampler(torch.tensor([0.0, math.log(2.0)]))
    assert estimates["kl/sampler"].tolist() == pytest.approx([0.0, 1 - math.log(2.0)])
    assert estimates["kl/sampler_k1"].tolist() == pytest.approx([0.0, -math.log(2.0)])
    sampler, now = (torch.randn(2, 9, generator=torch.Generator().manual_seed(0)).double()).log_softmax(1)
    wanted = (sampler.exp() * (sampler - now)).sum()
    for values in kl_to_sampler(now - sampler).values():
        assert (sampler.exp() * values).sum().item() == pytest.approx(wanted.item())
