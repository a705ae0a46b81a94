"""The pool of workers: the same rollouts for any number of them, and what happens when one dies."""

import os
import signal
from dataclasses import replace

import pytest
import ray
import torch

from ouro_rl.core.engine_config import EngineConfig
from ouro_rl.core.errors import RunError, UserError
from ouro_rl.core.sampling_params import SamplingParams
from ouro_rl.core.seeds import sample_seed
from rollout_workers import actor
from rollout_workers.pool import ActorPool, LocalPool, deal, make_pool
from tests.references.tiny_models import batch_tolerance, random_model
from tests.rollout_workers.engine.test_engine import assert_same, make_requests

PARAMS = SamplingParams(max_new_tokens=8, stop_token_ids=(2,))
REQUESTS = make_requests([5, 1, 12, 3, 7], group=3)


@pytest.fixture(scope="module")
def model():
    return random_model(3, gate_scale=2.0)


@pytest.fixture(scope="module")
def expected(model):
    """The rollouts of the worker in this process."""
    with make_pool(0, model.config.to_dict(), EngineConfig(max_batch=4)) as pool:
        pool.publish(model.state_dict(), 5)
        return pool.rollout(REQUESTS, PARAMS)


@pytest.fixture(scope="module")
def actors(model):
    with make_pool(2, model.config.to_dict(), EngineConfig(max_batch=4), cpus=0.25) as pool:
        pool.publish(model.state_dict(), 5)
        yield pool


def test_rollouts_carry_the_version_of_their_weights(model, expected):
    assert {rollout.policy_version for rollout in expected} == {5}
    with make_pool(0, model.config.to_dict()) as pool:
        with pytest.raises(RunError, match="no weights yet"):
            pool.rollout(REQUESTS, PARAMS)
        pool.publish(model.state_dict(), 1)
        first = pool.fingerprints()
        with torch.no_grad():
            changed = {name: tensor + 1e-3 for name, tensor in model.state_dict().items()}
        pool.publish(changed, 2)
        (version, digest), (first_version, first_digest) = pool.fingerprints()[0], first[0]
        assert (first_version, version) == (1, 2) and digest != first_digest
        pool.publish(model.state_dict(), 3)
        assert pool.fingerprints() == [(3, first_digest)]
        assert_same(pool.rollout(REQUESTS, PARAMS), expected, batch_tolerance(model))


def test_weights_that_do_not_match_the_model(model):
    with make_pool(0, model.config.to_dict()) as pool:
        with pytest.raises(RunError, match="do not fit.*lm_head.weight"):
            pool.publish({name: tensor for name, tensor in model.state_dict().items() if name != "lm_head.weight"}, 1)
        with pytest.raises(RunError, match="do not fit.*model.norm.weight"):
            pool.publish(dict(model.state_dict(), **{"model.norm.weight": torch.ones(3)}), 1)


def test_reads_the_shape_from_a_folder_and_casts_weights(model, tmp_path):
    model.config.save_pretrained(tmp_path)
    with make_pool(0, tmp_path, EngineConfig(dtype="bfloat16")) as pool:
        pool.publish(model.state_dict(), 0)
        assert len(pool.rollout(REQUESTS, PARAMS)) == 15


def test_two_actors_give_the_same_rollouts(model, expected, actors):
    progress = []
    rollouts = actors.rollout(REQUESTS, PARAMS, on_progress=lambda *now: progress.append(now))
    assert_same(rollouts, expected, batch_tolerance(model))
    assert {rollout.policy_version for rollout in rollouts} == {5}
    assert progress == sorted(progress)
    prints = actors.fingerprints()
    assert len(prints) == 2 and prints[0] == prints[1] and prints[0][0] == 5
    assert_same(actors.rollout(REQUESTS[:1], PARAMS), expected[:3], batch_tolerance(model))
    assert actors.rollout([], PARAMS) == []


def test_fixed_depths_reach_the_actors(model, actors):
    fixed = [replace(request, fixed_depths=(None, 1, 2)) for request in REQUESTS]
    with make_pool(0, model.config.to_dict(), EngineConfig(max_batch=4)) as pool:
        pool.publish(model.state_dict(), 5)
        expected = pool.rollout(fixed, PARAMS)
    rollouts = actors.rollout(fixed, PARAMS)
    assert_same(rollouts, expected, batch_tolerance(model))
    assert [set(rollout.depths) for rollout in rollouts[1::3]] == [{1}] * len(REQUESTS)
    assert [set(rollout.depths) for rollout in rollouts[2::3]] == [{2}] * len(REQUESTS)


def test_the_number_of_workers_chooses_the_pool(model, actors):
    assert isinstance(actors, ActorPool) and isinstance(make_pool(0, model.config.to_dict()), LocalPool)
    assert [
        ray.get(one.__ray_call__.remote(lambda worker: worker.engine.config.device)) for one in actors.actors.actors
    ] == (["cpu", "cpu"]), "without a GPU of its own an actor stays off those that it can see"


def test_rollouts_are_reported_while_others_run(model, expected, actors, monkeypatch):
    told = {}
    with make_pool(0, model.config.to_dict(), EngineConfig(max_batch=4)) as pool:
        pool.publish(model.state_dict(), 5)
        assert_same(
            pool.rollout(REQUESTS, PARAMS, on_rollout=lambda place, one: told.update({place: one})),
            expected,
            batch_tolerance(model),
        )
    assert_same([told[place] for place in range(len(expected))], expected, batch_tolerance(model))
    monkeypatch.setattr(actor, "POLL_SECONDS", 0.001)
    heard = []
    rollouts = actors.rollout(REQUESTS, PARAMS, on_rollout=lambda place, one: heard.append((place, one)))
    assert heard
    assert len({place for place, _ in heard}) == len(heard)
    assert all(rollouts[place] == one for place, one in heard)
    assert ray.get([one.finished.remote(0) for one in actors.actors.actors]) == [[], []], (
        "of this call, nothing is left"
    )


def test_actors_do_not_give_way_to_other_processes(actors):
    """Ray starts workers with a lower priority (nice): on a busy machine the trainer would wait for them."""
    niceness = ray.get([actor.__ray_call__.remote(lambda _: os.nice(0)) for actor in actors.actors.actors])
    assert niceness == [os.nice(0)] * 2


def test_one_actor_gives_the_same_rollouts(model, expected, actors):
    """It joins a running Ray and leaves it running."""
    with make_pool(1, model.config.to_dict(), EngineConfig(max_batch=2), cpus=0.25) as pool:
        pool.publish(model.state_dict(), 5)
        assert_same(pool.rollout(REQUESTS, PARAMS), expected, batch_tolerance(model))
    assert len(actors.fingerprints()) == 2


def test_errors_inside_an_actor_are_raised(actors):
    with pytest.raises(UserError, match="lower max_new_tokens"):
        actors.rollout(REQUESTS, SamplingParams(max_new_tokens=1000))


def test_a_dead_actor_is_started_again(model, expected, actors):
    import ray

    victim = actors.actors.actors[1]
    pid = ray.get(victim.__ray_call__.remote(lambda worker: os.getpid()))
    os.kill(pid, signal.SIGKILL)
    assert_same(actors.rollout(REQUESTS, PARAMS), expected, batch_tolerance(model))
    assert actors.actors.actors[1] is not victim


def test_progress_continues_after_an_actor_has_died(model, actors, monkeypatch, caplog):
    long = SamplingParams(max_new_tokens=48)
    with make_pool(0, model.config.to_dict(), EngineConfig(max_batch=4)) as pool:
        pool.publish(model.state_dict(), 5)
        expected = pool.rollout(REQUESTS, long)
    monkeypatch.setattr(actor, "POLL_SECONDS", 0.001)
    progress, heard, killed = [], [], []

    def kill_at_work(tokens, finished):
        progress.append((tokens, finished))
        if finished > 4 and not killed:
            killed.append((len(progress), len(heard)))
            ray.kill(actors.actors.actors[1])

    rollouts = actors.rollout(REQUESTS, long, kill_at_work, lambda place, one: heard.append((place, one)))
    assert_same(rollouts, expected, batch_tolerance(model))
    [(shown, told)] = killed
    total = sum(len(rollout.completion_ids) for rollout in rollouts)
    assert progress == sorted(progress) and progress[-1][0] > 0.6 * total and len(progress) > shown + 1
    assert len(heard) > told and len({place for place, _ in heard}) == len(heard), "nothing is told twice"
    assert all(rollouts[place] == one for place, one in heard)
    assert "rollout worker 1 died and is started again" in caplog.text


def test_an_actor_that_keeps_dying_stops_the_run(actors, monkeypatch):
    import ray

    def start_dead():
        actor = start()
        ray.kill(actor)
        return actor

    start = actors.actors._start
    monkeypatch.setattr(actors.actors, "_start", start_dead)
    ray.kill(actors.actors.actors[0])
    with pytest.raises(RunError, match="rollout worker 0 died"):
        actors.rollout(REQUESTS, PARAMS)


def test_no_room_for_the_actors(model, actors, monkeypatch):
    monkeypatch.setattr("rollout_workers.actor.START_SECONDS", 1)
    with (
        make_pool(1, model.config.to_dict(), cpus=1000) as pool,
        pytest.raises(RunError, match="could not start 1 rollout"),
    ):
        pool.publish(model.state_dict(), 0)


def test_deal_balances_by_samples():
    assert deal([8, 8, 8, 8], 2) == [[0, 2], [1, 3]]
    assert deal([16, 4, 4, 4, 4], 2) == [[0], [1, 2, 3, 4]]
    assert deal([1], 3) == [[0], [], []]
    assert deal([], 2) == [[], []]


def test_seeds_are_63_bit_stable_and_distinct():
    names = [
        (run, step, prompt, sample) for run in (0, 1) for step in range(5) for prompt in range(9) for sample in range(4)
    ]
    seeds = {sample_seed(*name) for name in names}
    assert len(seeds) == len(names)
    assert all(0 <= seed < 1 << 63 for seed in seeds)
    assert sample_seed(0, 1, 2, 3) == 7019356480472336628
