"""Weights in flight through real Ray actors: every rollout can be repeated from its record."""

import os
import signal

import pytest

from ouro_rl.core.engine_config import EngineConfig
from ouro_rl.core.sampling_params import SamplingParams
from rollout_workers.fleet.settings import FleetSettings
from rollout_workers.pool import make_pool
from tests.references.patience import HANG_S
from tests.references.tiny_models import rounding
from tests.rollout_workers.engine.test_engine import assert_same, make_requests
from tests.rollout_workers.engine.test_in_flight import models_of, repeated
from tests.rollout_workers.fleet.test_actor_pool import During, pid_of

PARAMS = SamplingParams(max_new_tokens=24)
REQUESTS = make_requests([5, 1, 12, 3] * 5, group=1)
"""Half of them wait when the first has ended, and are given out one by one, with the new weights."""


@pytest.fixture(scope="module")
def models():
    return models_of()


@pytest.fixture(scope="module")
def shared_pool(models):
    settings = FleetSettings(cpus=0.25, heartbeat_s=HANG_S)
    with make_pool(2, models[10].config.to_dict(), EngineConfig(max_batch=4), settings) as made:
        yield made


@pytest.fixture
def pool(models, shared_pool):
    """Both actors are there, whatever the test before did to them."""
    shared_pool.publish(models[10].state_dict(), 10)
    shared_pool.crew.wait_until(lambda: len(shared_pool.crew.ready()) == 2)
    return shared_pool


def changes_of(rollouts):
    return [change for rollout in rollouts for change in rollout.weight_changes]


@pytest.mark.parametrize("cache", ["keep", "recompute"])
def test_samples_under_way_go_on_with_new_weights(models, pool, cache):
    during = During(lambda: pool.publish(models[11].state_dict(), 11, in_flight=cache))
    rollouts = pool.rollout(REQUESTS, PARAMS, during)
    assert during.done and {change.version for change in changes_of(rollouts)} <= {11}
    assert all(change.recomputed == (cache == "recompute") for change in changes_of(rollouts))
    assert 11 in {version for rollout in rollouts for version in rollout.token_versions}
    assert_same(rollouts, repeated(models, REQUESTS, PARAMS, rollouts), rounding(models[10]))
    prints = pool.fingerprints()
    assert len(prints) == 2 and prints[0] == prints[1] and prints[0][0] == 11
    later = pool.rollout(REQUESTS, PARAMS)
    assert {rollout.policy_version for rollout in later} == {11} and not changes_of(later)


def test_an_actor_that_dies_with_new_weights_on_their_way_gets_them(models, pool):
    """Its samples begin anew, with the new ones."""
    pid = pid_of(pool, 1)

    def publish_and_kill():
        pool.publish(models[11].state_dict(), 11, in_flight="keep")
        pool.publish(models[12].state_dict(), 12, in_flight="keep")  # the newest counts
        os.kill(pid, signal.SIGKILL)

    rollouts = pool.rollout(REQUESTS, PARAMS, During(publish_and_kill))
    assert {version for rollout in rollouts for version in rollout.token_versions} <= {10, 12}
    assert any(rollout.policy_version == 12 for rollout in rollouts)
    assert_same(rollouts, repeated(models, REQUESTS, PARAMS, rollouts), rounding(models[10]))


def test_between_two_calls_they_are_like_any_other(models, pool):
    pool.publish(models[11].state_dict(), 11, in_flight="keep")
    rollouts = pool.rollout(REQUESTS[:1], PARAMS)
    assert {rollout.policy_version for rollout in rollouts} == {11} and not changes_of(rollouts)


def test_what_arrives_when_a_call_has_just_ended_waits_for_the_next(models, pool):
    """Between the last look of a call and its end."""
    with pool._lock:
        pool.publish(models[12].state_dict(), 12, in_flight="keep")
    rollouts = pool.rollout(REQUESTS[:1], PARAMS)
    assert {rollout.policy_version for rollout in rollouts} == {12} and not changes_of(rollouts)
