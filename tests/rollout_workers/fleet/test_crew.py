"""Actors that fail in all ways, in real Ray, without models: deadly prompts, stuck ones, memory of the store."""

import os
import re
import signal
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import ray
import torch

from ouro_rl.core.engine_config import EngineConfig
from ouro_rl.core.errors import RunError
from ouro_rl.core.rollout import Prompt, RolloutRequest
from ouro_rl.core.sampling_params import SamplingParams
from rollout_workers.fleet.actor_pool import ActorPool
from rollout_workers.fleet.settings import FleetSettings
from tests.references.odd_actors import DAMAGED, DEADLY, STUCK, OddActor
from tests.references.patience import HANG_S, comes_true

PARAMS = SamplingParams(max_new_tokens=8)
ENGINE = EngineConfig(max_batch=64, device="cpu")
STATE = {"weight": torch.arange(1000.0)}


def requests_of(lengths, group=2):
    return [
        RolloutRequest(prompt=Prompt(index=i, token_ids=(length, i)), seeds=tuple(range(group)))
        for i, length in enumerate(lengths)
    ]


SETTINGS = FleetSettings(cpus=0.25, heartbeat_s=HANG_S, tries=2)


@pytest.fixture(scope="module")
def shared_pool():
    with ActorPool(2, {}, ENGINE, SETTINGS, actor=OddActor) as made:
        yield made


@pytest.fixture
def pool(shared_pool):
    """Both actors are there, and no prompt is set aside, whatever the test before did."""
    shared_pool.set_aside.clear()
    shared_pool.publish(STATE, 1)
    shared_pool.crew.wait_until(lambda: len(shared_pool.crew.ready()) == 2)
    return shared_pool


def test_a_prompt_that_kills_its_actor_is_set_aside(pool, caplog):
    lengths = [3] * 12
    lengths[5] = DEADLY
    heard = []
    rollouts = pool.rollout(requests_of(lengths), PARAMS, on_rollout=lambda place, one: heard.append(place))
    assert [rollout.finish_reason for rollout in rollouts] == ["length"] * 10 + ["lost"] * 2 + ["length"] * 12
    assert [(one.prompt_index, one.sample_index) for one in rollouts] == [(i, k) for i in range(12) for k in (0, 1)]
    assert sorted(heard) == list(range(24))
    assert "prompt 5 is set aside: its worker died 2 times while it ran alone; 1 set aside so far" in caplog.text
    deaths = caplog.text.count("died and is started again")
    assert deaths <= 4
    again = pool.rollout(requests_of(lengths), PARAMS)
    assert [rollout.finish_reason for rollout in again[10:12]] == ["lost"] * 2
    assert caplog.text.count("died and is started again") == deaths, "it is not tried again"
    with pytest.raises(RunError, match="die with every prompt"):
        pool.rollout(requests_of(lengths)[5:6], PARAMS)


def test_an_actor_that_does_not_get_on_says_where_it_is(pool, caplog, monkeypatch):
    monkeypatch.setattr(pool.crew, "_settings", replace(SETTINGS, stall_s=4))
    lengths = [3, STUCK, 3, 3]
    rollouts = pool.rollout(requests_of(lengths, group=1), PARAMS)
    assert [rollout.finish_reason for rollout in rollouts] == ["length", "lost", "length", "length"]
    assert re.search(r"it has made no progress for \d+ s \(ray.stall_s 4\)", caplog.text)
    assert "in _never" in caplog.text


def test_an_actor_killed_while_it_loads_weights(pool, caplog, tmp_path):
    first, begun = pool.crew.members[0], tmp_path / "begun"
    ray.get(first.actor.__ray_call__.remote(lambda actor: setattr(actor.worker, "endless", begun)))

    def kill():
        assert comes_true(begun.exists)
        os.kill(first.greeting.process.pid, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    pool.publish(STATE, 2)
    killer.join()
    assert caplog.text.count("rollout worker 0 died and is started again") == 1
    rollouts = pool.rollout(requests_of([3] * 8), PARAMS)
    assert {rollout.policy_version for rollout in rollouts} == {2} and len(rollouts) == 16


@pytest.mark.skipif(sys.platform != "linux", reason="the store's memory is read in /proc")
def test_the_store_forgets_old_weights(pool):
    """At once: the memory of the old ones is that of the new ones, but for a few that are just being forgotten."""
    state, before = {"weight": torch.zeros(2_500_000)}, shared_megabytes()  # 10 MB
    for version in range(2, 42):
        pool.publish(state, version)
    assert shared_megabytes() - before < 150, "forty publications would be 400 MB"
    assert pool.version == 41


def shared_megabytes():
    """Memory of the object store that this process has written to."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssShmem:"))
    return int(line.split()[1]) / 1024


def test_weights_that_arrive_damaged_stop_the_run(pool):
    with pytest.raises(RunError, match="has other weights than were published"):
        pool.publish(STATE, DAMAGED)
    pool.publish(STATE, 100)
    assert len(pool.rollout(requests_of([3] * 4), PARAMS)) == 8
