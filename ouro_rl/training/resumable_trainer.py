"""TRL's trainer with its prompt order, schedule and checkpoints replaced: a resumed run must be the run that was not
interrupted, in every epoch, with every schedule, and in the middle of a batch that is reused."""

from __future__ import annotations

import functools
import json
import math
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch.optim.lr_scheduler import LambdaLR
from torch.serialization import safe_globals
from transformers.trainer import TRAINER_STATE_NAME
from trl import GRPOConfig, GRPOTrainer
from trl.trainer.utils import split_tensor_dict

from ouro_rl.config.train import TrainConfig
from ouro_rl.core.errors import RunError
from ouro_rl.core.kv_rule import KVRule
from ouro_rl.core.rollout import Prompt, Rollout, ScoredRollout, WeightChange
from ouro_rl.core.sampling_params import DepthPolicy, TokenFilters
from ouro_rl.model.checkpoint import first_not_finite
from ouro_rl.model.checkpoint_contract import PublishedCode, complete_checkpoint
from ouro_rl.run_dir.manifest import write_manifest
from ouro_rl.run_dir.run_card import card_of_run
from ouro_rl.run_dir.run_dir import RunDir
from ouro_rl.training.batch import Batch, apply
from ouro_rl.training.objective.objective import Objective
from ouro_rl.training.prefetch import Prefetcher, RolloutSource, SampledBatch
from ouro_rl.training.prompt_order import PromptOrder, UpdateSampler, fixed_order
from ouro_rl.training.schedule import lr_share
from ouro_rl.training.step_metrics import StepMetrics

OBJECTIVE_FILE = "objective.json"
BATCH_FILE = "batch_{}.pt"
"""The rollouts of a batch that further updates will use, by process; only in a checkpoint between such updates."""
AHEAD_FILE = "ahead.pt"
"""Batches of rollouts that were sampled ahead and not used yet; only with `trainer.max_staleness`."""
RECORDS: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    SampledBatch, ScoredRollout, Rollout, WeightChange, TokenFilters, DepthPolicy, KVRule, bytes,
]  # fmt: skip
"""What `AHEAD_FILE` is made of: torch loads nothing else from it."""


class ResumableTrainer(GRPOTrainer):
    """Takes the updates in an order of its own, and writes and reads the checkpoints of a run folder."""

    args: GRPOConfig
    train_config: TrainConfig
    run_dir: RunDir
    prompts: Sequence[Prompt]
    step_metrics: StepMetrics
    objective: Objective
    """Its state (the price's controller) is part of a checkpoint."""
    published_code: PublishedCode
    """What checkpoints carry on from the base model."""
    batch_version: float
    """Policy version of the rollouts in use: the mean over them, each that of its tokens."""
    prefetcher: Prefetcher | None = None
    """Samples the batches; on the main process."""

    _saved_step = -1
    _rng_checkpoint: str | None = None

    # -- order of prompts ----------------------------------------------------------------------------------------------

    def _get_train_sampler(self, dataset=None) -> UpdateSampler:
        """Replaces TRL's `RepeatSampler`, which begins with the first epoch's order again when a run is resumed."""
        trainer = self.train_config.trainer
        return UpdateSampler(
            self._prompt_order(),
            updates=self.args.max_steps,
            updates_per_batch=trainer.updates_per_batch,
            micro_steps=self.args.gradient_accumulation_steps,
            group_size=trainer.group_size,
            first_update=lambda: self.state.global_step,
        )

    def _prompt_order(self) -> PromptOrder:
        data, trainer = self.train_config.data, self.train_config.trainer
        fixed = fixed_order(self.prompts, data.order, data.curriculum_column)
        return PromptOrder(len(self.prompts), trainer.prompts_per_step, seed=self.train_config.run.seed, fixed=fixed)

    def prefetcher_of(self, source: RolloutSource, publish: Callable[..., None]) -> Prefetcher:
        """What samples the batches of this run, in their order. `publish`: that of a `RolloutPool`."""
        trainer, order = self.train_config.trainer, self._prompt_order()
        return Prefetcher(
            source,
            publish,
            prompts_of=lambda number: [self.prompts[place] for place in order.batch(number)],
            batches=math.ceil(self.args.max_steps / trainer.updates_per_batch),
            updates_per_batch=trainer.updates_per_batch,
            max_staleness=trainer.max_staleness,
            in_flight=functools.partial(publish, in_flight=trainer.in_flight) if trainer.in_flight else None,
        )

    # -- schedule ------------------------------------------------------------------------------------------------------

    def create_scheduler(self, num_training_steps: int, optimizer=None) -> LambdaLR:
        """Replaces transformers' schedules, whose first update with a warm-up, and first one after more steps were
        added to a finished run, are made with a learning rate of 0."""
        if self.lr_scheduler is None:
            self.lr_scheduler = self._schedule_from(0)
            self._created_lr_scheduler = True
        return self.lr_scheduler

    def _schedule_from(self, update: int) -> LambdaLR:
        """The schedule with `update` as the next one; the peaks are those of the config."""
        trainer, gate = self.train_config.trainer, self.train_config.gate
        optimizer = self.optimizer
        assert optimizer is not None, "it is made before its schedule"
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] = gate.lr if group["is_gate"] else trainer.lr
        kind, total, warmup = trainer.lr_scheduler, self.args.max_steps, trainer.lr_warmup
        return LambdaLR(optimizer, lambda step: lr_share(kind, step, total=total, warmup=warmup), last_epoch=update - 1)

    # -- writing checkpoints -------------------------------------------------------------------------------------------

    def _save_checkpoint(self, model, trial) -> None:
        """Replaces transformers' and TRL's: writes to a temporary folder, adds the manifest and renames it, so that a
        `step-N` is complete. Raises RunError for weights that are not finite: such a checkpoint is never written."""
        step = self.state.global_step
        if step == self._saved_step:
            return
        self._check_finite()
        final, folder = self.run_dir.checkpoint_path(step), self.run_dir.checkpoint_tmp_path(step)
        if self.accelerator.is_main_process and folder.exists():
            shutil.rmtree(folder)
        self.accelerator.wait_for_everyone()
        try:
            self._write_checkpoint(folder)
        except BaseException:
            if self.accelerator.is_main_process:  # another process may be writing into it still
                shutil.rmtree(folder, ignore_errors=True)  # on a full disk, it would take the room of the next attempt
            raise
        if self.accelerator.is_main_process:
            folder.replace(final)
            self.run_dir.drop_old_checkpoints(self.train_config.trainer.keep_checkpoints)
        self._saved_step = step

    def _write_checkpoint(self, folder: Path) -> None:
        self.save_model(str(folder), _internal_call=True)
        self._save_optimizer_and_scheduler(str(folder))
        self._save_rng_state(str(folder))
        if self.state.global_step % self.train_config.trainer.updates_per_batch:
            self._save_batch(folder)
        if self.prefetcher is not None and (ahead := self.prefetcher.wait()):
            torch.save(ahead, folder / AHEAD_FILE)
        if self.accelerator.is_main_process:
            self.state.save_to_json(str(folder / TRAINER_STATE_NAME))
            (folder / OBJECTIVE_FILE).write_text(json.dumps(self.objective.state()))
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            write_manifest(folder, step=self.state.global_step, processes=self.accelerator.num_processes)

    def _check_finite(self) -> None:
        if broken := first_not_finite(self.accelerator.unwrap_model(self.model)):
            raise RunError(
                f"step {self.state.global_step}: {broken} is not finite, and no checkpoint is written.\n"
                "The last one stays: resume from it with a smaller trainer.lr or gate.lr"
            )

    def _save_batch(self, folder: Path) -> None:
        parts = cast("list[dict[str, torch.Tensor]]", self._buffered_inputs)
        whole = {
            name: torch.cat([part[name] for part in parts]) if first.dim() else first
            for name, first in parts[0].items()
        }
        batch = {"inputs": whole, "metrics": dict(self.step_metrics.batch)}
        torch.save(batch, folder / BATCH_FILE.format(self.accelerator.process_index))

    # -- reading checkpoints -------------------------------------------------------------------------------------------

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """The weights, with what others need to load them."""
        super().save_model(output_dir, _internal_call)
        if self.accelerator.is_main_process:
            folder = output_dir or self.args.output_dir
            assert folder is not None, "grpo_config sets it"
            self._complete(Path(folder))

    def _complete(self, folder: Path) -> None:
        code, step = self.published_code, self.state.global_step
        metrics = self.run_dir.metrics_of(step)
        summary = self.run_dir.read_summary() or {}
        card = card_of_run(self.train_config, step, metrics, summary, has_code=bool(code.files))
        complete_checkpoint(folder, self.processing_class, code, card)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is None:
            return
        step = self._saved_step = self.state.global_step
        self.lr_scheduler = self._schedule_from(step)  # of this config: steps or the learning rate may have changed
        self.objective.restore(json.loads((Path(checkpoint) / OBJECTIVE_FILE).read_text()))
        if step % self.train_config.trainer.updates_per_batch:
            self._load_batch(Path(checkpoint))
        if self.prefetcher is not None and (file := Path(checkpoint) / AHEAD_FILE).exists():
            with safe_globals(RECORDS):
                ahead = torch.load(file)
            self.prefetcher.restore(ahead, {prompt.index for prompt in self.prompts})

    def _load_batch(self, folder: Path) -> None:
        """Go on in the middle of a batch of rollouts, as TRL's `_prepare_inputs` would have done."""
        saved: dict[str, Any] = torch.load(folder / BATCH_FILE.format(self.accelerator.process_index))
        inputs = apply(cast("Batch", saved["inputs"]), lambda tensor: tensor.to(self.accelerator.device))
        assert self.args.steps_per_generation is not None, "TRL sets it"
        parts = split_tensor_dict(cast("dict[str, Any]", inputs), self.args.steps_per_generation)
        self._buffered_inputs = parts  # type: ignore[assignment]  # TRL's own type is that of its first value, None
        self._step = self.state.global_step * self.args.gradient_accumulation_steps
        self.step_metrics.new_batch(saved["metrics"])
        version = inputs.get("mean_version", inputs["policy_version"])  # earlier code wrote only one, for a whole batch
        self.batch_version = version.item()

    def _load_rng_state(self, checkpoint: str | None) -> None:
        """Put off until the data loader has started, which draws a random number: the run that was not interrupted
        started its own only once."""
        self._rng_checkpoint = checkpoint

    def get_batch_samples(self, epoch_iterator, num_batches, device):
        samples = super().get_batch_samples(epoch_iterator, num_batches, device)
        if self._rng_checkpoint is not None:
            super()._load_rng_state(self._rng_checkpoint)
            self._rng_checkpoint = None
        return samples
