"""The objective of a config: scored rollouts -> credit of tokens and decisions; replayed log-probs -> losses.

State between updates is the controller's alone (`state`, `restore`); everything else is a pure function."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ouro_rl.config.train import TrainConfig
from ouro_rl.core.sampling_params import NO_DEPTH
from ouro_rl.model.policy.exit_gate import decision_entropy, decision_logprobs, decision_mask
from ouro_rl.training.objective.advantages import gate_returns, group_advantages, zero_variance
from ouro_rl.training.objective.loop_price import PriceRule
from ouro_rl.training.objective.loss_metrics import clip_fractions, kl_to_sampler
from ouro_rl.training.objective.losses import gate_loss, token_loss
from ouro_rl.training.objective.records import Credits, Losses, Replayed, Sampled


class Objective:
    """Chosen by the sections `gate` and `trainer` of a config. `max_loops`: T."""

    def __init__(self, config: TrainConfig, max_loops: int):
        self.gate, self.trainer = config.gate, config.trainer
        self.max_loops, self.min_depth = max_loops, config.rollout.min_depth
        self.price_rule = PriceRule(
            start=self.gate.price,
            warmup=self.gate.price_warmup,
            target_depth=self.gate.target_depth,
            rate=self.gate.price_rate,
            gain=self.gate.price_gain,
            largest=self.gate.price_max,
        )
        self.price_dual = self.gate.price

    def credit(self, sampled: Sampled, step: int) -> Credits:
        """Credit of all rollouts of the update after `step` updates; the price moves on."""
        advantages = group_advantages(sampled.rewards, self.trainer.group_size, self.trainer.scale_rewards)
        depths = sampled.depths
        mean_depth = (depths.sum() / (depths != NO_DEPTH).sum()).item()
        price = self.price_rule.price(self.price_dual, mean_depth, step)
        returns = gate_returns(advantages, depths, self.max_loops, price, self.min_depth)
        self.price_dual = self.price_rule.next_dual(self.price_dual, mean_depth)
        return Credits(
            advantages=advantages.unsqueeze(1).expand(depths.shape),
            gate_returns=returns,
            of_rollouts=advantages,
            metrics={
                "gate/price": price,
                "gate/penalty": price * mean_depth,
                "groups/zero_variance": zero_variance(advantages, self.trainer.group_size),
            },
        )

    def losses(self, replayed: Replayed) -> Losses:
        """Losses of a micro batch. On the policy that sampled, their gradients are those of the objective."""
        weights, gate = replayed.weights, self.gate
        of_tokens = token_loss(
            replayed.token_logprobs, replayed.sampler_logprobs, replayed.advantages,
            self.trainer.clip_low, self.trainer.clip_high,
        )  # fmt: skip
        token = (weights * of_tokens).sum()
        nats = decision_entropy(replayed.gate_logits, replayed.depths, self.min_depth)
        of_gate = torch.zeros_like(token)
        ratios = (replayed.token_logprobs - replayed.sampler_logprobs).detach()
        metrics = {"gate/entropy": nats.detach()} | clip_fractions(
            "token", ratios, replayed.advantages, self.trainer.clip_low, self.trainer.clip_high, weights > 0
        )
        if gate.mode == "policy":
            decisions = self.decisions(replayed)
            of_decisions = gate_loss(
                decisions, replayed.depth_logprobs, replayed.gate_returns, gate.clip_low, gate.clip_high
            )
            of_gate = (weights * (of_decisions - gate.entropy_bonus * nats)).sum()
            of_depths = (decisions.sum(1) - replayed.depth_logprobs).detach()
            made = decision_mask(self.max_loops, replayed.depths, self.min_depth).T & (weights > 0).unsqueeze(1)
            metrics |= clip_fractions(
                "gate",
                of_depths.unsqueeze(1).expand_as(made),
                replayed.gate_returns,
                gate.clip_low,
                gate.clip_high,
                made,
            )
            ratios = ratios + of_depths  # the action is the pair of token and depth
        total = token + gate.loss_weight * of_gate if gate.mode == "policy" else token
        return Losses(token=token, gate=of_gate, total=total, metrics=metrics | kl_to_sampler(ratios))

    def decisions(self, replayed: Replayed) -> Tensor:
        """Log-probability of each decision that led to the recorded depths, [n, T - 1]; 0 where none was made."""
        return decision_logprobs(replayed.gate_logits, replayed.depths, self.min_depth).T

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps, as JSON."""
        return {"price_dual": self.price_dual}

    def restore(self, state: dict[str, Any]) -> None:
        self.price_dual = state["price_dual"]
