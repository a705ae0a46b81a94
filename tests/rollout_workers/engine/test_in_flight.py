"""Weights that change under running samples: what each token was drawn by is what the record says, and the record is
enough to repeat it."""

import random
from dataclasses import replace

import pytest
import torch

from ouro_rl.core.engine_config import EngineConfig
from ouro_rl.core.kv_rule import KVRule
from ouro_rl.core.rollout import NO_VERSION, Rollout, WeightChange
from ouro_rl.core.sampling_params import DepthPolicy, ExitRule, SamplingParams, StopStrings, TokenFilters
from ouro_rl.model.modeling_ouro import OuroForCausalLM
from rollout_workers.engine.engine import RolloutEngine
from rollout_workers.engine.scheduling import scheduler
from rollout_workers.weight_sync import load_state
from tests.references.sequential import sequential_rollout
from tests.references.tiny_models import batch_tolerance, rounding
from tests.rollout_workers.engine.test_engine import VOCAB, assert_same, calm_model, make_requests
from tests.rollout_workers.engine.test_engine_memory import gib_for, most_pages, requests_with_shared_prefixes

VERSIONS = 10, 11, 12
PARAMS = SamplingParams(max_new_tokens=6, stop_token_ids=(1, 2))
STOP = StopStrings(strings=("ab", "c"), pieces=tuple(bytes([97 + token % 26]) for token in range(VOCAB)))


def models_of(**shape):
    """Three policies, each near the one before it."""
    models = [calm_model(3, **{"layers": 1} | shape) for _ in VERSIONS]
    noise = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for number, model in enumerate(models):
            for parameter in model.parameters():
                parameter.add_(0.05 * number * torch.randn(parameter.shape, generator=noise))
    return dict(zip(VERSIONS, models, strict=True))


def engine_of(models, **settings):
    model = OuroForCausalLM(models[VERSIONS[0]].config).eval()
    load_state(model, models[VERSIONS[0]].state_dict())
    return RolloutEngine(model, EngineConfig(**settings))


def sample(engine, models, requests, params, cache, passes):
    """The rollouts of a call whose weights change after these numbers of passes."""
    count = 0
    with engine.start(requests, params, policy_version=VERSIONS[0]) as call:
        for version, after in zip(VERSIONS[1:], passes, strict=False):
            while count < after and not call.done:
                call.advance()
                count += 1
            state = models[version].state_dict()
            assert call.change_weights(lambda state=state: load_state(engine.model, state), version, cache) is None
            engine.cache.check_integrity()
        return finish(engine, call)


def finish(engine, call):
    rollouts = call.run()
    engine.cache.check_integrity()
    assert engine.cache.owned == int(call.static is not None)
    return rollouts


def repeated(models, requests, params, rollouts):
    """The same rollouts by the slow sampler, from what they record."""
    asked = [(request, index) for request in requests for index in range(len(request.seeds))]
    return [
        sequential_rollout(
            models[rollout.policy_version], request, index, params,
            changes=[(change.start, models[change.version], change.recomputed) for change in rollout.weight_changes],
        )
        for (request, index), rollout in zip(asked, rollouts, strict=True)
    ]  # fmt: skip


CASES = {
    "last exited": ({}, PARAMS),
    "skip": ({}, replace(PARAMS, depth_policy=DepthPolicy(kv_rule=KVRule.SKIP))),
    "full": ({"loops": 3, "layers": 2}, replace(PARAMS, depth_policy=DepthPolicy(kv_rule=KVRule.FULL, min_depth=2))),
    "kl": ({"loops": 3, "kv_heads": 2}, replace(PARAMS, exit_rule=ExitRule(kind="kl", value=0.07))),
    "greedy": ({}, replace(PARAMS, temperature=0.0, exit_rule=ExitRule(kind="threshold", value=0.6))),
}


@pytest.mark.parametrize("cache", ["keep", "recompute"])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("settings", [{"max_batch": 64}, {"max_batch": 4, "prefill_rows": 5}], ids=["wide", "narrow"])
def test_the_record_repeats_the_rollouts(case, cache, settings):
    shape, params = CASES[case]
    models = models_of(**shape)
    requests = make_requests([6, 1, 9], group=2, seed=2)
    rollouts = sample(engine_of(models, **settings), models, requests, params, cache, passes=(6, 10))
    assert any(rollout.weight_changes for rollout in rollouts), "the case is there"
    for rollout in rollouts:
        assert all(change.recomputed == (cache == "recompute") for change in rollout.weight_changes)
    assert_same(rollouts, repeated(models, requests, params, rollouts), rounding(models[10]))


@pytest.mark.parametrize("cache", ["keep", "recompute"])
@pytest.mark.parametrize("seed", [1, 5, 6])
def test_also_under_a_tight_memory_limit_and_at_random_moments(seed, cache, monkeypatch):
    """Samples are preempted before, between and after the changes; prompts share prefixes, some of them in prefill."""
    monkeypatch.setattr(scheduler, "SPARE_TOKENS", 0)
    rng = random.Random(seed)
    models = models_of()
    requests = requests_with_shared_prefixes(rng, 4, longest=12)
    limit = gib_for(models[10], most_pages(requests, PARAMS, 4))
    engine = engine_of(models, max_batch=8, kv_memory_gib=limit, prefill_rows=rng.choice([None, 7]))
    first = rng.randrange(1, 20)
    rollouts = sample(engine, models, requests, PARAMS, cache, (first, first + rng.randrange(20)))
    assert_same(rollouts, repeated(models, requests, PARAMS, rollouts), rounding(models[10]))
    assert engine.stats.preemptions, "memory was short"


def test_static_passes_take_new_weights():
    models, requests = models_of(), make_requests([6, 1], group=2)
    params = replace(PARAMS, max_new_tokens=12)
    for cache in ("keep", "recompute"):
        engine = engine_of(models, max_batch=16, static_passes=True)
        rollouts = sample(engine, models, requests, params, cache, passes=(5, 6))
        assert any(rollout.weight_changes for rollout in rollouts)
        assert_same(rollouts, repeated(models, requests, params, rollouts), rounding(models[10]))


def test_a_token_under_way_is_finished_by_the_weights_that_began_it():
    """With all tokens at depth 4: a change after 6 passes falls into the second pass of the second token."""
    models, requests = models_of(), make_requests([3], group=2)
    params = replace(PARAMS, exit_rule=ExitRule(kind="fixed", value=4), stop_token_ids=())
    rollouts = sample(engine_of(models), models, requests, params, "keep", passes=(6, 6))
    assert [rollout.weight_changes for rollout in rollouts] == [
        tuple(WeightChange(start=2, version=version, recomputed=False) for version in (11, 12))
    ] * 2
    assert rollouts[0].policy_version == 10 and rollouts[0].token_versions == (10,) * 2 + (12,) * 4


def test_what_the_trainer_replays_after_a_recomputation_has_a_gap_of_0():
    """From the change on, a rollout is what the new weights give at the recorded depths, to the bit."""
    models, requests = models_of(), make_requests([6, 1, 11, 2], group=3)
    params = replace(PARAMS, stop_token_ids=(), max_new_tokens=14)
    rollouts = sample(engine_of(models), models, requests, params, "recompute", (9, 18))
    for version in VERSIONS:
        replay_gap, tokens = largest_gap(models[version], rollouts, version)
        assert tokens > 10 and replay_gap <= batch_tolerance(models[version])
    kept = sample(engine_of(models), models, requests, params, "keep", (9, 18))
    assert {version for rollout in kept for version in rollout.replay_versions} == {10, NO_VERSION}
    assert largest_gap(models[10], kept, 10)[0] <= batch_tolerance(models[10])


def largest_gap(model, rollouts, version):
    """Between recorded and replayed log-probs of the tokens that this version accounts for, and their number."""
    worst, count = 0.0, 0
    for rollout in rollouts:
        ids, first = rollout.prompt_ids + rollout.completion_ids, len(rollout.prompt_ids) - 1
        depths = [model.config.total_ut_steps] * first + [*rollout.depths, 1]
        with torch.no_grad():
            output = model(input_ids=torch.tensor([ids]), depths=torch.tensor([depths]))
        log_probs = output.logits[0, first:-1].log_softmax(-1)
        for place, (token, of) in enumerate(zip(rollout.completion_ids, rollout.replay_versions, strict=True)):
            if of == version:
                count += 1
                worst = max(worst, abs(log_probs[place, token].item() - rollout.token_logprobs[place]))
    return worst, count


def test_a_change_to_the_same_weights_changes_no_rollout():
    models, requests = models_of(), make_requests([6, 1, 11, 2], group=3)
    params = replace(PARAMS, stop_strings=STOP, filters=TokenFilters(top_k=9))
    expected = engine_of(models).generate(requests, params, policy_version=10)
    same = dict.fromkeys(VERSIONS, models[10])
    for cache in ("keep", "recompute"):
        rollouts = sample(engine_of(models, max_batch=5), same, requests, params, cache, passes=(4, 11))
        assert_same(rollouts, expected, batch_tolerance(models[10]))
        assert [r.support_sizes for r in rollouts] == [r.support_sizes for r in expected]
        assert [r.stop_string for r in rollouts] == [r.stop_string for r in expected]


def rollout_with(tokens, *changes):
    zeros = (0.0,) * tokens
    return Rollout(
        prompt_index=0, sample_index=0, prompt_ids=(1,), completion_ids=(2,) * tokens, token_logprobs=zeros,
        depths=(1,) * tokens, depth_logprobs=zeros, policy_version=3, temperature=1.0, finish_reason="length",
        weight_changes=tuple(WeightChange(start=s, version=v, recomputed=r) for s, v, r in changes),
    )  # fmt: skip


def test_versions_of_tokens_by_hand():
    plain = rollout_with(3)
    assert plain.token_versions == plain.replay_versions == (3, 3, 3)
    assert plain.mean_version == plain.newest_version == 3
    kept = rollout_with(4, (1, 4, False), (3, 6, False))
    assert kept.token_versions == (3, 4, 4, 6) and kept.replay_versions == (3, NO_VERSION, NO_VERSION, NO_VERSION)
    assert kept.mean_version == 17 / 4 and kept.newest_version == 6
    anew = rollout_with(4, (1, 4, True), (3, 6, True))
    assert anew.replay_versions == anew.token_versions == (3, 4, 4, 6)
    preempted = rollout_with(5, (2, 4, False), (3, 4, True))
    assert preempted.token_versions == (3, 3, 4, 4, 4) and preempted.replay_versions == (3, 3, NO_VERSION, 4, 4)
    before_the_first_token = rollout_with(2, (0, 4, False))
    assert before_the_first_token.token_versions == (4, 4)
    assert before_the_first_token.replay_versions == (NO_VERSION,) * 2, "the prompt was computed by version 3"
    assert replace(rollout_with(0), policy_version=5).mean_version == 5
