"""Depths, their log-probability and entropy from the whole exit distribution; per-loop decisions must match these."""

from __future__ import annotations

import torch
from torch import Tensor

from ouro_rl.model.policy.exit_gate import decision_logprobs, exit_log_pdf, log_quantile, log_stay


def depth_logprobs(gate_logits: Tensor, depths: Tensor, min_depth: int = 1) -> Tensor:
    """log p(d) of the recorded depths. `gate_logits` [T, ...], `depths` [...] in min_depth..T -> [...].

    Positions with `NO_DEPTH` give 0. Gate logits beyond a token's depth are never read (they may be anything
    finite)."""
    return decision_logprobs(gate_logits, depths, min_depth).sum(0)


def gate_entropy(gate_logits: Tensor, min_depth: int = 1) -> Tensor:
    """Entropy of the exit distribution in nats. [T, ...] -> [...]."""
    log_pdf = exit_log_pdf(gate_logits, min_depth)[min_depth - 1 :]
    return -(log_pdf.exp() * log_pdf).sum(0)


def threshold_depths(gate_logits: Tensor, threshold: float, min_depth: int = 1) -> Tensor:
    """The paper's Q-exit: the first loop whose cumulative exit probability is >= `threshold`. [T, ...] -> depths [...].

    Compares log S_t <= log(1 - q), so that q = 1 never exits early, at any precision."""
    max_loops = gate_logits.shape[0]
    log_survival = log_stay(gate_logits[min_depth - 1 : -1]).cumsum(0)
    reached = log_survival <= log_quantile(torch.tensor(threshold))
    return max_loops - reached.sum(0)
