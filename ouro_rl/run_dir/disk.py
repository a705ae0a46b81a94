"""How much of the disk a run will take at most."""

from __future__ import annotations

import logging
import shutil

from ouro_rl.config.train import TrainConfig
from ouro_rl.run_dir.run_dir import RunDir

logger = logging.getLogger(__name__)

ROLLOUT_BYTES = 80
"""Bytes of a completion token in rollouts/*.jsonl: its id, text, depth and both log-probs, as text."""
CHECKPOINT_BYTES = 12
"""Bytes of a parameter in a checkpoint: the weight and Adam's two moments, in fp32."""


def keeps_rollouts(config: TrainConfig, step: int) -> bool:
    """Whether the rollouts of an update (from 1) are written: `run.rollouts`. The first batch is, unless none are."""
    every = config.run.rollouts
    if isinstance(every, str):
        return every == "all"
    return (step - 1) // config.trainer.updates_per_batch % every == 0


def files_of_rollouts(config: TrainConfig, *, after_update: int = 0) -> int:
    """How many of the updates after `after_update` write rollouts, in a time that does not grow with them."""
    trainer, every = config.trainer, config.run.rollouts
    batches = max(0, -(-(trainer.updates - after_update) // trainer.updates_per_batch))
    if isinstance(every, str):
        return batches if every == "all" else 0
    first = after_update // trainer.updates_per_batch
    return -(-(first + batches) // every) - -(-first // every)  # every N-th is written, the first batch of all is one


def bytes_needed(config: TrainConfig, parameters: int, *, after_update: int = 0) -> dict[str, int]:
    """The largest sizes of what the updates after `after_update` write, by kind."""
    trainer = config.trainer
    files = files_of_rollouts(config, after_update=after_update)
    return {
        "rollouts": files * trainer.completions * config.rollout.max_new_tokens * ROLLOUT_BYTES,
        "checkpoints": (trainer.keep_checkpoints + 1) * parameters * CHECKPOINT_BYTES,  # one more while it is written
    }


def warn_if_disk_is_short(run_dir: RunDir, config: TrainConfig, parameters: int, *, after_update: int = 0) -> None:
    needed = bytes_needed(config, parameters, after_update=after_update)
    free = shutil.disk_usage(run_dir.path).free
    if sum(needed.values()) > free:
        sizes = ", ".join(f"{name} {size / 2**30:.1f} GiB" for name, size in needed.items())
        logger.warning(
            "%s: the disk has %.1f GiB free, and the run may write more (%s);\n"
            "  set run.rollouts to none or to a number, or lower trainer.keep_checkpoints",
            run_dir.path, free / 2**30, sizes,
        )  # fmt: skip
