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
from ouro_rl.training.objective.gate_calibration import calibration
from ouro_rl.training.objective.loop_price import PriceRule
from ouro_rl.training.objective.loss_metrics import clip_fractions, kl_to_sampler
from ouro_rl.training.objective.losses import gate_loss, token_loss
from ouro_rl.training.objective.probed_losses import (
    probed_gate_losses,
    spread_token_losses,
    stage_two_gate_loss,
)
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
            loop_prices=torch.full(depths.shape, price),
            of_rollouts=advantages,
            metrics={
                "gate/price": price,
                "gate/penalty": price * mean_depth,
                "groups/zero_variance": zero_variance(advantages, self.trainer.group_size),
            },
        )

    def losses(self, replayed: Replayed) -> Losses:
        """Losses of a micro batch. On the policy that sampled, their gradients are those of the objective."""
        decisions, probes, weights = self.decisions(replayed), replayed.probes, replayed.weights
        of_tokens = token_loss(
            replayed.token_logprobs, replayed.sampler_logprobs, replayed.advantages,
            self.trainer.clip_low, self.trainer.clip_high,
        )  # fmt: skip
        log_ratios = self._log_ratios(replayed, decisions)
        if probes is not None and self.trainer.credit != "sampled":
            ratios = log_ratios.exp().clamp(max=1 + self.trainer.clip_high)
            of_tokens = spread_token_losses(
                of_tokens, replayed, probes, ratios, self.trainer, self.gate, self.min_depth
            )
        token = (weights * of_tokens).sum()
        nats = decision_entropy(replayed.gate_logits, replayed.depths, self.min_depth)
        gate = self._gate_loss(replayed, decisions, log_ratios, nats)
        total = token if self.gate.mode == "off" else token + self.gate.loss_weight * gate
        metrics = {"gate/entropy": nats.detach(), **self._clipped(replayed, decisions), **kl_to_sampler(log_ratios)}
        if probes is not None:
            metrics |= calibration(probes.gate_logits, probes.token_logprobs, self.min_depth)
        return Losses(token=token, gate=gate, total=total, metrics=metrics)

    def _gate_loss(self, replayed: Replayed, decisions: Tensor, log_ratios: Tensor, nats: Tensor) -> Tensor:
        """The gate's loss, a scalar; `nats` [n]: the entropy of each token's decisions."""
        gate, probes, weights = self.gate, replayed.probes, replayed.weights
        if gate.mode == "policy":
            losses = gate_loss(decisions, replayed.depth_logprobs, replayed.gate_returns, gate.clip_low, gate.clip_high)
            if probes is not None and (gate.credit, gate.cost) != ("score", "sampled"):
                ratios = log_ratios.exp().clamp(max=1 + gate.clip_high)
                probed = probed_gate_losses(replayed, probes, decisions, ratios, gate, self.min_depth)
                losses = losses.index_put((probes.tokens,), probed)
            return (weights * (losses - gate.entropy_bonus * nats)).sum()
        if gate.mode == "stage2" and probes is not None:
            return stage_two_gate_loss(replayed, probes, gate.probe_share, self.min_depth)
        return torch.zeros_like(weights.sum())

    def _log_ratios(self, replayed: Replayed, decisions: Tensor) -> Tensor:
        """log pi_now - log pi_recorded of each sampled action, [n], detached: of the token, and of the depth too where
        the gate is trained as the policy."""
        of_tokens = (replayed.token_logprobs - replayed.sampler_logprobs).detach()
        if self.gate.mode != "policy":
            return of_tokens
        return of_tokens + (decisions.sum(1) - replayed.depth_logprobs).detach()

    def _clipped(self, replayed: Replayed, decisions: Tensor) -> dict[str, Tensor]:
        """Where clipping leaves no gradient, for both heads: values of metrics."""
        gate, counted = self.gate, replayed.weights > 0
        of_tokens = (replayed.token_logprobs - replayed.sampler_logprobs).detach()
        clipped = dict(
            clip_fractions(
                "token", of_tokens, replayed.advantages, self.trainer.clip_low, self.trainer.clip_high, counted
            )
        )
        if gate.mode == "policy":
            of_depths = (decisions.sum(1) - replayed.depth_logprobs).detach()
            made = decision_mask(self.max_loops, replayed.depths, self.min_depth).T & counted.unsqueeze(1)
            spread = of_depths.unsqueeze(1).expand_as(made)
            clipped |= clip_fractions("gate", spread, replayed.gate_returns, gate.clip_low, gate.clip_high, made)
        return clipped

    def decisions(self, replayed: Replayed) -> Tensor:
        """Log-probability of each decision that led to the recorded depths, [n, T - 1]; 0 where none was made."""
        return decision_logprobs(replayed.gate_logits, replayed.depths, self.min_depth).T

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps, as JSON."""
        return {"price_dual": self.price_dual}

    def restore(self, state: dict[str, Any]) -> None:
        self.price_dual = state["price_dual"]
