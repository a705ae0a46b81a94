"""Straight and resumed runs end with the same weights, to the bit: in the first epoch and in the third, with every
schedule, in the process and on rollout workers; and what happens to damaged checkpoints and live runs."""

import json
import os
import shutil
import subprocess
import sys

import pytest
import torch
import yaml
from safetensors.torch import load_file

from ouro_rl.cli import main as cli
from ouro_rl.launch import run_training
from ouro_rl.run_dir.manifest import MANIFEST_FILE
from ouro_rl.run_dir.open_or_resume import newest_whole
from ouro_rl.run_dir.run_dir import RunDir
from tests.references.patience import HANG_S
from tests.references.tiny_training import config_of, deterministic, metrics_of

STEPS = 6
"""8 prompts, 4 in each update: epochs of 2 updates."""
SCHEDULES = ("constant", "linear", "cosine", "constant_with_warmup")


def job(checkpoint, folder, **changes):
    defaults = {
        "data__limit": 8, "eval__source": None, "trainer__steps": STEPS, "trainer__checkpoint_every": 1,
        "trainer__keep_checkpoints": STEPS,
    }  # fmt: skip
    return config_of(checkpoint, folder, **defaults | changes)


def stopped_after(folder, step):
    """A copy of a run as a SIGKILL in the update after `step` leaves it."""
    copy = folder.with_name(f"{folder.name}-stopped-{step}")
    shutil.copytree(folder, copy)
    for later in range(step + 1, STEPS + 1):
        shutil.rmtree(copy / "checkpoints" / f"step-{later}")
    (copy / "summary.json").unlink()
    return copy


def assert_resumes_to_the_bit(
    checkpoint, folder, steps, schedule, *, workers=0, updates_per_batch=1, max_staleness=0, **more
):
    changes = more | {
        "trainer__lr_scheduler": schedule, "trainer__lr_warmup": 2 if schedule == "constant_with_warmup" else 0,
        "rollout__workers": workers, "trainer__updates_per_batch": updates_per_batch,
        "trainer__max_staleness": max_staleness,
    }  # fmt: skip
    assert run_training(job(checkpoint, folder, **changes), resume=False) == 0
    whole = load_file(folder / "checkpoints" / f"step-{STEPS}" / "model.safetensors")
    for step in steps:
        copy = stopped_after(folder, step)
        assert run_training(job(checkpoint, copy, **changes), resume=True) == 0
        assert [deterministic(row) for row in metrics_of(copy)] == [deterministic(row) for row in metrics_of(folder)]
        ours = load_file(copy / "checkpoints" / f"step-{STEPS}" / "model.safetensors")
        assert all(torch.equal(ours[name], whole[name]) for name in whole), step


@pytest.mark.parametrize("schedule,updates_per_batch", [("constant_with_warmup", 1), ("linear", 2)])
def test_in_the_first_epoch_in_the_third_and_between(checkpoint, tmp_path, schedule, updates_per_batch):
    """After 1: in the first epoch; after 4: on a border; after 5: in the third. With reused batches: inside one."""
    assert_resumes_to_the_bit(checkpoint, tmp_path / "run", (1, 4, 5), schedule, updates_per_batch=updates_per_batch)


DRAWN_FOR_AN_UPDATE = {
    "trainer__refill": 2, "rollout__anytime": [1, 2], "rollout__gate_temperature": 2.0,
    "rollout__gate_temperature_end": 0.5, "rollout__gate_temperature_updates": 4, "reward": "first_digit",
}  # fmt: skip
"""Anytime samples, a refill, a temperature of the gate that moves."""


def test_with_all_that_is_drawn_for_an_update(checkpoint, tmp_path):
    folder = tmp_path / "run"
    assert_resumes_to_the_bit(checkpoint, folder, (1, 4), "constant", updates_per_batch=2, **DRAWN_FOR_AN_UPDATE)
    assert sum(row["groups/replaced"] for row in metrics_of(folder)) > 0, "the case is there"
    moving = [row["gate/temperature"] for row in metrics_of(folder)]
    assert moving == pytest.approx([2.0, 2.0, 1.25, 1.25, 0.5, 0.5])


@pytest.mark.slow
def test_with_all_that_is_drawn_on_workers(checkpoint, tmp_path):
    """Two workers sample the run of none."""
    folders = [tmp_path / str(workers) for workers in (0, 2)]
    for workers, folder in zip((0, 2), folders, strict=True):
        config = job(checkpoint, folder, rollout__workers=workers, **DRAWN_FOR_AN_UPDATE)
        assert run_training(config, resume=False) == 0
    alone, together = (load_file(folder / "checkpoints" / f"step-{STEPS}" / "model.safetensors") for folder in folders)
    assert all(torch.equal(alone[name], together[name]) for name in alone)
    assert [deterministic(row) for row in metrics_of(folders[0])] == [
        deterministic(row) for row in metrics_of(folders[1])
    ]


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_every_schedule_and_number_of_workers(checkpoint, tmp_path, schedule, workers):
    assert_resumes_to_the_bit(checkpoint, tmp_path / "run", (1, 5), schedule, workers=workers)


def test_more_steps_go_on_with_the_longer_schedule(checkpoint, tmp_path):
    folder, linear = tmp_path / "run", {"trainer__lr_scheduler": "linear"}
    assert run_training(job(checkpoint, folder, trainer__steps=4, **linear), resume=False) == 0
    assert run_training(job(checkpoint, folder, trainer__steps=8, **linear), resume=True) == 0
    rates = [row["lr"] / 1e-2 for row in metrics_of(folder)]
    assert rates == pytest.approx([1, 3 / 4, 2 / 4, 1 / 4, 4 / 8, 3 / 8, 2 / 8, 1 / 8])


def test_a_larger_learning_rate_and_a_smaller_micro_batch_are_taken_over(checkpoint, tmp_path):
    folder, reuse = tmp_path / "run", {"trainer__updates_per_batch": 2}
    assert run_training(job(checkpoint, folder, trainer__steps=1, **reuse), resume=False) == 0
    changes = {"trainer__lr": 2e-2, "trainer__micro_batch": 4, "gate__lr": 5e-3, "run__rollouts": "none"}
    assert run_training(job(checkpoint, folder, trainer__steps=3, **reuse, **changes), resume=True) == 0
    rows = metrics_of(folder)
    assert [row["lr"] for row in rows] == [1e-2, 2e-2, 2e-2]
    assert [row["staleness/mean"] for row in rows] == [0, 1, 0]  # the second goes on with the batch of the first
    state = torch.load(folder / "checkpoints" / "step-3" / "optimizer.pt")
    assert [group["lr"] for group in state["param_groups"]] == [2e-2, 2e-2, 5e-3]
    assert [path.name for path in (folder / "rollouts").iterdir()] == ["step-000001.jsonl"]
    (entry,) = yaml.safe_load((folder / "config.yaml").read_text())["about"]["resumed"]
    assert entry["after_step"] == 1 and entry["changes"]["trainer.micro_batch"] == {"before": 8, "now": 4}


# --- damaged checkpoints, and runs that are still running -------------------------------------------------------------


@pytest.fixture
def stopped(checkpoint, tmp_path):
    """The folder of a run after 3 updates, and the config file that takes it to 4."""
    folder, path = tmp_path / "run", tmp_path / "config.yaml"
    assert run_training(job(checkpoint, folder, trainer__steps=3), resume=False) == 0
    path.write_text(yaml.safe_dump(job(checkpoint, folder, trainer__steps=4).model_dump(mode="json")))
    return folder, path


def test_any_damaged_file_passes_a_checkpoint_over(stopped):
    folder, _ = stopped
    newest = folder / "checkpoints" / "step-3"
    names = {
        "model.safetensors",
        "optimizer.pt",
        "scheduler.pt",
        "rng_state.pth",
        "trainer_state.json",
        "objective.json",
    }
    assert names <= json.loads((newest / MANIFEST_FILE).read_text())["files"].keys()
    for name in (*names, MANIFEST_FILE):
        content = (newest / name).read_bytes()
        for damaged in (content[: len(content) // 2], None):
            (newest / name).unlink()
            if damaged is not None:
                (newest / name).write_bytes(damaged)
            found, ((passed_over, reason),) = newest_whole(RunDir(folder))
            assert found == folder / "checkpoints" / "step-2" and passed_over == newest and name in reason
        (newest / name).write_bytes(content)
    assert newest_whole(RunDir(folder)) == (newest, [])


def test_a_damaged_checkpoint_is_named_and_the_one_before_is_resumed(stopped, caplog):
    folder, path = stopped
    (folder / "checkpoints" / "step-3" / "optimizer.pt").unlink()
    assert cli.main(["train", str(path), "--resume"]) == 0
    assert "step-3 is passed over: its optimizer.pt is missing" in caplog.text
    assert [row["step"] for row in metrics_of(folder)] == [1, 2, 3, 4]


def test_a_second_resume_is_refused_while_the_first_runs(stopped):
    """In a process of its own, with status 2; the live run's files stay as they are."""
    folder, path = stopped
    hold = (
        "import pathlib, sys\nfrom ouro_rl.run_dir.run_lock import RunLock\n"
        f"RunLock(pathlib.Path({str(folder)!r})).acquire()\nprint(flush=True)\nsys.stdin.read()\n"
    )
    owner = subprocess.Popen([sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        owner.stdout.readline()
        before = {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}
        command = [sys.executable, "-m", "ouro_rl", "train", str(path), "--resume"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=HANG_S, env=os.environ, check=False)
        assert done.returncode == 2 and f"process {owner.pid} on " in done.stderr, done.stderr
        assert {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()} == before
    finally:
        owner.communicate(timeout=HANG_S)
