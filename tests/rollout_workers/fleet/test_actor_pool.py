"""Pools of real Ray actors: the same rollouts for any number of them, whatever happens to them."""

import os
import signal
from dataclasses import replace

import pytest
import ray

from ouro_rl.core.engine_config import EngineConfig
from ouro_rl.core.errors import RunError, UserError
from ouro_rl.core.sampling_params import SamplingParams
from rollout_workers.fleet import crew
from rollout_workers.fleet.actor_pool import ActorPool
from rollout_workers.fleet.settings import FleetSettings
from rollout_workers.pool import LocalPool, make_pool
from tests.references.patience import HANG_S, comes_true
from tests.references.process_table import alive
from tests.references.tiny_models import batch_tolerance, random_model
from tests.rollout_workers.engine.test_engine import assert_same, make_requests

PARAMS = SamplingParams(max_new_tokens=8, stop_token_ids=(2,))
LONG = SamplingParams(max_new_tokens=48)
REQUESTS = make_requests([5, 1, 12, 3, 7], group=3)
MANY = make_requests([5, 1, 12, 3, 7] * 4, group=2)
"""More than half of them wait when the first is finished: a call cannot end while its workers are dead, however late
this process sees it."""
ENGINE = EngineConfig(max_batch=4)
SMALL = FleetSettings(cpus=0.25, heartbeat_s=HANG_S)


@pytest.fixture(scope="module")
def model():
    return random_model(3, gate_scale=2.0)


def local_rollouts(model, requests, params):
    with make_pool(0, model.config.to_dict(), ENGINE) as pool:
        pool.publish(model.state_dict(), 5)
        return pool.rollout(requests, params)


@pytest.fixture(scope="module")
def expected(model):
    return local_rollouts(model, REQUESTS, PARAMS)


@pytest.fixture(scope="module")
def expected_of_many(model):
    return local_rollouts(model, MANY, LONG)


@pytest.fixture(scope="module")
def shared_pool(model):
    with make_pool(2, model.config.to_dict(), ENGINE, SMALL) as pool:
        pool.publish(model.state_dict(), 5)
        yield pool


@pytest.fixture
def actors(shared_pool):
    """Both are there, whatever the test before did to them."""
    shared_pool.crew.wait_until(lambda: len(shared_pool.crew.ready()) == 2)
    return shared_pool


def pid_of(pool, worker):
    pool.crew.wait_until(lambda: worker in pool.crew.ready())
    greeting = pool.crew.members[worker].greeting
    assert greeting is not None
    return greeting.process.pid


class During:
    """Does something once, in the middle of a call."""

    def __init__(self, action):
        self.action, self.done, self.progress = action, False, []

    def __call__(self, tokens, finished):
        self.progress.append((tokens, finished))
        if finished and not self.done:
            self.done = True
            self.action()


def test_two_actors_give_the_same_rollouts(model, expected, actors):
    heard = []
    rollouts = actors.rollout(REQUESTS, PARAMS, on_rollout=lambda place, one: heard.append((place, one)))
    assert_same(rollouts, expected, batch_tolerance(model))
    assert {rollout.policy_version for rollout in rollouts} == {5}
    assert sorted(heard, key=lambda pair: pair[0]) == list(enumerate(rollouts)), "each is told once"
    prints = actors.fingerprints()
    assert len(prints) == 2 and prints[0] == prints[1] and prints[0][0] == 5
    assert_same(actors.rollout(REQUESTS[:1], PARAMS), expected[:3], batch_tolerance(model))
    assert actors.rollout([], PARAMS) == []


def test_fixed_depths_reach_the_actors(model, actors):
    fixed = [replace(request, fixed_depths=(None, 1, 2)) for request in REQUESTS]
    rollouts = actors.rollout(fixed, PARAMS)
    assert_same(rollouts, local_rollouts(model, fixed, PARAMS), batch_tolerance(model))
    assert [set(rollout.depths) for rollout in rollouts[1::3]] == [{1}] * len(REQUESTS)
    assert [set(rollout.depths) for rollout in rollouts[2::3]] == [{2}] * len(REQUESTS)


def test_the_number_of_workers_chooses_the_pool(model, actors):
    assert isinstance(actors, ActorPool) and isinstance(make_pool(0, model.config.to_dict()), LocalPool)
    devices = [one.actor.__ray_call__.remote(lambda a: a.worker.engine.config.device) for one in actors.crew.members]
    assert ray.get(devices) == ["cpu", "cpu"], "without a GPU of its own an actor stays off those that it can see"


def test_actors_do_not_give_way_to_other_processes(actors):
    """Ray starts workers with a lower priority (nice): on a busy machine the trainer would wait for them."""
    niceness = ray.get([one.actor.__ray_call__.remote(lambda _: os.nice(0)) for one in actors.crew.members])
    assert niceness == [os.nice(0)] * 2


def test_another_number_of_actors_gives_the_same_rollouts(model, expected, actors):
    """They join a running Ray and leave it running."""
    with make_pool(1, model.config.to_dict(), EngineConfig(max_batch=2), SMALL) as pool:
        pool.publish(model.state_dict(), 5)
        assert_same(pool.rollout(REQUESTS, PARAMS), expected, batch_tolerance(model))
        pid = pid_of(pool, 0)
    assert comes_true(lambda: not alive(pid))
    assert len(actors.fingerprints()) == 2


def test_errors_inside_an_actor_are_raised(model, expected, actors):
    with pytest.raises(UserError, match="lower max_new_tokens"):
        actors.rollout(REQUESTS, SamplingParams(max_new_tokens=1000))
    assert_same(actors.rollout(REQUESTS, PARAMS), expected, batch_tolerance(model))


def test_an_actor_that_is_stopped_is_replaced(model, expected_of_many, actors, caplog, monkeypatch):
    """SIGSTOP: the process is there, and its connections are open."""
    monkeypatch.setattr(actors.crew, "_settings", replace(SMALL, heartbeat_s=6))
    pid = pid_of(actors, 1)
    during = During(lambda: os.kill(pid, signal.SIGSTOP))
    rollouts = actors.rollout(MANY, LONG, during)
    assert during.done
    assert_same(rollouts, expected_of_many, batch_tolerance(model))
    assert "rollout worker 1 died and is started again: it has not answered for 6 s" in caplog.text
    assert comes_true(lambda: not alive(pid)) and during.progress == sorted(during.progress)


def test_actors_killed_again_and_again(model, expected_of_many, actors, caplog):
    """All at once in mid-generation; then one of them while it loads weights."""
    pids = [pid_of(actors, worker) for worker in range(2)]
    during = During(lambda: [os.kill(pid, signal.SIGKILL) for pid in pids])
    assert_same(actors.rollout(MANY, LONG, during), expected_of_many, batch_tolerance(model))
    assert during.done and caplog.text.count("died and is started again") == 2
    os.kill(pid_of(actors, 0), signal.SIGKILL)
    actors.publish(model.state_dict(), 6)
    rollouts = actors.rollout(MANY, LONG)
    assert {rollout.policy_version for rollout in rollouts} == {6}
    assert [rollout.completion_ids for rollout in rollouts] == [rollout.completion_ids for rollout in expected_of_many]
    assert comes_true(lambda: len(actors.fingerprints()) == 2), "one of them was still starting again"
    prints = actors.fingerprints()
    assert prints[0] == prints[1] and prints[0][0] == 6


def test_actors_that_keep_dying_stop_the_run(actors, monkeypatch):
    def start_dead(index):
        actor = start(index)
        ray.kill(actor)
        return actor

    start = actors.crew._start
    monkeypatch.setattr(actors.crew, "_start", start_dead)
    monkeypatch.setattr(crew, "BEAT_S", 0.1)
    monkeypatch.setattr("rollout_workers.fleet.restarts.LONGEST_PAUSE_S", 0.1)
    for member in actors.crew.members:
        ray.kill(member.actor)
    with pytest.raises(RunError, match="died 8 times in a row"):
        actors.rollout(REQUESTS, PARAMS)
    monkeypatch.undo()
    actors.crew.restarts.explained()
    assert len(actors.rollout(REQUESTS, PARAMS)) == 15, "the pool can still be used"


def test_no_room_for_the_actors(model, actors, monkeypatch):
    monkeypatch.setattr(crew, "START_SECONDS", 1)
    with (
        make_pool(1, model.config.to_dict(), ENGINE, FleetSettings(cpus=1000)) as pool,
        pytest.raises(RunError, match="could not start 1 rollout"),
    ):
        pool.publish(model.state_dict(), 0)
