"""Thoughts that are closed after a budget: against the sequential sampler, with preemption, and in static passes."""

from dataclasses import replace

import pytest

from ouro_rl.core.engine_config import EngineConfig
from ouro_rl.core.sampling_params import THOUGHT_END, SamplingParams, StopStrings, ThinkingBudget, TokenFilters
from rollout_workers.engine.engine import RolloutEngine
from rollout_workers.engine.scheduling import scheduler
from tests.references.sequential import sequential_rollouts
from tests.references.tiny_models import batch_tolerance, rounding
from tests.rollout_workers.engine.test_engine import VOCAB, assert_same, calm_model, make_requests
from tests.rollout_workers.engine.test_engine_memory import gib_for, most_pages

PIECES = tuple((b"</", b"think>", b"x</thi", b"nk>\n", b" ")[token % 5] for token in range(VOCAB))
BUDGET = ThinkingBudget(tokens=6, closing_ids=(4, 0, 1, 4), end=StopStrings(strings=(THOUGHT_END,), pieces=PIECES))
PARAMS = SamplingParams(max_new_tokens=16, stop_token_ids=(38,), thinking_budget=BUDGET)


def text_of(tokens):
    return b"".join(PIECES[token] for token in tokens).decode()


def test_long_thoughts_are_closed_and_others_left_alone():
    model, requests = calm_model(1), make_requests([1, 9, 4, 17], group=12)
    rollouts = RolloutEngine(model, EngineConfig(max_batch=9)).generate(requests, PARAMS)
    assert_same(rollouts, sequential_rollouts(model, requests, PARAMS), rounding(model))
    kinds = set()
    for rollout in rollouts:
        ids, (first, last) = rollout.completion_ids, rollout.forced
        if THOUGHT_END in text_of(ids[:6]) or len(ids) <= 6:
            assert (first, last) == (0, 0)
        else:
            assert (first, last) == (6, 10) and ids[6:10] == BUDGET.closing_ids
            assert rollout.token_logprobs[6:10] == (0.0,) * 4
        assert all(value < 0 for i, value in enumerate(rollout.token_logprobs) if i not in range(first, last))
        kinds.add((rollout.forced, THOUGHT_END in text_of(ids[:6]), rollout.finish_reason))
    assert len(kinds) >= 4  # closed by force or not, ended by a stop token or cut off


def test_the_budget_changes_nothing_before_it():
    model, requests = calm_model(2), make_requests([5, 8], group=12)
    engine = RolloutEngine(model, EngineConfig(max_batch=24))
    for with_budget, without in zip(
        engine.generate(requests, PARAMS),
        engine.generate(requests, replace(PARAMS, thinking_budget=None)),
        strict=True,
    ):
        whole = with_budget.forced == (0, 0)
        assert with_budget.completion_ids[: None if whole else 6] == without.completion_ids[: None if whole else 6]


def test_a_completion_may_be_cut_off_while_its_thought_is_closed():
    """As in an evaluation with shorter answers than in training."""
    model, requests = calm_model(3), make_requests([5], group=12)
    params = replace(PARAMS, max_new_tokens=8)
    rollouts = RolloutEngine(model, EngineConfig(max_batch=4)).generate(requests, params)
    assert_same(rollouts, sequential_rollouts(model, requests, params), rounding(model))
    assert {rollout.forced for rollout in rollouts} == {(0, 0), (6, 8)}


@pytest.mark.parametrize("filters", [TokenFilters(), TokenFilters(top_k=3)], ids=["all", "top-k"])
def test_preempted_samples_and_static_passes_give_the_same(filters, monkeypatch):
    monkeypatch.setattr(scheduler, "SPARE_TOKENS", 0)
    model, requests, params = calm_model(4), make_requests([3, 9, 1, 5, 17], group=4), replace(PARAMS, filters=filters)
    expected = RolloutEngine(model, EngineConfig(max_batch=64)).generate(requests, params)
    assert {rollout.forced for rollout in expected} == {(0, 0), (6, 10)}
    memory = gib_for(model, most_pages(requests, params, 4))
    tight = RolloutEngine(model, EngineConfig(max_batch=8, kv_memory_gib=memory))
    assert_same(tight.generate(requests, params), expected, batch_tolerance(model))
    assert tight.stats.preemptions > 0
    static = RolloutEngine(model, EngineConfig(max_batch=7, static_passes=True))
    for _ in range(2):  # slots are used again
        assert_same(static.generate(requests, params), expected, batch_tolerance(model))
