"""Groups are scored while others are still being sampled: order, determinism, failures."""

import threading

import pytest

from ouro_rl.config.train import TrainConfig
from ouro_rl.core.errors import UserError
from ouro_rl.core.rollout import Prompt, Rollout
from ouro_rl.core.sampling_params import SamplingParams
from ouro_rl.model.tiny_tokenizer import make_tokenizer
from ouro_rl.training.rollout_source import Cancelled, GroupSampler, GroupScoring
from rewards.scorer import ItemScore, Scorer
from rewards.spec import RewardSpec
from tests.references.patience import HANG_S, comes_true

TOKENIZER = make_tokenizer()
PROMPTS = [Prompt(index=i, token_ids=(1,), columns={"answer": str(i)}) for i in range(3)]


def rollout(group: int, sample: int) -> Rollout:
    ids = tuple(TOKENIZER(f"\\boxed{{{group + sample}}}")["input_ids"])
    nothing = (0.0,) * len(ids)
    return Rollout(
        prompt_index=group,
        sample_index=sample,
        prompt_ids=(1,),
        completion_ids=ids,
        token_logprobs=nothing,
        depths=(1,) * len(ids),
        depth_logprobs=nothing,
        policy_version=0,
        temperature=1.0,
        finish_reason="length",
    )


ROLLOUTS = [rollout(group, sample) for group in range(3) for sample in range(2)]


class Recorder:
    """A scorer that records its calls and can be blocked."""

    def __init__(self, any_order: bool, hold: threading.Event | None = None):
        self.any_order, self.hold, self.calls = any_order, hold, []

    def score(self, prompts, completions, columns, completion_ids=None):
        if self.hold is not None:
            assert self.hold.wait(HANG_S)
        self.calls.append(columns["answer"][0])
        assert [len(ids) for ids in completion_ids] == [len(TOKENIZER(text)["input_ids"]) for text in completions]
        return [ItemScore(rewards={"r": 1.0}, statuses={"r": "correct"}, reward=1.0) for _ in completions]


@pytest.mark.parametrize(("any_order", "calls"), [(True, ["2", "0", "1"]), (False, ["0", "1", "2"])])
def test_groups_are_scored_when_complete(any_order, calls):
    scorer = Recorder(any_order)
    with GroupScoring(scorer, TOKENIZER, PROMPTS, 2) as scoring:
        for place in (5, 0, 4, 1):
            scoring.add(place, ROLLOUTS[place])
        assert comes_true(lambda: len(scorer.calls) == (2 if any_order else 1)), (
            "scoring must start before the last rollout has arrived"
        )
        assert scorer.calls == calls[: 2 if any_order else 1]
        scored = scoring.finish(ROLLOUTS)
    assert scorer.calls == calls
    assert [(item.rollout.prompt_index, item.rollout.sample_index) for item in scored] == [
        (g, s) for g in range(3) for s in range(2)
    ]


def test_scoring_does_not_hold_up_sampling():
    hold = threading.Event()
    scorer = Recorder(True, hold)
    with GroupScoring(scorer, TOKENIZER, PROMPTS, 2) as scoring:
        for place, one in enumerate(ROLLOUTS):
            scoring.add(place, one)
        assert not scorer.calls
        hold.set()
        assert len(scoring.finish(ROLLOUTS)) == 6


def test_the_scores_are_those_of_one_batch():
    with Scorer([RewardSpec("math"), RewardSpec("length", 0.5, {"longest": 20, "buffer": 10})]) as scorer:
        assert scorer.any_order
        with GroupScoring(scorer, TOKENIZER, PROMPTS, 2) as scoring:
            scoring.add(3, ROLLOUTS[3])
            scored = scoring.finish(ROLLOUTS)
        assert [item.rewards["math"] for item in scored] == [1.0, 0.0] * 3
        assert all(item.rewards["length"] is not None for item in scored)
    with Scorer([RewardSpec("math"), RewardSpec("some.module:function")]) as scorer:
        assert not scorer.any_order


def test_errors_of_a_scorer_are_raised():
    with Scorer([RewardSpec("math")]) as scorer:
        prompts = [Prompt(index=0, token_ids=(1,), columns={"question": "?"})]
        with GroupScoring(scorer, TOKENIZER, prompts, 2) as scoring, pytest.raises(UserError, match="`answer`"):
            scoring.finish(ROLLOUTS[:2])


def test_a_cancelled_call_ends_while_it_samples():
    class Pool:
        def rollout(self, requests, params, on_progress=None, on_rollout=None):
            on_progress(1, 0)
            sampler.cancel()
            on_progress(2, 0)
            raise AssertionError("not reached")

    config = TrainConfig.model_validate(
        {"model": {"path": "x"}, "trainer": {"steps": 1, "group_size": 2, "micro_batch": 2}}
    )
    sampler = GroupSampler(config, SamplingParams(max_new_tokens=1), Pool(), Recorder(True), TOKENIZER)
    with pytest.raises(Cancelled):
        sampler(PROMPTS, 1)
