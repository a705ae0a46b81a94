"""GRPO with recorded depths: TRL's trainer with its generation and its loss replaced.

TRL and transformers provide batching, gradient accumulation and distributed training (accelerate); the order of
prompts, schedules and checkpoints are in `resumable_trainer.py`. Replaced here: rollouts come from the looped engine,
the loss replays each token at its sampled depth, and the exit gate is optimized along with the token head, with its own
learning rate and clipping.
`tests/ouro_rl/training/test_trl_seams.py` fails when the methods overridden here change in TRL.
"""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from accelerate.utils import broadcast_object_list, gather_object
from datasets import Dataset
from torch import Tensor
from tqdm import tqdm
from transformers import PrinterCallback

from ouro_rl.config.train import TrainConfig
from ouro_rl.core.errors import RunError
from ouro_rl.core.rollout import Prompt, ScoredRollout
from ouro_rl.core.summary_stats import mean
from ouro_rl.model.checkpoint_contract import published_code
from ouro_rl.model.modeling_ouro import OuroForCausalLM
from ouro_rl.model.policy.exit_gate import check_depth_policy
from ouro_rl.run_dir.disk import keeps_rollouts
from ouro_rl.run_dir.rollout_record import rollout_record
from ouro_rl.run_dir.run_dir import RunDir
from ouro_rl.training.batch import (
    Batch,
    apply,
    check_depth_policies,
    check_filters,
    collate,
    in_loss,
    probed_samples,
    replay_inputs,
    replayed,
    sampled,
)
from ouro_rl.training.compute_metrics import DepthWatch, compute_metrics
from ouro_rl.training.objective.losses import token_weights
from ouro_rl.training.objective.objective import Objective
from ouro_rl.training.objective.records import Credits, Replayed
from ouro_rl.training.parameters import freeze, gate_and_body
from ouro_rl.training.prefetch import Publish, RolloutSource
from ouro_rl.training.resumable_trainer import ResumableTrainer
from ouro_rl.training.rollout_metrics import in_flight_metrics, rollout_metrics, zero_variance
from ouro_rl.training.signal_watch import split_groups
from ouro_rl.training.step_metrics import StepMetrics
from ouro_rl.training.token_logprobs import replay_batch
from ouro_rl.training.trl_config import MEAN_SHARE, gap_limit, grpo_config, no_trl_reward


class OuroGRPOTrainer(ResumableTrainer):
    """`rollout_source` samples and scores; `publish(weights, version)` sends out weights. None off the main process.

    Close it when it is done with: it may be sampling ahead."""

    model: OuroForCausalLM

    def __init__(
        self,
        model,
        tokenizer,
        config: TrainConfig,
        prompts: Sequence[Prompt],
        *,
        rollout_source: RolloutSource | None,
        publish: Publish | None,
        run_dir: RunDir,
        callbacks=(),
    ):
        self.train_config, self.run_dir = config, run_dir
        self.published_code = published_code(config.model.path, config.model.revision)
        self.prompts, self.prompt_of = prompts, {prompt.index: prompt for prompt in prompts}
        trained = model.config.total_ut_steps
        self.depth_policy, self.filters = config.rollout.depth_policy(), config.rollout.filters()
        check_depth_policy(self.depth_policy, config.rollout.exit_rule.rule(), trained)
        self.max_loops = self.depth_policy.max_loops(trained)
        model.model.compute_dtype, model.model.batch_invariant = (
            getattr(torch, config.model.dtype),
            config.rollout.exact,
        )
        self.objective = Objective(config, self.max_loops)
        self._token_texts = functools.cache(lambda token: tokenizer.decode([token]))
        self.step_metrics, self.depth_watch = StepMetrics(), DepthWatch()
        model.model.gate_reaches_body = config.gate.reaches_body
        freeze(model, gate=config.gate.mode == "off", body=config.gate.train == "only")
        super().__init__(
            model=model,
            reward_funcs=no_trl_reward,
            args=grpo_config(config, run_dir),
            train_dataset=Dataset.from_dict({"prompt": [""] * len(prompts), "index": list(range(len(prompts)))}),
            processing_class=tokenizer,
            callbacks=list(callbacks),
        )
        self.remove_callback(PrinterCallback)
        if rollout_source is not None and publish is not None:
            self.prefetcher = self.prefetcher_of(rollout_source, publish)

    def close(self) -> None:
        """Stop sampling ahead."""
        if self.prefetcher is not None:
            self.prefetcher.close()

    # -- rollouts ------------------------------------------------------------------------------------------------------

    def _generate_and_score_completions(self, inputs: list[dict]) -> Batch:  # type: ignore[override] # is a dict of tensors
        """Replaces TRL's generation, scoring and advantages -> the tensors of `collate`.

        `inputs` are the dataset rows of this process, each prompt repeated `group_size` times. The main process samples
        for all processes, and each takes its own slice."""
        indices = gather_object([row["index"] for row in inputs])[:: self.train_config.trainer.group_size]
        started = time.monotonic()
        weights = self.accelerator.get_state_dict(self.model)
        shared: list = [None]
        if self.accelerator.is_main_process:
            self.step_metrics.set("time/sync_s", time.monotonic() - started)
            shared = [self._sample(weights, [self.prompts[index] for index in indices])]
        if self.accelerator.num_processes > 1:
            broadcast_object_list(shared)
        scored: list[ScoredRollout] = shared[0]
        self.batch_version = mean(item.rollout.mean_version for item in scored)
        credits = self._credit(scored)
        first = self.accelerator.process_index * len(inputs)
        mine = slice(first, first + len(inputs))
        batch = collate([item.rollout for item in scored[mine]], credits.rows(mine), self._tokenizer.pad_token_id)
        counted = in_loss(scored, mask_truncated=self.train_config.trainer.mask_truncated)
        lengths = torch.tensor([len(item.rollout.completion_ids) for item in scored])
        batch["in_loss"], batch["sequences_in_update"] = counted[mine], counted.sum().float()
        batch["num_items_in_batch"] = (lengths * counted).sum().float()
        if share := self.train_config.gate.probe_share:
            seed, step = self.train_config.run.seed, self.state.global_step + 1
            batch["probed"] = probed_samples([item.rollout for item in scored[mine]], share, seed, step)
        policy = self.train_config.rollout.depth_policy(self.state.global_step)
        batch["gate_temperature"] = torch.tensor(policy.gate_temperature, dtype=torch.float64)
        batch["policy_version"] = torch.tensor(max(item.rollout.newest_version for item in scored))
        batch["mean_version"] = torch.tensor(self.batch_version, dtype=torch.float64)
        return apply(batch, lambda tensor: tensor.to(self.accelerator.device))

    def _sample(self, weights: Mapping[str, Tensor], prompts: Sequence[Prompt]) -> list[ScoredRollout]:
        assert self.prefetcher is not None
        version = self.state.global_step
        number = version // self.train_config.trainer.updates_per_batch
        assert self.prefetcher.prompts_of(number) == prompts, "the data loader and the prefetcher have one order"
        batch = self.prefetcher.take(number, weights, version)
        scored = batch.scored
        for name, seconds in batch.timings.items():
            if name.startswith("time/"):
                self.step_metrics.add(name, seconds)
        rollouts = [item.rollout for item in scored]
        check_depth_policies(rollouts, self.train_config.rollout.depth_policy(self.state.global_step))
        check_filters(rollouts, self.temperature, self.filters)
        metrics = rollout_metrics(scored, self.max_loops, version)
        metrics |= compute_metrics(scored, self.model.config, self.depth_policy, self.train_config.gate.solved_reward)
        metrics["groups/zero_variance"] = zero_variance(split_groups(scored, self.train_config.trainer.group_size))
        if self.train_config.rollout.gate_temperature_end is not None:
            metrics["gate/temperature"] = rollouts[0].depth_policy.gate_temperature
        if self.train_config.trainer.in_flight is not None:
            metrics |= in_flight_metrics(scored, version)
        others = {name: value for name, value in batch.timings.items() if not name.startswith("time/")}
        self.step_metrics.new_batch(metrics | others)
        return scored

    def _credit(self, scored: Sequence[ScoredRollout]) -> Credits:
        """Credit of all tokens and decisions of the update: the same on every process."""
        credits = self.objective.credit(sampled(scored), self.state.global_step)
        if self.accelerator.is_main_process:
            self.step_metrics.describe(dict(credits.metrics))
            self._record(scored, credits.of_rollouts)
        return credits

    def _record(self, scored: Sequence[ScoredRollout], advantages: Tensor) -> None:
        step, text = self.state.global_step + 1, self._token_texts
        if not keeps_rollouts(self.train_config, step):
            return
        records = [
            rollout_record(item, advantage, step, [text(token) for token in rollout.completion_ids], prompt)
            for item, advantage in zip(scored, advantages.tolist(), strict=True)
            for rollout, prompt in [(item.rollout, self.prompt_of[item.rollout.prompt_index])]
        ]
        self.run_dir.write_rollouts(step, records)

    # -- loss ----------------------------------------------------------------------------------------------------------

    def _compute_loss(self, model, inputs: Batch) -> Tensor:
        """Replaces TRL's loss: replay at the recorded depths, then the clipped losses of both heads."""
        mask = inputs["completion_mask"].bool()
        reading, gate_logits = replay_batch(
            model,
            inputs,
            replay_inputs(inputs, self.max_loops),
            max_loops=self.max_loops,
            depth_policy=replace(self.depth_policy, gate_temperature=inputs["gate_temperature"].item()),
            temperature=self.temperature,
            filters=self.filters,
        )
        weights = self._token_weights(inputs, mask.sum(1))
        micro_batch = replayed(inputs, reading.logprobs, gate_logits, weights, reading.probes)
        losses = self.objective.losses(micro_batch)
        with torch.no_grad():
            self._measure(inputs, micro_batch)
            self.step_metrics.add("loss/token", losses.token.item())
            self.step_metrics.add("loss/gate", losses.gate.item())
            for name, values in {**losses.metrics, "token/entropy": reading.entropies}.items():
                if len(values):
                    self.step_metrics.mean(name, values.mean().item(), len(values))
        return losses.total

    def _token_weights(self, inputs: Batch, lengths: Tensor) -> Tensor:
        """Weights [n] of a micro batch's tokens, so that the losses of its update add up."""
        processes = self.accelerator.num_processes
        return token_weights(
            lengths,
            inputs["in_loss"],
            self.train_config.trainer.loss_type,
            max_new_tokens=self.train_config.rollout.max_new_tokens,
            tokens_in_update=inputs["num_items_in_batch"].item() / processes,
            sequences_in_update=inputs["sequences_in_update"].item() / processes,
            micro_batches=self.current_gradient_accumulation_steps,
        )

    def _measure(self, inputs: Batch, micro_batch: Replayed) -> None:
        """The gap between the worker's log-probs and the replayed ones, of the tokens that the weights in training drew
        from keys and values of their own.

        `logp_gap/compared` is their share; updates without any, such as those that reuse a batch, report no gap. Raises
        RunError if the gap exceeds its limit."""
        if int(inputs["policy_version"]) != self.state.global_step:
            self.step_metrics.mean("logp_gap/compared", 0.0, 1)
            return
        depth = self.objective.decisions(micro_batch).sum(1)
        gaps = torch.stack(
            [micro_batch.token_logprobs - micro_batch.sampler_logprobs, depth - micro_batch.depth_logprobs]
        ).abs()
        same = inputs["replay_versions"][inputs["completion_mask"].bool()] == self.state.global_step
        every, gaps = gaps.numel(), gaps[:, same].double()
        largest = gaps.max() if gaps.numel() else gaps.new_zeros(())
        found = torch.stack([largest, gaps.sum(), gaps.new_tensor(gaps.numel()), gaps.new_tensor(every)])
        found = self.accelerator.gather(found).view(-1, 4)
        worst, (total, count, every) = found[:, 0].max().item(), found[:, 1:].sum(0).tolist()
        self.step_metrics.mean("logp_gap/compared", count / max(every, 1), every)
        if not count:
            return
        average = total / count
        self.step_metrics.largest("logp_gap/max", worst)
        self.step_metrics.mean("logp_gap/mean", average, count)
        limit = gap_limit(self.train_config)
        if not (worst <= limit and average <= MEAN_SHARE * limit):
            raise RunError(
                f"step {self.state.global_step}: worker and trainer disagree by {worst:.3g} nats on a log-prob "
                f"(limit {limit:g}), by {average:.3g} on average (limit {MEAN_SHARE * limit:g}).\n"
                "Rollouts do not come from the policy in training; raise trainer.logp_gap_limit only if you know why"
            )

    # -- optimizer, log ------------------------------------------------------------------------------------------------

    def create_optimizer(self, model=None) -> torch.optim.Optimizer:
        """AdamW with a separate parameter group for the gate; `create_scheduler` sets the learning rates."""
        if self.optimizer is None:
            gate, body = gate_and_body(model or self.model)
            groups = [
                {"params": [p for p in body if p.dim() > 1], "weight_decay": self.args.weight_decay, "is_gate": False},
                {"params": [p for p in body if p.dim() <= 1], "weight_decay": 0.0, "is_gate": False},
                {"params": gate, "weight_decay": 0.0, "is_gate": True},
            ]
            optimizer_class, settings = self.get_optimizer_cls_and_kwargs(self.args, self.model)
            self.optimizer = optimizer_class([group for group in groups if group["params"]], **settings)
        return self.optimizer

    def _clip_grad_norm(self, model) -> Tensor:
        """Replaces transformers': the gate and everything else are clipped apart. The norm of everything else."""
        gate, body = gate_and_body(model)
        norm = self.accelerator.clip_grad_norm_(gate, self.train_config.gate.max_grad_norm)
        self.step_metrics.set("gate/grad_norm", float(norm))
        return self.accelerator.clip_grad_norm_(body, self.args.max_grad_norm)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Append one row to `metrics.jsonl` per update; the final summary of transformers is not part of that file."""
        self._metrics["train"].clear()
        if "loss" in logs and self.accelerator.is_main_process:
            self.step_metrics.set("staleness/mean", self.state.global_step - 1 - self.batch_version)
            row: dict[str, Any] = {
                "step": self.state.global_step,
                **self.step_metrics.take(),
                "lr": logs["learning_rate"],
            }
            row["grad_norm"] = logs.get("grad_norm")
            if self.train_config.gate.mode == "policy" and self.depth_policy.min_depth < self.max_loops:
                for text in self.depth_watch.warnings(row):
                    tqdm.write(text, file=sys.stderr)  # does not break the progress bar
            self.run_dir.append_metrics(row)
            logs.update(row)
        super().log(logs, start_time)
        del self.state.log_history[:-1]  # transformers keeps all rows, in memory and in every checkpoint

    def training_step(self, model, inputs, num_items_in_batch=None) -> Tensor:
        started, sampled = time.monotonic(), self.step_metrics.seconds_of_rollout()
        loss = super().training_step(model, inputs, num_items_in_batch)
        elsewhere = self.step_metrics.seconds_of_rollout() - sampled
        self.step_metrics.add("time/train_s", time.monotonic() - started - elsewhere)
        return loss
