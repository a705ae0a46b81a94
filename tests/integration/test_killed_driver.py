"""The driver killed in the middle of something, or out of room on its disk: the resumed run is, to the bit, the one
that nothing happened to."""

import contextlib
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
import yaml
from safetensors.torch import load_file

from ouro_rl.cli import main as cli
from ouro_rl.core.errors import UserError
from ouro_rl.launch import run_training
from ouro_rl.run_dir.run_dir import RunDir
from tests.references.patience import HANG_S, comes_true
from tests.references.process_table import alive, processes
from tests.references.tiny_training import config_of, deterministic, metrics_of

STEPS, MANY = 6, 40
PAUSE_S = 0.3
"""In every checkpoint of a run that is to be killed: else a fast machine could reach the end of the run, and a busy one
write a whole checkpoint, before this process sees where it is."""
LIMITED = """
import resource, sys
from ouro_rl.cli.main import main
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2)
sys.exit(main(sys.argv[2:]))
"""


SLOW_DISK = f"""
import sys, time
from ouro_rl.cli.main import main
from ouro_rl.training import resumable_trainer

def write_slowly(*arguments, write=resumable_trainer.write_manifest, **options):
    time.sleep({PAUSE_S})
    write(*arguments, **options)

resumable_trainer.write_manifest = write_slowly
sys.exit(main(sys.argv[1:]))
"""


def job(checkpoint, folder, **changes):
    defaults = {
        "trainer__steps": STEPS, "trainer__checkpoint_every": 1, "trainer__keep_checkpoints": 2, "eval__limit": 40,
    }  # fmt: skip
    return config_of(checkpoint, folder, **defaults | changes)


@pytest.fixture(scope="module")
def calm(checkpoint, tmp_path_factory):
    folder = tmp_path_factory.mktemp("calm") / "run"
    assert run_training(job(checkpoint, folder), resume=False) == 0
    return folder


def start(config, path, *, resume=False, program=("-c", SLOW_DISK)):
    path.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    command = [sys.executable, *program, "train", str(path), *(["--resume"] if resume else [])]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


NOTHING = dict.fromkeys(("its first evaluation", "an update", "a checkpoint", "between two updates"), frozenset())


def traces(folder):
    """What a run leaves behind as it goes on, by where it is."""
    with contextlib.suppress(FileNotFoundError, UserError):  # just being renamed or begun
        writing = {one.stat().st_ino for one in (folder / "checkpoints").glob(".step-*.tmp")}
        return {
            "its first evaluation": {one.stat().st_ino for one in folder.glob("config.yaml")},
            "an update": {row["step"] for row in RunDir(folder).read_metrics()} if folder.exists() else set(),
            "a checkpoint": writing,
            "between two updates": {one.name for one in (folder / "checkpoints").glob("step-*")},
        }
    return NOTHING


def await_new(where, folder, before, driver):
    """Looks all the time, so that it is seen when it has just begun."""
    end = time.monotonic() + HANG_S
    while not (traces(folder)[where] - before[where] or driver.poll() is not None):
        assert time.monotonic() < end, where


def end_of(driver, started):
    """Its exit status, once nothing is left of the processes that it has started."""
    _, errors = driver.communicate(timeout=HANG_S)
    assert comes_true(lambda: not any(alive(pid) for pid in started)), errors
    assert "Traceback" not in errors, errors
    return driver.returncode


def resume_to_the_end(config, path):
    """`--resume`, or a new start where no checkpoint was written."""
    path.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    resume = can_be_resumed(config.run.dir)
    assert cli.main(["train", str(path), *(["--resume"] if resume else [])]) == 0


def can_be_resumed(folder):
    """A run that was killed before its first checkpoint is started again."""
    if any((folder / "checkpoints").glob("step-*")):
        return True
    shutil.rmtree(folder, ignore_errors=True)
    return False


def assert_same_run(folder, calm, steps=STEPS):
    rows = [[deterministic(row) for row in metrics_of(one)] for one in (folder, calm)]
    assert rows[0] == rows[1] and len(rows[0]) == steps
    ours, theirs = (load_file(one / "checkpoints" / f"step-{steps}" / "model.safetensors") for one in (folder, calm))
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert (folder / "summary.json").exists() and not list((folder / "checkpoints").glob(".*"))


@pytest.mark.parametrize("where", [pytest.param("its first evaluation", marks=pytest.mark.slow), "a checkpoint"])
def test_killed_in_the_middle_of(where, checkpoint, calm, tmp_path):
    folder, path = tmp_path / "run", tmp_path / "config.yaml"
    config = job(checkpoint, folder)
    driver = start(config, path)
    await_new(where, folder, NOTHING, driver)
    started = processes(driver.pid) | {driver.pid}
    driver.kill()
    assert end_of(driver, started) == -signal.SIGKILL
    resume_to_the_end(config, path)
    assert_same_run(folder, calm)


@pytest.mark.slow
def test_killed_at_ten_random_moments(checkpoint, tmp_path):
    """With actors, which those of the next driver do not meet."""
    calm, folder, path, rng = tmp_path / "calm", tmp_path / "run", tmp_path / "config.yaml", random.Random(7)
    assert run_training(job(checkpoint, calm, trainer__steps=MANY), resume=False) == 0
    config = job(checkpoint, folder, trainer__steps=MANY, rollout__workers=2, rollout__worker_cpus=0.5)
    for _ in range(10):
        resume, before, where = can_be_resumed(folder), traces(folder), rng.choice(list(NOTHING))
        driver = start(config, path, resume=resume)
        await_new(where, folder, before, driver)
        time.sleep(rng.uniform(0, PAUSE_S))
        started = processes(driver.pid) | {driver.pid}
        driver.kill()
        assert end_of(driver, started) == -signal.SIGKILL
    resume_to_the_end(config, path)
    assert_same_run(folder, calm, MANY)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("where", list(NOTHING))
def test_signals_again_and_again(where, number, checkpoint, calm, tmp_path):
    folder, path = tmp_path / "run", tmp_path / "config.yaml"
    config = job(checkpoint, folder, rollout__workers=1, rollout__worker_cpus=0.5)
    driver = start(config, path)
    await_new(where, folder, NOTHING, driver)
    started = processes(driver.pid) | {driver.pid}
    while driver.poll() is None:
        driver.send_signal(number)
        time.sleep(0.1)
    assert end_of(driver, started) == 128 + number
    resume_to_the_end(config, path)
    assert_same_run(folder, calm)


@pytest.mark.parametrize("file", ["model.safetensors", pytest.param("optimizer.pt", marks=pytest.mark.slow)])
def test_a_full_disk_at_a_checkpoint(file, checkpoint, calm, tmp_path):
    """No file may become as large as this one."""
    folder, path = tmp_path / "run", tmp_path / "config.yaml"
    config = job(checkpoint, folder, eval__source=None)
    largest = (calm / "checkpoints" / f"step-{STEPS}" / file).stat().st_size - 1
    driver = start(config, path, program=("-c", LIMITED, str(largest)))
    _, errors = driver.communicate(timeout=HANG_S)
    assert driver.returncode == 1 and "cannot write to the disk" in errors and "Traceback" not in errors, errors
    assert "--resume" in errors and not list((folder / "checkpoints").glob("*")) and len(metrics_of(folder)) == 1
    resume_to_the_end(config, path)
    assert_same_run(folder, calm)
