"""Metrics of a micro batch's losses, as pure functions: what clipping leaves out, and how far the policy has moved."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


def clip_fractions(
    head: str, log_ratios: Tensor, advantages: Tensor, low: float, high: float, counted: Tensor
) -> Mapping[str, Tensor]:
    """`clip/<head>_low`, `clip/<head>_high`: where the clipped loss has no gradient because the ratio has already gone
    the way of a negative (positive) advantage. All tensors of one shape -> fp32 [those where `counted` holds], 0 or 1,
    whose means are the metrics; none where nothing is counted."""
    ratios = log_ratios.exp()
    clipped = {
        "low": (ratios < 1 - low) & (advantages < 0),
        "high": (ratios > 1 + high) & (advantages > 0),
    }
    return {f"clip/{head}_{side}": where[counted].float() for side, where in clipped.items() if counted.any()}


def kl_to_sampler(log_ratios: Tensor) -> Mapping[str, Tensor]:
    """Estimates in nats of KL(sampler || policy now) for each token, from log pi_now - log pi_recorded of the sampled
    actions [n]: `kl/sampler` is k3 (never negative, of low variance), `kl/sampler_k1` is k1 (unbiased).
    Schulman, "Approximating KL divergence", 2020."""
    return {"kl/sampler": torch.expm1(log_ratios) - log_ratios, "kl/sampler_k1": -log_ratios}
