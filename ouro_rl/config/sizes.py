"""Sizes derived from a config: printed by `--dry-run`, and checked for divisibility."""

from __future__ import annotations

import os

from ouro_rl.config.section import Conflict
from ouro_rl.config.train import TrainConfig
from ouro_rl.config.trainer import BATCH_KEYS, largest_divisor
from ouro_rl.config.warmstart import WarmstartConfig
from ouro_rl.core.errors import UserError

LAUNCHER = ("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
"""The environment variables that torchrun and accelerate set for each of several processes."""


def world_size() -> int:
    """Number of training processes, one per device: WORLD_SIZE, as torchrun and accelerate set it, or 1 if they started
    none: other systems (Slurm, MPI) set WORLD_SIZE too, but not the rest. Raises UserError if it is not a number."""
    text = "1" if _not_launched() else os.environ["WORLD_SIZE"]
    if not text.isdecimal() or int(text) < 1:
        raise UserError(
            f"environment variable WORLD_SIZE must be a whole number of processes, but is {text!r}; unset it"
        )
    return int(text)


def check_launcher() -> None:
    """Raise UserError if the environment describes several processes that were not started, as in a Slurm or MPI
    shell."""
    if claims := foreign_claims():
        raise UserError(
            f"the environment has {' and '.join(claims)}, but no {' and no '.join(_not_launched())}: "
            "not from accelerate or torchrun;\n"
            "  train in one process with `env -u WORLD_SIZE -u RANK -u LOCAL_RANK ouro-rl ...`, "
            "or start it with `accelerate launch`"
        )


def foreign_claims() -> list[str]:
    """Variables that describe one of several processes which neither accelerate nor torchrun started."""
    world = os.environ.get("WORLD_SIZE", "1")
    if not _not_launched() or (world == "1" and "LOCAL_RANK" not in os.environ):
        return []
    return [f"{name}={os.environ[name]}" for name in ("WORLD_SIZE", "LOCAL_RANK") if name in os.environ]


def _not_launched() -> list[str]:
    """The variables that are missing in an environment which no launcher set; empty in a process of a launcher."""
    return [name for name in LAUNCHER if not os.environ.get(name)]


def derived_sizes(config: TrainConfig | WarmstartConfig) -> dict[str, int]:
    """Derived sizes by name, for this number of processes. Raises Conflict if the batch does not divide among them."""
    if isinstance(config, WarmstartConfig):
        return {
            "stage I demonstrations": config.stage_one.steps * config.stage_one.batch_size,
            "stage II demonstrations": config.stage_two.steps * config.stage_two.batch_size,
        }
    trainer, rollout, devices = config.trainer, config.rollout, world_size()
    on_device = trainer.completions // devices
    keys = [f"trainer.{key}" for key in BATCH_KEYS]
    if trainer.completions % devices:
        raise Conflict(
            f"trainer: prompts_per_step x group_size = {trainer.completions} completions do not divide among {devices} "
            f"processes (WORLD_SIZE);\n  set trainer.prompts_per_step to a multiple of {devices}",
            *keys,
        )
    if on_device % trainer.micro_batch:
        raise Conflict(
            f"trainer: each of {devices} processes (WORLD_SIZE) takes {on_device} completions per update, which do not "
            f"divide\n  into micro batches of {trainer.micro_batch}; "
            f"set trainer.micro_batch to {largest_divisor(on_device, trainer.micro_batch)}",
            *keys,
        )
    engines = max(1, rollout.workers)
    sizes = {
        "processes (WORLD_SIZE)": devices,
        "completions per update": trainer.completions,
        "completions per update and device": on_device,
        "micro batches per update and device": on_device // trainer.micro_batch,
        "completion tokens per update, at most": trainer.completions * rollout.max_new_tokens,
        "completions decoded at once on one rollout engine, at most": min(
            rollout.max_batch, -(-trainer.prompts_per_step // engines) * trainer.group_size
        ),
    }
    if trainer.steps is None:  # trainer.epochs: known once the prompts are read
        return sizes
    batches = -(-trainer.steps // trainer.updates_per_batch)
    return sizes | {
        "optimizer updates": trainer.steps,
        "batches of rollouts": batches,
        "prompts in the whole run": batches * trainer.prompts_per_step,
        "completions in the whole run": batches * trainer.completions,
    }
