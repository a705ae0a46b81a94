"""The losses of Stage I and Stage II (arXiv 2510.25741)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ouro_rl.model.policy.exit_gate import exit_log_pdf, log_exit, log_stay

STAGE_TWO_SLOPE = 50.0
STAGE_TWO_MARGIN = 0.005
"""Labels are above 1/2 for gains above this, in nats."""


def stage_one_loss(loop_losses: Tensor, gate_logits: Tensor, beta: float) -> Tensor:
    """Mean over tokens of sum_t p_t L_t - beta H(p) (arXiv 2510.25741, Stage I).

    `loop_losses` [T, n]: cross-entropy of each loop, in nats; `gate_logits` [T, n]."""
    log_pdf = exit_log_pdf(gate_logits)
    pdf = log_pdf.exp()
    return ((pdf * loop_losses).sum(0) + beta * (pdf * log_pdf).sum(0)).mean()


def stage_two_losses(loop_losses: Tensor, gate_logits: Tensor, min_depth: int = 1) -> Tensor:
    """Binary cross-entropy of continuing against whether the next loop helps, for each token (arXiv 2510.25741,
    Stage II).

    For t = 2..T: I_t = max(0, L_{t-1} - L_t) and w_t = sigmoid(50 (I_t - 0.005)); w_t is the target of 1 -
    lambda_{t-1}, the probability of running loop t. `loop_losses` and `gate_logits` [T, n] -> [n], the mean over the
    loops at which the gate decides, 0 without any; no gradient flows to the losses."""
    asked = slice(min_depth - 1, -1)
    gain = (loop_losses[:-1] - loop_losses[1:])[min_depth - 1 :].clamp(min=0).detach()
    worth = torch.sigmoid(STAGE_TWO_SLOPE * (gain - STAGE_TWO_MARGIN))
    stay, leave = log_stay(gate_logits[asked]), log_exit(gate_logits[asked])
    return -(worth * stay + (1 - worth) * leave).sum(0) / max(1, len(stay))


def loop_cross_entropies(loop_logits: Tensor, targets: Tensor) -> Tensor:
    """Logits [T, n, vocab] and targets [n], or [T, n] if each loop has its own -> cross-entropy [T, n] in nats,
    computed in fp32."""
    loops, count, vocab = loop_logits.shape
    flat = F.cross_entropy(
        loop_logits.float().reshape(-1, vocab), targets.expand(loops, count).reshape(-1), reduction="none"
    )
    return flat.view(loops, count)
