"""Every objective, as pure functions of log-probs. No model, no trainer.

Loops come first in stacked tensors ([T, ...]); masks are boolean and say which tokens count.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ouro_rl.policy.exit_gate import exit_log_pdf, log_exit, log_stay

STAGE_TWO_SLOPE = 50.0
STAGE_TWO_MARGIN = 0.005


def stage_one_loss(loop_losses: Tensor, gate_logits: Tensor, beta: float) -> Tensor:
    """mean over tokens of sum_t p_t L_t - beta H(p) (arXiv 2510.25741, Stage I).

    `loop_losses` [T, n]: cross-entropy of each loop in nats; `gate_logits` [T, n]."""
    log_pdf = exit_log_pdf(gate_logits)
    pdf = log_pdf.exp()
    return ((pdf * loop_losses).sum(0) + beta * (pdf * log_pdf).sum(0)).mean()


def stage_two_loss(loop_losses: Tensor, gate_logits: Tensor) -> Tensor:
    """Binary cross-entropy of continuing against whether the next loop helps (arXiv 2510.25741, Stage II).

    For t = 2..T: I_t = max(0, L_{t-1} - L_t), w_t = sigmoid(50 (I_t - 0.005)), and 1 - lambda_{t-1}, the decision to run loop t,
    is drawn towards w_t. `loop_losses` and `gate_logits` [T, n]; no gradient goes to the losses."""
    gain = (loop_losses[:-1] - loop_losses[1:]).clamp(min=0).detach()
    worth = torch.sigmoid(STAGE_TWO_SLOPE * (gain - STAGE_TWO_MARGIN))
    stay, leave = log_stay(gate_logits[:-1]), log_exit(gate_logits[:-1])
    return -(worth * stay + (1 - worth) * leave).mean()


def loop_cross_entropies(loop_logits: Tensor, targets: Tensor) -> Tensor:
    """[T, n, vocab], targets [n] -> cross-entropy [T, n] in nats, in fp32."""
    loops, count, vocab = loop_logits.shape
    flat = F.cross_entropy(
        loop_logits.float().reshape(-1, vocab), targets.expand(loops, count).reshape(-1), reduction="none"
    )
    return flat.view(loops, count)


def token_weights(lengths: Tensor, loss_type: str, *, max_new_tokens: int, tokens_in_update: float) -> Tensor:
    """Weight of every token of a micro batch [n sequences] -> [sum of lengths], in TRL's loss types.

    `grpo`: mean over sequences of the mean over tokens. `bnpo`: mean over the micro batch's tokens. `dr_grpo`: sum over
    sequences x longest completion allowed. `dapo`: sum over `tokens_in_update`, the tokens of the whole update on one
    device. All but `dapo` are still to be divided by the number of micro batches."""
    count = len(lengths)
    per_sequence = {
        "grpo": 1.0 / (lengths.clamp(min=1) * count),
        "bnpo": torch.full_like(lengths, 1.0, dtype=torch.float32) / lengths.sum().clamp(min=1),
        "dr_grpo": torch.full_like(lengths, 1.0 / (count * max_new_tokens), dtype=torch.float32),
        "dapo": torch.full_like(lengths, 1.0 / max(1.0, tokens_in_update), dtype=torch.float32),
    }[loss_type]
    return per_sequence.float().repeat_interleave(lengths)


def clipped(ratio: Tensor, advantage: Tensor, low: float, high: float) -> Tensor:
    """PPO's pessimistic surrogate, as a loss: -min(r A, clip(r, 1 - low, 1 + high) A). Any shape."""
    return -torch.min(ratio * advantage, ratio.clamp(1 - low, 1 + high) * advantage)


def token_loss(logprobs: Tensor, sampler_logprobs: Tensor, advantages: Tensor, low: float, high: float) -> Tensor:
    """The token head's loss of each token [n]; importance weights are taken from the recorded log-probs."""
    return clipped((logprobs - sampler_logprobs).exp(), advantages, low, high)


def gate_loss(decisions: Tensor, depth_logprobs: Tensor, returns: Tensor, low: float, high: float) -> Tensor:
    """The gate's loss of each token: the sum over its decisions of a clipped policy gradient.

    `decisions` [n, T - 1]: log-probability of each decision now, 0 where none was taken; `depth_logprobs` [n]: the recorded
    log p(d); `returns` [n, T - 1] from `gate_returns`. The workers record the probability of the whole depth, so the
    importance weight of a token is one number for all its decisions; the gradient of each decision is weighted by its
    own return (the loops that *it* caused)."""
    ratio = (decisions.sum(1) - depth_logprobs).exp().detach().unsqueeze(1)
    ratio = ratio * (decisions - decisions.detach()).exp()
    return clipped(ratio, returns, low, high).sum(1)
