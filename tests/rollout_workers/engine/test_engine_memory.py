"""The engine under a tight memory limit: preemption, shared prefixes, cancellation. In every case the rollouts are
those of the slow sequential sampler."""

import random
import time
from dataclasses import replace

import pytest
import torch

from ouro_rl.bench.rollout import Lockstep
from ouro_rl.core.engine_config import EngineConfig
from ouro_rl.core.errors import UserError
from ouro_rl.core.kv_rule import KVRule
from ouro_rl.core.rollout import Prompt, RolloutRequest
from ouro_rl.core.sampling_params import DepthPolicy, ExitRule, SamplingParams
from rollout_workers.engine.engine import RolloutEngine
from rollout_workers.engine.kv_cache import page_bytes
from rollout_workers.engine.scheduling import scheduler
from rollout_workers.engine.stats import EngineStats
from rollout_workers.pool import make_pool
from tests.references.sequential import sequential_rollouts
from tests.references.tiny_models import batch_tolerance, rounding
from tests.rollout_workers.engine.test_engine import VOCAB, assert_same, calm_model, make_requests


def gib_for(model, pages):
    """The memory limit for this many pages, plus the null page."""
    return (pages + 1.5) * page_bytes(model.config, torch.float32) / 2**30


def requests_with_shared_prefixes(rng, groups, longest=40):
    """Prompts of ragged length; most share a prefix with another prompt, some are equal to one."""
    prompts, requests = [(rng.randrange(VOCAB),)], []
    for index in range(groups):
        other = rng.choice(prompts)
        kept = other[: rng.randint(0, len(other))]
        prompt = kept + tuple(rng.randrange(VOCAB) for _ in range(rng.choice((0, 1, 2, 15, 30))))
        prompt = prompt[:longest] or (1,)
        prompts.append(prompt)
        seeds = tuple(rng.getrandbits(63) for _ in range(rng.randint(1, 4)))
        requests.append(RolloutRequest(prompt=Prompt(index=index, token_ids=prompt), seeds=seeds))
    return requests


def most_pages(requests, params, loops):
    return max(len(request.prompt.token_ids) - 1 + params.max_new_tokens for request in requests) * loops


def finish(engine, call):
    rollouts = call.run()
    engine.cache.check_integrity()
    assert engine.cache.owned == 0
    return rollouts


CASES = [
    # loops, layers, heads, kv heads, hidden, rule, prefill rows
    (1, 2, 2, 1, 32, KVRule.LAST_EXITED, None),
    (2, 1, 4, 2, 32, KVRule.LAST_EXITED, 7),
    (3, 2, 4, 4, 32, KVRule.LAST_EXITED, 30),
    (4, 2, 2, 2, 32, KVRule.LAST_EXITED, None),
    (5, 1, 4, 1, 64, KVRule.LAST_EXITED, 1),
    (6, 2, 2, 1, 16, KVRule.LAST_EXITED, 16),
    (4, 1, 2, 1, 32, KVRule.FULL, 5),
    (3, 1, 2, 2, 16, KVRule.FULL, None),
    (6, 1, 4, 2, 32, KVRule.SKIP, 11),
    (4, 2, 2, 1, 32, KVRule.SKIP, None),
    (2, 1, 2, 2, 64, KVRule.SKIP, 3),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_rollouts_do_not_depend_on_preemption_or_sharing(case, monkeypatch):
    """Ragged prompts with shared prefixes, admitted without spare pages, with room for one or two samples."""
    monkeypatch.setattr(scheduler, "SPARE_TOKENS", 0)
    loops, layers, heads, kv_heads, hidden, rule, prefill_rows = case
    model = calm_model(loops + hidden, loops=loops, layers=layers, heads=heads, kv_heads=kv_heads, hidden=hidden)
    rng = random.Random(str(case))
    requests = requests_with_shared_prefixes(rng, groups=5)
    params = SamplingParams(
        max_new_tokens=rng.randint(8, 12), stop_token_ids=(3,), depth_policy=DepthPolicy(kv_rule=rule)
    )
    pages = int(most_pages(requests, params, loops) * rng.uniform(1.0, 1.1))
    engine = RolloutEngine(
        model, EngineConfig(max_batch=8, kv_memory_gib=gib_for(model, pages), prefill_rows=prefill_rows)
    )
    rollouts = engine.generate(requests, params)
    assert_same(rollouts, sequential_rollouts(model, requests, params), rounding(model))
    engine.cache.check_integrity()
    assert engine.cache.owned == 0
    assert engine.stats.peak_pages <= pages == engine.cache.pages - 1
    assert engine.stats.peak_bytes <= gib_for(model, pages) * 2**30
    assert engine.stats.preemptions > 0 and engine.stats.prefix_hits > 0


def test_many_preemptions_do_not_change_rollouts():
    """Eight long completions with room for two; some are preempted many times, some in the middle of a token."""
    model = calm_model(3)
    params = SamplingParams(max_new_tokens=40)
    requests = make_requests([3, 9, 1, 5], group=2)
    limit = gib_for(model, most_pages(requests, params, 4))
    engine = RolloutEngine(model, EngineConfig(max_batch=8, kv_memory_gib=limit))
    calm = RolloutEngine(model, EngineConfig(max_batch=8))
    assert_same(engine.generate(requests, params), calm.generate(requests, params), batch_tolerance(model))
    assert engine.stats.preemptions >= 5 and calm.stats.preemptions == 0
    assert engine.stats.rows < 2.5 * calm.stats.rows
    assert engine.stats.peak_pages < calm.stats.peak_pages


def test_the_peak_counts_from_the_last_reset():
    engine = RolloutEngine(calm_model(3), EngineConfig(max_batch=4))
    small, large = (make_requests([length]) for length in (3, 30))
    engine.generate(small, SamplingParams(max_new_tokens=4))
    first = engine.stats.peak_pages
    engine.generate(large, SamplingParams(max_new_tokens=4))
    engine.generate(small, SamplingParams(max_new_tokens=4))
    assert engine.stats.peak_pages > first > 0
    engine.stats = EngineStats()
    engine.generate(small, SamplingParams(max_new_tokens=4))
    assert engine.stats.peak_pages == first


def test_the_oldest_sample_never_waits():
    """First come, first served: under any limit the oldest sample takes exactly its own number of passes."""
    model = calm_model(4)
    params = SamplingParams(max_new_tokens=30)
    requests = make_requests([4] * 6, group=1)
    engine = RolloutEngine(
        model, EngineConfig(max_batch=6, kv_memory_gib=gib_for(model, most_pages(requests, params, 4)))
    )
    ended = []
    with engine.start(requests, params) as call:
        while not call.done:
            call.advance()
            ended.append([rollout is not None for rollout in call.rollouts])
    assert engine.stats.preemptions > 0
    first = call.rollouts[0]
    assert ended.index(next(row for row in ended if row[0])) + 1 == sum(first.depths)


def test_a_failed_start_leaves_nothing_behind(monkeypatch):
    engine = RolloutEngine(calm_model(3), EngineConfig(max_batch=2, static_passes=True))
    requests, params = make_requests([4]), SamplingParams(max_new_tokens=3)
    with monkeypatch.context() as patch:
        patch.setattr("rollout_workers.engine.generation.Scheduler", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            engine.start(requests, params)
    assert not engine.cache.references
    assert len(engine.generate(requests, params)) == len(requests[0].seeds)
    engine.cache.check_integrity()


def test_a_request_that_can_never_fit_is_refused():
    model = calm_model()
    requests, params = make_requests([4, 30], group=1), SamplingParams(max_new_tokens=10)
    enough = most_pages(requests, params, 4)
    assert (
        len(
            RolloutEngine(model, EngineConfig(max_batch=2, kv_memory_gib=gib_for(model, enough))).generate(
                requests, params
            )
        )
        == 2
    )
    engine = RolloutEngine(model, EngineConfig(max_batch=2, kv_memory_gib=gib_for(model, enough - 1)))
    with pytest.raises(
        UserError, match="prompt 1 has 30 tokens.*rollout.kv_memory_gib.*raise it, or lower rollout.max_new_tokens"
    ):
        engine.generate(requests, params)
    assert len(engine.generate(requests[:1], params)) == 1


def test_a_memory_limit_above_the_machines_is_refused():
    with pytest.raises(UserError, match="lower rollout.kv_memory_gib"):
        RolloutEngine(calm_model(), EngineConfig(max_batch=2, kv_memory_gib=2.0**40))


def test_cancelled_samples_leave_at_once():
    """At pass 9 a sample with tokens and one in prefill are cancelled; the others in their groups continue."""
    model = calm_model(8)
    requests, params = make_requests([3, 80], group=3), SamplingParams(max_new_tokens=12)
    engine = RolloutEngine(model, EngineConfig(max_batch=6, prefill_rows=8))
    expected = RolloutEngine(model, EngineConfig(max_batch=6)).generate(requests, params)
    with engine.start(requests, params) as call:
        for _ in range(9):
            call.advance()
        by_order = {sample.order: slot for slot, sample in call.scheduler.running.items()}
        owned = engine.cache.owned
        call.cancel([by_order[1], by_order[4]])
        call.cancel([])
        assert engine.cache.owned < owned
        engine.cache.check_integrity()
        rollouts = finish(engine, call)
    for order in (0, 2, 3, 5):
        assert_same([rollouts[order]], [expected[order]], batch_tolerance(model))
    assert [rollout.finish_reason for rollout in rollouts].count("cancelled") == engine.stats.cancelled == 2
    assert 0 < len(rollouts[1].completion_ids) < 12 and rollouts[4].completion_ids == ()
    part = replace(expected[1], finish_reason="cancelled")
    made = len(rollouts[1].completion_ids)
    for name in ("completion_ids", "depths", "token_logprobs", "depth_logprobs"):
        assert getattr(rollouts[1], name) == pytest.approx(getattr(part, name)[:made], abs=2e-6)


def test_a_whole_group_can_be_cancelled_during_prefill():
    model = calm_model(8)
    requests, params = make_requests([60, 4], group=2), SamplingParams(max_new_tokens=5)
    engine = RolloutEngine(model, EngineConfig(max_batch=2, prefill_rows=8))
    with engine.start(requests, params) as call:
        for _ in range(6):
            call.advance()
        call.cancel(list(call.scheduler.running))
        assert engine.cache.owned == 0 and not call.prefill.running and not call.prefill.waiting
        rollouts = finish(engine, call)
    assert [len(rollout.completion_ids) for rollout in rollouts] == [0, 0, 5, 5]


@pytest.mark.parametrize("rule", [ExitRule(), ExitRule(kind="fixed", value=1)], ids=ExitRule.label)
def test_lockstep_waits_for_the_deepest_sample_and_gives_the_same_rollouts(rule):
    model = calm_model(9)
    requests, params = make_requests([3, 9, 1, 5], group=4), SamplingParams(max_new_tokens=8, exit_rule=rule)
    waiting, free = (
        RolloutEngine(model, EngineConfig(max_batch=16), policy=Lockstep()),
        RolloutEngine(model, EngineConfig(max_batch=16)),
    )
    rollouts = free.generate(requests, params)
    assert_same(waiting.generate(requests, params), rollouts, batch_tolerance(model))
    assert waiting.stats.rows == free.stats.rows
    # in step: each token of the batch costs the depth of its deepest sample
    depths = zip(*(rollout.depths for rollout in rollouts), strict=True)
    assert waiting.stats.passes == sum(map(max, depths))
    assert free.stats.passes == max(sum(rollout.depths) for rollout in rollouts)


def test_work_for_a_sample_does_not_grow_with_the_queue():
    """5,000 prompts against 500, of 30 tokens with a shared prefix: the time per sample is about the same (a
    quadratic step would take ten times as long)."""
    model = calm_model(10, layers=1, hidden=16, heads=2, loops=2)
    params = SamplingParams(max_new_tokens=1, exit_rule=ExitRule(kind="fixed", value=1))
    rng = random.Random(0)
    start = tuple(rng.randrange(VOCAB) for _ in range(20))

    def seconds(prompts):
        requests = [
            RolloutRequest(
                prompt=Prompt(index=i, token_ids=start + tuple(rng.randrange(VOCAB) for _ in range(10))), seeds=(i,)
            )
            for i in range(prompts)
        ]
        engine = RolloutEngine(model, EngineConfig(max_batch=64, kv_memory_gib=gib_for(model, 64 * 31 * 2)))
        started = time.thread_time()  # of this thread: others are those of earlier tests
        assert len(engine.generate(requests, params)) == prompts
        return (time.thread_time() - started) / prompts

    seconds(200)
    assert seconds(5000) < 4 * seconds(500)


def test_the_limits_reach_the_engine_through_the_pool():
    model = calm_model()
    limit = gib_for(model, 40)
    config = EngineConfig(max_batch=3, kv_memory_gib=limit, prefill_rows=7, device="cpu")
    with make_pool(0, model.config.to_dict(), config) as pool:
        pool.publish(model.state_dict(), 1)
        engine = pool.worker.engine
        assert (engine.cache.pages, engine.config.prefill_rows, engine.config.max_batch) == (41, 7, 3)
        assert len(pool.rollout(make_requests([5], group=1), SamplingParams(max_new_tokens=6))) == 1
        with pytest.raises(UserError, match="rollout.kv_memory_gib"):
            pool.rollout(make_requests([5], group=1), SamplingParams(max_new_tokens=7))
