"""Losses of both heads where tokens were probed: credit over depth, the exact expected cost, Stage II's labels.

Other tokens keep the losses of what was sampled (`losses.py`); `gate.mode: stage2` has none for them."""

from __future__ import annotations

import torch
from torch import Tensor

from ouro_rl.config.gate import GateConfig
from ouro_rl.config.trainer import TrainerConfig
from ouro_rl.model.policy.exit_gate import decision_mask, exit_log_pdf, expected_depth
from ouro_rl.training.objective.depth_credit import depth_posterior, loop_weights, mixed, spread_loss
from ouro_rl.training.objective.losses import gate_loss
from ouro_rl.training.objective.records import Probes, Replayed
from ouro_rl.training.warmstart.losses import stage_two_losses


def spread_token_losses(
    score: Tensor, replayed: Replayed, probes: Probes, ratios: Tensor, trainer: TrainerConfig, gate: GateConfig,
    min_depth: int,
) -> Tensor:  # fmt: skip
    """Losses of the token head [n] under `trainer.credit`; `score` [n] are those of the sampled loops alone.

    `ratios` [n]: importance weights. Recorded probabilities are those of the loop that was drawn, so all loops of a
    token share one."""
    log_pdf = exit_log_pdf(probes.gate_logits, min_depth)
    advantages, ratios = replayed.advantages[probes.tokens], ratios[probes.tokens]
    if trainer.credit == "rao_blackwell":
        weights, eta = depth_posterior(log_pdf, probes.token_logprobs), gate.eta
    else:
        weights, eta = loop_weights(trainer.credit, log_pdf), 0.0
    return mixed(score, spread_loss(weights, probes.token_logprobs, advantages, ratios), probes.tokens, eta)


def probed_gate_losses(
    replayed: Replayed, probes: Probes, decisions: Tensor, returns: Tensor, bonus: Tensor, rest: Tensor,
    ratios: Tensor, gate: GateConfig, min_depth: int,
) -> Tensor:  # fmt: skip
    """Losses of the gate [k] for the probed tokens, under `gate.credit` and `gate.cost`.

    `decisions`, `returns` [n, T - 1]: the returns are the advantage, which credit over depth is about, the price of the
    token's own loops, and the `bonus` of variety [n, T - 1], which comes of the sampled loops alone. `rest` [n]: what
    the sampled losses lack of the joint importance ratio; `ratios` [n]: all of it, for those that are spread over the
    loops."""
    tokens, log_pdf = probes.tokens, exit_log_pdf(probes.gate_logits, min_depth)
    taken = decision_mask(len(log_pdf), replayed.depths[tokens], min_depth).T
    earned = replayed.gate_advantages[tokens]
    rewards = earned.unsqueeze(1) * taken

    def sampled(returns: Tensor) -> Tensor:
        logprobs = replayed.depth_logprobs[tokens]
        return rest[tokens] * gate_loss(decisions[tokens], logprobs, returns, gate.clip_low, gate.clip_high)

    of_reward = sampled(rewards)
    if gate.credit == "rao_blackwell":
        posterior = depth_posterior(log_pdf, probes.token_logprobs)
        spread = spread_loss(posterior, log_pdf, earned, ratios[tokens])
        of_reward = torch.lerp(spread, of_reward, gate.eta)
    if gate.cost == "expected":
        cost = expected_depth(probes.gate_logits, min_depth, gate.depth_floor)
        return of_reward + replayed.loop_prices[tokens] * cost + sampled(bonus[tokens])
    return of_reward + sampled(returns[tokens] - rewards)


def stage_two_gate_loss(replayed: Replayed, probes: Probes, share: float, min_depth: int) -> Tensor:
    """Stage II's loss on the sampled tokens, a scalar: it moves the gate alone.

    `share` of the samples are probed: their weights are divided by it, so that the mean does not depend on it."""
    nats = stage_two_losses(-probes.token_logprobs, probes.detached_gate_logits, min_depth)
    return (replayed.weights[probes.tokens] * nats).sum() / share
