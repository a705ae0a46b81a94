"""Rollout actors killed at random while a job trains: the run is the one that nothing happened to."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from ouro_rl import launch
from ouro_rl.launch import run_training
from rollout_workers.pool import LocalPool
from tests.references.patience import HANG_S, comes_true
from tests.references.process_table import alive, processes
from tests.references.tiny_training import config_of, deterministic, metrics_of

LOOK_S = 0.001
"""Sampling may take only some hundredths of a second."""
LONGEST_S = 0.05
"""After this time in sampling, at most, an actor dies."""


class Chaos:
    """Kills a random actor of the pool that `run_training` makes while it samples, then again after a random number of
    updates: a fast machine makes thirty of them in the time in which one actor is started again."""

    def __init__(self, monkeypatch, seed, updates, most):
        self.rng, self.updates, self.most, self.killed, self.pool = random.Random(seed), updates, most, [], None
        self.over = threading.Event()
        make = launch.start_pool

        def remember(*arguments):
            self.pool = make(*arguments)
            return self.pool

        monkeypatch.setattr(launch, "start_pool", remember)
        self.thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()

    def _run(self):
        next_version = 0
        while len(self.killed) < self.most and not self.over.wait(LOOK_S):
            if not self._sampling() or self.pool.version < next_version:
                continue
            self.over.wait(self.rng.uniform(0, LONGEST_S))
            if (sampling := self._sampling()) and (process := self.rng.choice(sampling).greeting.process).is_alive:
                os.kill(process.pid, signal.SIGKILL)
                self.killed.append(process.pid)
                next_version = self.pool.version + self.rng.randint(*self.updates)

    def _sampling(self):
        """The workers that are sampling now."""
        members = self.pool.crew.members if hasattr(self.pool, "crew") else []
        return [member for member in members if member.is_up and member.units]


def weights_of(folder, step):
    return load_file(folder / "checkpoints" / f"step-{step}" / "model.safetensors")


def compare_with_chaos(checkpoint, tmp_path, monkeypatch, *, steps, updates, least, most):
    changes = {"trainer__steps": steps, "trainer__checkpoint_every": steps, "eval__source": None}
    changes |= {"rollout__max_new_tokens": 48, "ray__tries": 1000}  # whose actor is hit again and again is chance here
    config = config_of(checkpoint, tmp_path / "calm", **changes)
    assert run_training(config, resume=False) == 0
    config = config_of(checkpoint, tmp_path / "chaos", **changes, rollout__workers=2, rollout__worker_cpus=0.5)
    with Chaos(monkeypatch, seed=1, updates=updates, most=most) as chaos:
        assert run_training(config, resume=False) == 0
    assert len(chaos.killed) >= least
    rows = [[deterministic(row) for row in metrics_of(tmp_path / name)] for name in ("calm", "chaos")]
    assert rows[0] == rows[1] and len(rows[0]) == steps
    calm, chaotic = (weights_of(tmp_path / name, steps) for name in ("calm", "chaos"))
    assert calm.keys() == chaotic.keys() and all(torch.equal(calm[name], chaotic[name]) for name in calm)


def test_the_run_is_the_same_when_an_actor_is_killed_now_and_then(checkpoint, tmp_path, monkeypatch):
    compare_with_chaos(checkpoint, tmp_path, monkeypatch, steps=4, updates=(0, 2), least=1, most=3)


@pytest.mark.slow
def test_the_run_is_the_same_when_random_actors_are_killed_again_and_again(checkpoint, tmp_path, monkeypatch):
    compare_with_chaos(checkpoint, tmp_path, monkeypatch, steps=30, updates=(1, 5), least=5, most=30)


@pytest.fixture
def ray_folder():
    """A folder for Ray of its own, whose path is short enough for sockets."""
    with tempfile.TemporaryDirectory(prefix="r", dir="/tmp") as folder:
        yield Path(folder)


def shared_files(pids):
    """The files of shared memory that processes have mapped, and that have a name."""
    found = set()
    for pid in pids:
        with contextlib.suppress(OSError):  # gone
            lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
            found |= {line.split(maxsplit=5)[5] for line in lines if "/dev/shm/" in line}
    return {Path(name) for name in found if not name.endswith("(deleted)")}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_driver_stopped_in_its_first_evaluation_leaves_nothing(checkpoint, tmp_path, ray_folder, number):
    config = config_of(checkpoint, tmp_path / "run", rollout__workers=1, rollout__max_new_tokens=200, eval__limit=400)
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    with (printed := tmp_path / "printed").open("w") as file:
        driver = subprocess.Popen(
            [sys.executable, "-u", "-m", "ouro_rl", "train", str(path)], stdout=file, stderr=subprocess.PIPE,
            text=True, env={**os.environ, "RAY_TMPDIR": str(ray_folder)},
        )  # fmt: skip
    # The actor has told of itself; next it gets its weights, and the evaluation begins.
    assert comes_true(lambda: "Rollouts by" in printed.read_text() or driver.poll() is not None)
    time.sleep(0.5)
    assert driver.poll() is None, driver.communicate()[1]
    started = processes(driver.pid)
    assert len(started) > 4, "an actor, Ray's servers and agents, the guard"
    assert len(sockets := list(ray_folder.rglob("sockets/*"))) > 1
    shared = shared_files(started)
    driver.send_signal(number)
    _, errors = driver.communicate(timeout=HANG_S)
    assert driver.returncode == (128 + number if number == signal.SIGTERM else -number), errors
    assert comes_true(lambda: not any(alive(pid) for pid in started))
    assert not any(file.exists() for file in (*sockets, *shared))


def test_a_prompt_that_is_set_aside_is_left_out_of_the_update(checkpoint, tmp_path, monkeypatch):
    """What the pool gives for it has no tokens."""
    rollout = LocalPool.rollout

    def lose_one(self, requests, params, on_progress=None, on_rollout=None):
        gone = requests[1].prompt.index
        found = rollout(self, requests, params, on_progress)
        nothing = dict.fromkeys(("completion_ids", "token_logprobs", "depths", "depth_logprobs", "support_sizes"), ())
        return [replace(r, **nothing, finish_reason="lost") if r.prompt_index == gone else r for r in found]

    monkeypatch.setattr(LocalPool, "rollout", lose_one)
    config = config_of(checkpoint, tmp_path / "run", trainer__steps=2, eval__source=None)
    assert run_training(config, resume=False) == 0
    for row in metrics_of(tmp_path / "run"):
        assert row["rollout/lost"] == 0.25 and row["reward/unscored"] == 0 and row["logp_gap/max"] <= 1e-3
        assert row["loss/token"] is not None and row["grad_norm"] > 0
