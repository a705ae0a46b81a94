"""GRPO with recorded depths: TRL's trainer with its generation and its loss replaced.

TRL and transformers provide batching and prompt order, gradient accumulation, distributed training (accelerate),
schedules, checkpoints and resuming. Replaced here: rollouts come from the looped engine, the loss replays each token at
its sampled depth, and the exit gate is optimized along with the token head, with its own learning rate and clipping.
`tests/ouro_rl/training/test_trl_seams.py` fails when the methods overridden here change in TRL.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from accelerate.utils import broadcast_object_list, gather_object
from datasets import Dataset
from torch import Tensor
from transformers import PrinterCallback

from ouro_rl.config.train import TrainConfig
from ouro_rl.core.errors import RunError
from ouro_rl.core.rollout import Prompt, ScoredRollout
from ouro_rl.model.modeling_ouro import GATE_PARAMETERS, OuroForCausalLM
from ouro_rl.model.policy.exit_gate import check_depth_policy, decision_entropy, decision_logprobs, tempered
from ouro_rl.run_dir.rollout_record import rollout_record
from ouro_rl.run_dir.run_dir import RunDir
from ouro_rl.training.advantages import gate_returns, group_advantages
from ouro_rl.training.batch import (
    Batch,
    apply,
    check_depth_policies,
    check_filters,
    collate,
    depth_matrix,
    replay_inputs,
)
from ouro_rl.training.loop_price import PriceRule
from ouro_rl.training.losses import gate_loss, token_loss, token_weights
from ouro_rl.training.resumable_trainer import ResumableTrainer
from ouro_rl.training.rollout_metrics import rollout_metrics, unscored_message
from ouro_rl.training.step_metrics import StepMetrics
from ouro_rl.training.token_logprobs import replay_batch
from ouro_rl.training.trl_config import MEAN_SHARE, gap_limit, grpo_config, no_trl_reward

RolloutSource = Callable[[Sequence[Prompt], int], tuple[list[ScoredRollout], dict[str, float]]]
"""(prompts, step) -> scored rollouts, group by group, and timings by metric name; called on the main process only."""


class OuroGRPOTrainer(ResumableTrainer):
    """`rollout_source` samples and scores; `publish(weights, version)` sends out weights. None off the main process."""

    model: OuroForCausalLM

    def __init__(
        self,
        model,
        tokenizer,
        config: TrainConfig,
        prompts: Sequence[Prompt],
        *,
        rollout_source: RolloutSource | None,
        publish: Callable[[Mapping[str, Tensor], int], None] | None,
        run_dir: RunDir,
        callbacks=(),
    ):
        self.train_config, self.run_dir = config, run_dir
        self.rollout_source, self.publish = rollout_source, publish
        self.prompts = prompts
        trained = model.config.total_ut_steps
        self.depth_policy, self.filters = config.rollout.depth_policy(), config.rollout.filters()
        check_depth_policy(self.depth_policy, config.rollout.exit_rule.rule(), trained)
        self.max_loops = self.depth_policy.max_loops(trained)
        model.model.compute_dtype, model.model.exact = getattr(torch, config.model.dtype), config.rollout.exact
        self.published_version = -1  # nothing is published yet
        self.price_rule = PriceRule(
            start=config.gate.price,
            warmup=config.gate.price_warmup,
            target_depth=config.gate.target_depth,
            rate=config.gate.price_rate,
            gain=config.gate.price_gain,
            largest=config.gate.price_max,
        )
        self.price_dual = config.gate.price
        self._token_texts = functools.cache(lambda token: tokenizer.decode([token]))
        self.step_metrics = StepMetrics()
        if config.gate.mode == "off":
            for name, parameter in model.named_parameters():
                if name.endswith(GATE_PARAMETERS):
                    parameter.requires_grad_(False)
        super().__init__(
            model=model,
            reward_funcs=no_trl_reward,
            args=grpo_config(config, run_dir),
            train_dataset=Dataset.from_dict({"prompt": [""] * len(prompts), "index": list(range(len(prompts)))}),
            processing_class=tokenizer,
            callbacks=list(callbacks),
        )
        self.remove_callback(PrinterCallback)

    # -- rollouts ------------------------------------------------------------------------------------------------------

    def _generate_and_score_completions(self, inputs: list[dict]) -> Batch:  # type: ignore[override] # is a dict of tensors
        """Replaces TRL's generation, scoring and advantages -> the tensors of `collate`.

        `inputs` are the dataset rows of this process, each prompt repeated `group_size` times. The main process samples
        for all processes, and each takes its own slice."""
        indices = gather_object([row["index"] for row in inputs])
        self._publish_weights()
        shared: list = [None]
        if self.accelerator.is_main_process:
            shared = [self._sample(indices[:: self.train_config.trainer.group_size])]
        if self.accelerator.num_processes > 1:
            broadcast_object_list(shared)
        scored: list[ScoredRollout] = shared[0]
        advantages, returns = self._advantages(scored)
        first = self.accelerator.process_index * len(inputs)
        mine = slice(first, first + len(inputs))
        batch = collate(
            [item.rollout for item in scored[mine]], advantages[mine], returns[mine], self._tokenizer.pad_token_id
        )
        tokens = sum(len(item.rollout.completion_ids) for item in scored)
        batch["num_items_in_batch"] = torch.tensor(float(tokens))
        batch["policy_version"] = torch.tensor(self.published_version)
        return apply(batch, lambda tensor: tensor.to(self.accelerator.device))

    def _publish_weights(self) -> None:
        version = self.state.global_step
        if version == self.published_version:
            return
        started = time.monotonic()
        state = self.accelerator.get_state_dict(self.model)
        if self.accelerator.is_main_process:
            assert self.publish is not None
            self.publish(state, version)
        self.published_version = version
        self.step_metrics.set("time/sync_s", time.monotonic() - started)

    def _sample(self, indices: Sequence[int]) -> list[ScoredRollout]:
        assert self.rollout_source is not None
        scored, timings = self.rollout_source([self.prompts[index] for index in indices], self.state.global_step + 1)
        spent = {name: seconds for name, seconds in timings.items() if name.startswith("time/")}
        self.step_metrics.update(spent)
        rollouts = [item.rollout for item in scored]
        check_depth_policies(rollouts, self.depth_policy)
        check_filters(rollouts, self.temperature, self.filters)
        metrics = rollout_metrics(scored, self.max_loops, self.published_version)
        if metrics["reward/unscored"] > self.train_config.rewards.max_unscored:
            raise RunError(unscored_message(scored, metrics["reward/unscored"], self.train_config.rewards.max_unscored))
        self.step_metrics.new_batch(metrics | {name: timings[name] for name in timings.keys() - spent.keys()})
        return scored

    def _advantages(self, scored: Sequence[ScoredRollout]) -> tuple[Tensor, Tensor]:
        """Advantages [n] and the gate's returns [n, C, T - 1] of the whole update; also updates the price per loop."""
        rewards = torch.tensor([float("nan") if item.reward is None else item.reward for item in scored])
        trainer = self.train_config.trainer
        advantages = group_advantages(rewards, trainer.group_size, trainer.scale_rewards)
        depths = depth_matrix([item.rollout for item in scored])
        mean_depth = (depths.sum() / (depths > 0).sum()).item()
        price = self.price_rule.price(self.price_dual, mean_depth, self.state.global_step)
        returns = gate_returns(advantages, depths, self.max_loops, price, self.depth_policy.min_depth)
        if self.accelerator.is_main_process:
            self.step_metrics.describe({"gate/price": price, "gate/penalty": price * mean_depth})
            self._record(scored, advantages)
        self.price_dual = self.price_rule.next_dual(self.price_dual, mean_depth)
        return advantages, returns

    def _record(self, scored: Sequence[ScoredRollout], advantages: Tensor) -> None:
        step, text = self.state.global_step + 1, self._token_texts
        records = [
            rollout_record(item, advantage, step, [text(token) for token in item.rollout.completion_ids])
            for item, advantage in zip(scored, advantages.tolist(), strict=True)
        ]
        self.run_dir.write_rollouts(step, records)

    # -- loss ----------------------------------------------------------------------------------------------------------

    def _compute_loss(self, model, inputs: Batch) -> Tensor:
        """Replaces TRL's loss: replay at the recorded depths, then the clipped losses of both heads."""
        gate, trainer = self.train_config.gate, self.train_config.trainer
        mask = inputs["completion_mask"].bool()
        policy_logprobs, token_nats, gate_logits = replay_batch(
            model,
            inputs,
            replay_inputs(inputs, self.max_loops),
            max_loops=self.max_loops,
            kv_rule=self.depth_policy.kv_rule,
            temperature=self.temperature,
            filters=self.filters,
        )
        gate_logits = tempered(gate_logits, self.depth_policy.gate_temperature)
        depths = inputs["depths"][mask]
        min_depth = self.depth_policy.min_depth
        decisions = decision_logprobs(gate_logits, depths, min_depth).T
        lengths = mask.sum(1)
        weights = token_weights(
            lengths,
            trainer.loss_type,
            max_new_tokens=self.train_config.rollout.max_new_tokens,
            tokens_in_update=inputs["num_items_in_batch"].item() / self.accelerator.num_processes,
        )
        if trainer.loss_type != "dapo":
            weights = weights / self.current_gradient_accumulation_steps
        advantages = inputs["advantages"].repeat_interleave(lengths)
        of_tokens = token_loss(
            policy_logprobs, inputs["sampler_logprobs"][mask], advantages, trainer.clip_low, trainer.clip_high
        )
        loss_token = (weights * of_tokens).sum()
        loss, loss_gate = loss_token, torch.zeros_like(loss_token)
        gate_nats = decision_entropy(gate_logits, depths, min_depth)
        if gate.mode == "policy":
            of_gate = gate_loss(
                decisions, inputs["depth_logprobs"][mask], inputs["gate_returns"][mask], gate.clip_low, gate.clip_high
            )
            loss_gate = (weights * (of_gate - gate.entropy_bonus * gate_nats)).sum()
            loss = loss_token + gate.loss_weight * loss_gate
        with torch.no_grad():
            self._measure(inputs, mask, policy_logprobs, decisions.sum(1))
            self.step_metrics.add("loss/token", loss_token.item())
            self.step_metrics.add("loss/gate", loss_gate.item())
            self.step_metrics.mean("gate/entropy", gate_nats.mean().item(), len(depths))
            self.step_metrics.mean("token/entropy", token_nats.mean().item(), len(depths))
        return loss

    def _measure(self, inputs: Batch, mask: Tensor, token: Tensor, depth: Tensor) -> None:
        """The gap between the worker's log-probs and the replayed ones, while the weights are the same.

        Updates that reuse a batch report none. Raises RunError if the gap exceeds its limit."""
        if int(inputs["policy_version"]) != self.state.global_step:
            return
        gaps = torch.stack(
            [(token - inputs["sampler_logprobs"][mask]).abs(), (depth - inputs["depth_logprobs"][mask]).abs()]
        )
        worst = self.accelerator.gather(gaps.max()).max().item()
        self.step_metrics.largest("logp_gap/max", worst)
        mean = self.accelerator.gather(gaps.mean()).mean().item()
        self.step_metrics.mean("logp_gap/mean", mean, gaps.shape[1])
        limit = gap_limit(self.train_config)
        if not (worst <= limit and mean <= MEAN_SHARE * limit):
            raise RunError(
                f"step {self.state.global_step}: worker and trainer disagree by {worst:.3g} nats on a log-prob "
                f"(limit {limit:g}), by {mean:.3g} on average (limit {MEAN_SHARE * limit:g}).\n"
                "Rollouts do not come from the policy in training; raise trainer.logp_gap_limit only if you know why"
            )

    # -- optimizer, log ------------------------------------------------------------------------------------------------

    def create_optimizer(self, model=None) -> torch.optim.Optimizer:
        """AdamW with a separate parameter group for the gate."""
        if self.optimizer is None:
            named = [(name, p) for name, p in (model or self.model).named_parameters() if p.requires_grad]
            matrices = [p for name, p in named if p.dim() > 1 and not name.endswith(GATE_PARAMETERS)]
            vectors = [p for name, p in named if p.dim() <= 1 and not name.endswith(GATE_PARAMETERS)]
            gate = [p for name, p in named if name.endswith(GATE_PARAMETERS)]
            groups = [
                {"params": matrices, "weight_decay": self.args.weight_decay},
                {"params": vectors, "weight_decay": 0.0},
                {"params": gate, "weight_decay": 0.0, "lr": self.train_config.gate.lr},
            ]
            optimizer_class, settings = self.get_optimizer_cls_and_kwargs(self.args, self.model)
            self.optimizer = optimizer_class([group for group in groups if group["params"]], **settings)
        return self.optimizer

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Append one row to `metrics.jsonl` per update; the final summary of transformers is not part of that file."""
        self._metrics["train"].clear()
        if "loss" in logs and self.accelerator.is_main_process:
            self.step_metrics.set("staleness/mean", self.state.global_step - 1 - self.published_version)
            row: dict[str, Any] = {
                "step": self.state.global_step,
                **self.step_metrics.take(),
                "lr": logs["learning_rate"],
            }
            row["grad_norm"] = logs.get("grad_norm")
            self.run_dir.append_metrics(row)
            logs.update(row)
        super().log(logs, start_time)

    def training_step(self, model, inputs, num_items_in_batch=None) -> Tensor:
        started, sampled = time.monotonic(), self.step_metrics.seconds_of_rollout()
        loss = super().training_step(model, inputs, num_items_in_batch)
        elsewhere = self.step_metrics.seconds_of_rollout() - sampled
        self.step_metrics.add("time/train_s", time.monotonic() - started - elsewhere)
        return loss
