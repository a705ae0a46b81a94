"""TRL's trainer with its checkpoints replaced: a resumed run must be the run that was not interrupted."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from transformers.trainer import TRAINER_STATE_NAME
from trl import GRPOTrainer

from ouro_rl.config.train import TrainConfig
from ouro_rl.model.checkpoint_contract import PublishedCode, complete_checkpoint
from ouro_rl.run_dir.run_card import card_of_run
from ouro_rl.run_dir.run_dir import RunDir
from ouro_rl.training.objective.objective import Objective

OBJECTIVE_FILE = "objective.json"


class ResumableTrainer(GRPOTrainer):
    """Writes and reads the checkpoints of a run folder."""

    train_config: TrainConfig
    run_dir: RunDir
    objective: Objective
    """Its state (the price's controller) is part of a checkpoint."""
    published_code: PublishedCode
    """What checkpoints carry on from the base model."""

    def _save_checkpoint(self, model, trial) -> None:
        """Replaces transformers' and TRL's: writes to a temporary folder and renames it, so a `step-N` is complete."""
        final = self.run_dir.checkpoint_path(self.state.global_step)
        if final.exists():
            return
        folder = self.run_dir.checkpoint_tmp_path(self.state.global_step)
        if self.accelerator.is_main_process and folder.exists():
            shutil.rmtree(folder)
        self.accelerator.wait_for_everyone()
        self.save_model(str(folder), _internal_call=True)
        self._save_optimizer_and_scheduler(str(folder))
        self._save_rng_state(str(folder))
        if self.accelerator.is_main_process:
            self.state.save_to_json(str(folder / TRAINER_STATE_NAME))
            (folder / OBJECTIVE_FILE).write_text(json.dumps(self.objective.state()))
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            folder.replace(final)
            self.run_dir.drop_old_checkpoints(self.train_config.trainer.keep_checkpoints)

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
        if checkpoint is not None:
            self.objective.restore(json.loads((Path(checkpoint) / OBJECTIVE_FILE).read_text()))
