"""TRL's `GRPOConfig` from our configuration."""

from __future__ import annotations

from typing import Any

import torch
from trl import GRPOConfig

from ouro_rl.config.train import TrainConfig
from ouro_rl.run_dir.run_dir import RunDir
from ouro_rl.training.processes import training_processes

MEAN_SHARE = 0.05
"""Limit on the mean gap, as a share of the limit on the largest: rounding rarely matters, a bug affects every token."""


def gap_limit(config: TrainConfig) -> float:
    """Largest log-prob gap in nats that a run tolerates."""
    if config.trainer.logp_gap_limit is not None:
        return config.trainer.logp_gap_limit
    return 1e-3 if config.model.dtype == "float32" else 1.0


def grpo_config(config: TrainConfig, run_dir: RunDir) -> GRPOConfig:
    """TRL's settings: one optimizer update per batch of rollouts (times `updates_per_batch`)."""
    trainer = config.trainer
    completions = trainer.prompts_per_step * trainer.group_size
    on_gpu = torch.cuda.is_available()
    return GRPOConfig(
        output_dir=str(run_dir.path),
        seed=config.run.seed,
        data_seed=config.run.seed,
        max_steps=trainer.updates,
        per_device_train_batch_size=trainer.micro_batch,
        gradient_accumulation_steps=completions // (trainer.micro_batch * training_processes().num_processes),
        num_generations=trainer.group_size,
        num_iterations=trainer.updates_per_batch,
        max_completion_length=config.rollout.max_new_tokens,
        temperature=config.rollout.temperature,
        beta=0.0,
        loss_type=trainer.loss_type,
        scale_rewards=trainer.scale_rewards,
        learning_rate=trainer.lr,
        weight_decay=trainer.weight_decay,
        adam_beta2=trainer.adam_beta2,
        max_grad_norm=trainer.max_grad_norm,
        optim="adamw_torch",
        bf16=False,  # no autocast: the model itself computes in bf16, see OuroLinear
        fp16=False,
        use_cpu=not on_gpu,
        activation_checkpointing=config.model.gradient_checkpointing,
        activation_checkpointing_kwargs={"use_reentrant": False},
        logging_steps=1,
        logging_first_step=True,
        save_strategy="steps",
        save_steps=trainer.checkpoint_every,
        ignore_data_skip=True,  # our sampler begins at the update that is due
        remove_unused_columns=False,
        disable_tqdm=True,
        report_to="none",
        dataloader_pin_memory=on_gpu,
        ddp_find_unused_parameters=False,
    )


def no_trl_reward(**_: Any) -> list[float | None]:
    """TRL requires a reward function at construction; ours are scored during rollouts, by `rewards.scorer`."""
    raise AssertionError("TRL's own scoring must not run: _generate_and_score_completions replaces it")
