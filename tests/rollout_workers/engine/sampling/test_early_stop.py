"""Aborting hopeless samples: the criteria by hand, and in the engine against the slow sequential computation."""

import pytest
import torch

from ouro_rl.core.engine_config import EngineConfig
from ouro_rl.core.errors import RunError, UserError
from ouro_rl.core.sampling_params import EarlyStop, ExitRule, SamplingParams
from rollout_workers.engine.engine import RolloutEngine
from rollout_workers.engine.sampling.early_stop import repeats
from tests.references.sequential import sequential_rollouts
from tests.references.tiny_models import rounding
from tests.rollout_workers.engine.test_engine import assert_same, calm_model, make_requests


def test_repetition_detection():
    assert repeats("abcabc", 6) and repeats("xxabab", 4) and repeats("aaaa", 4)
    assert repeats("xabcabcab", 8) and not repeats(
        "xabcabcab", 9
    )  # a cut block counts; a window with something else does not
    assert not repeats("abcab", 5)  # the block must be there twice
    assert not repeats("aaa", 4) and not repeats("abcd", 4)
    torch.manual_seed(0)
    for _ in range(300):
        text = torch.randint(0, 2, (8,)).tolist()
        assert repeats(text, 8) == any(text[period:] == text[:-period] for period in range(1, 5))


def parrot(seed=2):
    """A model whose greedy completions repeat themselves."""
    model = calm_model(seed)
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.zero_()  # the next token depends on the last one alone
    return model


@pytest.mark.parametrize("every", [1, 5])
def test_a_sample_that_repeats_itself_is_aborted(every):
    model, requests = parrot(), make_requests([4, 2, 9], group=1)
    params = SamplingParams(
        max_new_tokens=100, temperature=0.0, exit_rule=ExitRule(kind="fixed", value=4),
        early_stop=EarlyStop(every=every, repeat_window=12),
    )  # fmt: skip
    engine = RolloutEngine(model, EngineConfig(max_batch=2))
    rollouts = engine.generate(requests, params)
    assert {rollout.finish_reason for rollout in rollouts} == {"abort"}
    assert all(12 <= len(rollout.completion_ids) < 100 for rollout in rollouts)
    assert all(len(rollout.completion_ids) % every == 0 for rollout in rollouts)
    assert all(repeats(rollout.completion_ids[-12:], 12) for rollout in rollouts)
    assert engine.cache.owned == 0
    assert_same(rollouts, sequential_rollouts(model, requests, params), rounding(model))


def test_early_stops_by_log_prob_depend_on_the_sample_alone():
    model, requests = calm_model(7), make_requests([4, 3, 9], group=4)
    free = SamplingParams(max_new_tokens=16, stop_token_ids=(0, 1))
    params = SamplingParams(
        max_new_tokens=16, stop_token_ids=(0, 1), early_stop=EarlyStop(every=4, min_mean_logprob=-3.8)
    )
    rollouts = RolloutEngine(model, EngineConfig(max_batch=7)).generate(requests, params)
    assert {rollout.finish_reason for rollout in rollouts} == {"stop", "length", "abort"}
    assert_same(rollouts, sequential_rollouts(model, requests, params), rounding(model))
    whole = RolloutEngine(model, EngineConfig(max_batch=64)).generate(requests, free)
    for ours, theirs in zip(
        rollouts, whole, strict=True
    ):  # what was sampled until then is what would have been sampled
        assert ours.completion_ids == theirs.completion_ids[: len(ours.completion_ids)]
        if ours.finish_reason == "abort":
            assert len(ours.completion_ids) % 4 == 0 and sum(ours.token_logprobs) / len(ours.token_logprobs) < -3.8
        else:
            assert ours.finish_reason == theirs.finish_reason


def test_a_user_hook_aborts_samples(tmp_path):
    (tmp_path / "hopeless.py").write_text(
        "def third(completion_ids, token_logprobs):\n    assert len(completion_ids) == len(token_logprobs)\n"
        "    return 3 in completion_ids\n"
        "def broken(completion_ids, token_logprobs):\n    raise KeyError('gone')\n"
    )
    model, requests = calm_model(7), make_requests([4, 9], group=8)
    hook = f"{tmp_path / 'hopeless.py'}:third"
    engine = RolloutEngine(model, EngineConfig(max_batch=8))
    rollouts = engine.generate(requests, SamplingParams(max_new_tokens=12, early_stop=EarlyStop(every=2, hook=hook)))
    for rollout in rollouts:
        first = rollout.completion_ids.index(3) if 3 in rollout.completion_ids else 12
        assert len(rollout.completion_ids) == min(12, first // 2 * 2 + 2)
        assert rollout.finish_reason == ("abort" if len(rollout.completion_ids) < 12 else "length")
    assert {rollout.finish_reason for rollout in rollouts} == {"abort", "length"}
    broken = SamplingParams(max_new_tokens=12, early_stop=EarlyStop(every=2, hook=hook.replace("third", "broken")))
    with pytest.raises(RunError, match=r"rollout.early_stop.hook: .*broken raised KeyError: 'gone'"):
        engine.generate(requests, broken)
    missing = SamplingParams(max_new_tokens=12, early_stop=EarlyStop(hook=hook.replace("third", "thrid")))
    with pytest.raises(UserError, match="rollout.early_stop.hook .* has no function 'thrid'; did you mean 'third'"):
        engine.generate(requests, missing)
