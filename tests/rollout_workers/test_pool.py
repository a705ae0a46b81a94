"""The pool in this process: weights with versions, rollouts as they finish."""

import pytest
import torch

from ouro_rl.core.engine_config import EngineConfig
from ouro_rl.core.errors import RunError
from ouro_rl.core.sampling_params import SamplingParams
from ouro_rl.core.seeds import sample_seed
from rollout_workers.pool import make_pool
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


def test_rollouts_are_reported_as_they_finish(model, expected):
    told, progress = {}, []
    with make_pool(0, model.config.to_dict(), EngineConfig(max_batch=4)) as pool:
        pool.publish(model.state_dict(), 5)
        rollouts = pool.rollout(
            REQUESTS,
            PARAMS,
            on_progress=lambda *now: progress.append(now),
            on_rollout=lambda place, one: told.update({place: one}),
        )
    assert_same(rollouts, expected, batch_tolerance(model))
    assert [told[place] for place in range(len(rollouts))] == rollouts
    assert progress == sorted(progress) and progress[-1][1] == len(rollouts)


def test_seeds_are_63_bit_stable_and_distinct():
    names = [
        (run, step, prompt, sample) for run in (0, 1) for step in range(5) for prompt in range(9) for sample in range(4)
    ]
    seeds = {sample_seed(*name) for name in names}
    assert len(seeds) == len(names)
    assert all(0 <= seed < 1 << 63 for seed in seeds)
    assert sample_seed(0, 1, 2, 3) == 7019356480472336628
