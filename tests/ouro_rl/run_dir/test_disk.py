"""How much a run writes, and the warning when the disk is too small for it."""

import shutil
from collections import namedtuple

import pytest

from ouro_rl.config.loader import load_config
from ouro_rl.config.train import TrainConfig
from ouro_rl.run_dir.disk import bytes_needed, files_of_rollouts, keeps_rollouts, warn_if_disk_is_short
from ouro_rl.run_dir.run_dir import RunDir

TRAINER = (
    "steps=10",
    "prompts_per_step=2",
    "group_size=4",
    "micro_batch=8",
    "updates_per_batch=2",
    "keep_checkpoints=3",
)


def config_of(*overrides):
    sizes = [f"trainer.{size}" for size in TRAINER]
    return load_config(TrainConfig, [], ["model.path=x", "rollout.max_new_tokens=100", *sizes, *overrides])


@pytest.mark.parametrize(
    "rollouts,steps", [("all", [1, 3, 5, 7, 9]), ("none", []), ("1", [1, 3, 5, 7, 9]), ("2", [1, 5, 9])]
)
def test_which_batches_are_written_and_how_large_they_are(rollouts, steps):
    """A batch is written in its first update: 1, 3, 5, 7, 9."""
    config = config_of(f"run.rollouts={rollouts}")
    assert [step for step in range(1, 11, 2) if keeps_rollouts(config, step)] == steps
    needed = bytes_needed(config, 1000)
    assert needed == {"rollouts": len(steps) * 8 * 100 * 80, "checkpoints": 4 * 1000 * 12}
    later = bytes_needed(config, 1000, after_update=4)["rollouts"]
    assert later == sum(step > 4 for step in steps) * 8 * 100 * 80


@pytest.mark.parametrize("rollouts", ["all", "none", *map(str, range(1, 7))])
@pytest.mark.parametrize("updates", [1, 2, 7])
def test_files_are_counted_as_they_are_written(rollouts, updates):
    config = config_of(f"run.rollouts={rollouts}", f"trainer.updates_per_batch={updates}", "trainer.steps=23")
    for after in range(25):
        steps = range(after + 1, config.trainer.updates + 1, updates)
        assert files_of_rollouts(config, after_update=after) == sum(keeps_rollouts(config, step) for step in steps)


def test_a_run_without_an_end():
    assert bytes_needed(config_of(f"trainer.steps={10**26}"), 1)["rollouts"] > 10**26


@pytest.mark.parametrize("free,warns", [(5 * 64_000 + 48_000, False), (5 * 64_000 + 47_999, True)])
def test_a_disk_that_is_too_small(tmp_path, monkeypatch, caplog, free, warns):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: namedtuple("Usage", "free")(free))
    warn_if_disk_is_short(RunDir(tmp_path), config_of(), 1000)
    assert ("run.rollouts" in caplog.text) == warns
