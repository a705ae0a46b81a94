"""Shared prefixes: computed once, and computed again after eviction."""

import random

from ouro_rl.bench.group import Unshared
from ouro_rl.core.engine_config import EngineConfig
from ouro_rl.core.rollout import Prompt, RolloutRequest
from ouro_rl.core.sampling_params import SamplingParams
from rollout_workers.engine.engine import RolloutEngine
from tests.references.sequential import sequential_rollouts
from tests.references.tiny_models import batch_tolerance, rounding
from tests.rollout_workers.engine.test_engine import VOCAB, assert_same, calm_model
from tests.rollout_workers.engine.test_engine_memory import gib_for, most_pages


def test_a_shared_prefix_is_computed_once_for_all_prompts():
    """Six groups that begin with the same 33 tokens, five with 65: shared in blocks of 16."""
    model = calm_model(5)
    rng = random.Random(0)
    tokens = [rng.randrange(VOCAB) for _ in range(65)]
    prompts = [(*tokens[: 33 if i == 2 else 65], 1 + i, *range(5, 5 + i)) for i in range(6)]
    requests = [
        RolloutRequest(prompt=Prompt(index=i, token_ids=prompt), seeds=(2 * i, 2 * i + 1))
        for i, prompt in enumerate(prompts)
    ]
    params = SamplingParams(max_new_tokens=6)
    engine, unshared = (
        RolloutEngine(model, EngineConfig(max_batch=4)),
        RolloutEngine(model, EngineConfig(max_batch=4), policy=Unshared()),
    )
    rollouts = engine.generate(requests, params)
    assert_same(unshared.generate(requests, params), rollouts, batch_tolerance(model))
    assert_same(rollouts[6:8], sequential_rollouts(model, requests[3:4], params), rounding(model))
    own = sum(len(prompt) - 1 for prompt in prompts)
    assert unshared.stats.prefill_rows == 4 * 2 * own and unshared.stats.prefix_hits == 0
    # 32 tokens once for all six, 32 more once for the five
    assert engine.stats.prefill_rows == 4 * (own - 5 * 32 - 4 * 32)
    # the second sample of a group finds the whole prompt; the first, except in group 0, the shared prefix
    assert engine.stats.prefix_hits == own + 5 * 32 + 4 * 32


def test_evicted_prefixes_are_computed_again():
    """Prompts that alternate between two prefixes, with room for little more than one sample."""
    model = calm_model(6)
    rng = random.Random(1)
    starts = [tuple(rng.randrange(VOCAB) for _ in range(48)) for _ in range(2)]
    requests = [
        RolloutRequest(prompt=Prompt(index=i, token_ids=(*starts[i % 2], i, 7)), seeds=(i, 100 + i)) for i in range(6)
    ]
    params = SamplingParams(max_new_tokens=8)
    engine = RolloutEngine(
        model, EngineConfig(max_batch=4, kv_memory_gib=gib_for(model, most_pages(requests, params, 4)))
    )
    rollouts = engine.generate(requests, params)
    assert_same(
        rollouts, RolloutEngine(model, EngineConfig(max_batch=4)).generate(requests, params), batch_tolerance(model)
    )
    assert engine.stats.prefill_rows > 4 * (2 * 48 + 6)
    engine.cache.check_integrity()
