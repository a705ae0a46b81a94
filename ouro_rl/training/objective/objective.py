"""The objective of a config: scored rollouts -> credit of tokens and decisions; replayed log-probs -> losses.

State between updates is the controller's alone (`state`, `restore`); everything else is a pure function. The formulas:
docs/method.md, "Objective"."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from ouro_rl.config.gate import GateConfig
from ouro_rl.config.train import TrainConfig
from ouro_rl.core.sampling_params import NO_DEPTH
from ouro_rl.model.policy.exit_gate import decision_entropy, decision_logprobs, decision_mask, log_stay
from ouro_rl.training.objective import loop_costs
from ouro_rl.training.objective.advantages import group_advantages, only_best, reward_scales
from ouro_rl.training.objective.controller import ControllerState, PriceRule
from ouro_rl.training.objective.gate_calibration import calibration
from ouro_rl.training.objective.loss_metrics import clip_fractions, kl_to_sampler
from ouro_rl.training.objective.losses import gate_loss, rest_of_ratio, token_loss
from ouro_rl.training.objective.probed_losses import (
    probed_gate_losses,
    spread_token_losses,
    stage_two_gate_loss,
)
from ouro_rl.training.objective.records import Credits, Losses, Replayed, Sampled
from ouro_rl.training.objective.variety import to_follow, visited_information


@dataclass(frozen=True, kw_only=True)
class LogRatios:
    """log pi_now - log pi_recorded of each sampled token and depth, [n] each, without gradient."""

    token: Tensor
    depth: Tensor
    """0 where the depth was not the gate's to draw."""

    @property
    def joint(self) -> Tensor:
        return self.token + self.depth


class Objective:
    """Chosen by the sections `gate` and `trainer` of a config. `max_loops`: T."""

    def __init__(self, config: TrainConfig, max_loops: int):
        self.gate, self.trainer = config.gate, config.trainer
        self.max_loops, self.min_depth = max_loops, config.rollout.min_depth
        self.draws_depths = config.rollout.exit_rule.kind == "sample"
        self.price_rule = price_rule(config.gate)
        self.controller = self.price_rule.first_state()

    def credit(self, sampled: Sampled, step: int) -> Credits:
        """Credit of all rollouts of the update after `step` updates; the price moves on."""
        price = self._move_price(sampled, step)
        rewards, size = self._rewards(sampled, price), self.trainer.group_size
        of_tokens = group_advantages(rewards, size, self.trainer.scale_rewards)
        of_gate = group_advantages(rewards, size, "none")
        weights = loop_costs.payment_weights(
            sampled.rewards.where(sampled.by_gate, torch.nan), sampled.finished, size,
            solved_reward=self.gate.solved_reward, solved_only=self.gate.price_on == "solved",
        )  # fmt: skip
        paid = (price if self.gate.price_in == "returns" else 0.0) * weights
        to_come = loop_costs.excess_to_come(sampled.depths, weights > 0, size)
        to_come = self.gate.kappa * paid.unsqueeze(1) * to_come
        extra, of_stays = self._own_loops(sampled.depths, weights)
        made = decision_mask(self.max_loops, sampled.depths, self.min_depth) & sampled.by_gate.view(1, -1, 1)
        drawn = sampled.by_gate.unsqueeze(1)
        gate_advantages = (of_gate.unsqueeze(1) - to_come) * drawn
        returns = (gate_advantages - paid.view(1, -1, 1) * extra) * made
        hazards = loop_costs.exit_hazards(sampled.depths, sampled.by_gate, self.max_loops, self.min_depth)
        loops = (weights * sampled.depths.sum(1)).mean().item()
        metrics = {
            "gate/price": price,
            "gate/penalty": price * loops,
            "gate/paying": (weights > 0).float().mean().item(),
        }
        if self.controller.setpoint is not None:
            metrics["gate/setpoint"] = self.controller.setpoint
        scales = reward_scales(rewards, size, self.trainer.scale_rewards).unsqueeze(1)
        return Credits(
            advantages=of_tokens.unsqueeze(1) - to_come / scales,
            gate_returns=returns.permute(1, 2, 0),
            gate_advantages=gate_advantages,
            loop_prices=paid.unsqueeze(1) * drawn.expand(sampled.depths.shape),
            stay_costs=paid.unsqueeze(1) * of_stays,
            hazards=hazards.expand(len(weights), -1),
            by_gate=sampled.by_gate,
            of_rollouts=of_tokens,
            metrics=metrics,
        )

    def _rewards(self, sampled: Sampled, price: float) -> Tensor:
        """The rewards that advantages are made of, [N]."""
        rewards, loops = sampled.rewards, sampled.depths.sum(1)
        if self.gate.keep_best is not None:
            rewards = only_best(rewards, loops, self.trainer.group_size, self.gate.keep_best)
        return rewards - price * loops if self.gate.price_in == "reward" else rewards

    def _own_loops(self, depths: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Extra loops of each decision [T - 1, N, C] against the batch's mean, where that is the baseline; and the mean
        extra loops of those that stayed [T - 1], where the baseline is the state's, or 0."""
        extra = loop_costs.extra_loops(depths, self.max_loops, self.min_depth, self.gate.depth_floor)
        made = decision_mask(self.max_loops, depths, self.min_depth)
        if self.gate.baseline == "batch":
            mean = loop_costs.mean_extra(extra, made, weights)
            return extra - mean.view(-1, 1, 1), torch.zeros_like(mean)
        stayed = made & (depths > torch.arange(1, self.max_loops).view(-1, 1, 1))
        return extra, loop_costs.mean_extra(extra, stayed, weights)

    def _move_price(self, sampled: Sampled, step: int) -> float:
        depths = sampled.depths[sampled.by_gate]
        tokens = depths != NO_DEPTH
        answers = tokens.any(1)  # what is lost is none
        count = (answers if self.gate.target_loops is not None else tokens).sum().item()
        measured = depths.sum().item() / max(1, count)
        reward = sampled.rewards[sampled.by_gate].nanmean().item()
        price, self.controller = self.price_rule.next(self.controller, measured, reward, step)
        return price

    def losses(self, replayed: Replayed) -> Losses:
        """Losses of a micro batch. On the policy that sampled, their gradients are those of the objective."""
        decisions, probes, weights = self.decisions(replayed), replayed.probes, replayed.weights
        ratios = self._log_ratios(replayed, decisions)
        of_tokens = token_loss(
            replayed.token_logprobs, replayed.sampler_logprobs, replayed.advantages,
            self.trainer.clip_low, self.trainer.clip_high,
        )  # fmt: skip
        of_tokens = of_tokens * self._rest(replayed, ratios.token, ratios.depth)
        if probes is not None and self.trainer.credit != "sampled":
            joint = ratios.joint.exp().clamp(max=1 + self.trainer.clip_high)
            of_tokens = spread_token_losses(of_tokens, replayed, probes, joint, self.trainer, self.gate, self.min_depth)
        token = (weights * of_tokens).sum()
        information = visited_information(replayed.gate_logits, replayed.depths, replayed.hazards, self.min_depth)
        information = information * replayed.by_gate.unsqueeze(1)
        bonus = self._bonus(replayed, information.detach())
        returns = self._returns(replayed) + bonus
        gate = self._gate_loss(replayed, decisions, returns, bonus, information.sum(1), ratios)
        total = token if self.gate.mode == "off" else token + self.gate.loss_weight * gate
        nats = decision_entropy(replayed.gate_logits, replayed.depths, self.min_depth)
        metrics = {"gate/entropy": nats.detach(), "gate/information": information.sum(1).detach()[replayed.by_gate]}
        metrics |= self._clipped(replayed, returns, ratios) | dict(kl_to_sampler(ratios.joint))
        if probes is not None:
            metrics |= calibration(probes.gate_logits, probes.token_logprobs, self.min_depth)
        return Losses(token=token, gate=gate, total=total, metrics=metrics)

    def _log_ratios(self, replayed: Replayed, decisions: Tensor) -> LogRatios:
        """The depth is part of the action wherever the gate drew it for the sampled token, also a gate that is frozen
        or learns Stage II's labels: with the states that it reads its probability moves, too. (The exit rule
        `simulated` draws depths for the loss alone.)"""
        token = (replayed.token_logprobs - replayed.sampler_logprobs).detach()
        depth = (decisions.sum(1) - replayed.depth_logprobs).detach()
        drawn = replayed.by_gate if self.draws_depths else torch.zeros_like(replayed.by_gate)
        return LogRatios(token=token, depth=torch.where(drawn, depth, torch.zeros_like(depth)))

    def _rest(self, replayed: Replayed, own: Tensor, other: Tensor) -> Tensor:
        whole = replayed.lengths if self.trainer.importance == "sequence" else None
        return rest_of_ratio(own, other, whole, self.trainer.importance_cap)

    def _made(self, replayed: Replayed) -> Tensor:
        """Where the gate made a decision, bool [n, T - 1]."""
        return decision_mask(self.max_loops, replayed.depths, self.min_depth).T

    def _returns(self, replayed: Replayed) -> Tensor:
        """Returns of the decisions [n, T - 1], with the state's baseline of the cost."""
        stay = log_stay(replayed.gate_logits[:-1]).exp().T.detach()
        return replayed.gate_returns + self._made(replayed) * stay * replayed.stay_costs

    def _bonus(self, replayed: Replayed, information: Tensor) -> Tensor:
        """What the information to follow adds to the returns [n, T - 1]."""
        return self._made(replayed) * self.gate.variety_bonus * to_follow(information)

    def _gate_loss(
        self,
        replayed: Replayed,
        decisions: Tensor,
        returns: Tensor,
        bonus: Tensor,
        information: Tensor,
        ratios: LogRatios,
    ) -> Tensor:
        """The gate's loss, a scalar; `bonus`: what of `returns` comes of variety; `information` [n]: of each token,
        with gradient."""
        gate, probes, weights = self.gate, replayed.probes, replayed.weights
        if gate.mode == "policy":
            rest = self._rest(replayed, ratios.depth, ratios.token)
            losses = rest * gate_loss(decisions, replayed.depth_logprobs, returns, gate.clip_low, gate.clip_high)
            if probes is not None and (gate.credit, gate.cost) != ("score", "sampled"):
                probed = probed_gate_losses(
                    replayed, probes, decisions, returns, bonus, rest,
                    ratios.joint.exp().clamp(max=1 + gate.clip_high), gate, self.min_depth,
                )  # fmt: skip
                losses = losses.index_put((probes.tokens,), probed)
            direct = ratios.depth.exp().clamp(max=1 + gate.clip_high) * information  # `losses` have the ratio already
            return (weights * (losses - gate.variety_bonus * rest * direct)).sum()
        if gate.mode == "stage2" and probes is not None:
            return stage_two_gate_loss(replayed, probes, gate.probe_share, self.min_depth)
        return torch.zeros_like(weights.sum())

    def _clipped(self, replayed: Replayed, returns: Tensor, ratios: LogRatios) -> dict[str, Tensor]:
        """Where clipping leaves no gradient, for both heads: values of metrics."""
        gate, trainer, counted = self.gate, self.trainer, replayed.weights > 0
        clipped = dict(
            clip_fractions("token", ratios.token, replayed.advantages, trainer.clip_low, trainer.clip_high, counted)
        )
        if gate.mode == "policy":
            made = self._made(replayed) & (counted & replayed.by_gate).unsqueeze(1)
            of_depths = ratios.depth.unsqueeze(1).expand_as(made)
            clipped |= clip_fractions("gate", of_depths, returns, gate.clip_low, gate.clip_high, made)
        return clipped

    def decisions(self, replayed: Replayed) -> Tensor:
        """Log-probability of each decision that led to the recorded depths, [n, T - 1]; 0 where none was made."""
        return decision_logprobs(replayed.gate_logits, replayed.depths, self.min_depth).T

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps, as JSON."""
        return {"controller": asdict(self.controller)}

    def restore(self, state: dict[str, Any]) -> None:
        kept = state["controller"]
        self.controller = ControllerState(**kept | {"rewards": tuple(kept["rewards"])})


def price_rule(gate: GateConfig) -> PriceRule:
    return PriceRule(
        start=gate.price,
        target=gate.target,
        rate=gate.price_rate,
        gain=gate.price_gain,
        largest=gate.price_max,
        window=gate.price_window,
        tighten=gate.target_step,
        after=gate.price_after,
        warmup=gate.price_warmup,
    )
