"""Groups are scored while others are still being sampled: order, determinism, failures."""

import threading
from dataclasses import replace

import pytest

from ouro_rl.config.train import TrainConfig
from ouro_rl.core.errors import RunError, UserError
from ouro_rl.core.rollout import Prompt, Rollout
from ouro_rl.core.sampling_params import SamplingParams
from ouro_rl.core.seeds import sample_seed
from ouro_rl.model.tiny_tokenizer import make_tokenizer
from ouro_rl.training.refill import further_prompts
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
    sampler = GroupSampler(config, SamplingParams(max_new_tokens=1), Pool(), Recorder(True), TOKENIZER, PROMPTS)
    with pytest.raises(Cancelled):
        sampler(PROMPTS, 1)


class StubPool:
    """Samples one token for every seed; keeps what it was asked for."""

    def __init__(self):
        self.requests, self.params = [], []

    def rollout(self, requests, params, on_progress=None, on_rollout=None):
        self.requests += requests
        self.params.append(params)
        return [
            replace(
                rollout(request.prompt.index, sample),
                fixed_depth=request.fixed_depth(sample),
                depth_policy=params.depth_policy,
            )
            for request in requests
            for sample in range(len(request.seeds))
        ]


class ByPrompt:
    """Rewards of a group that differ for every third prompt; the others are all right, or cannot be scored."""

    any_order = False

    def __init__(self, unscored=()):
        self.unscored = unscored

    def score(self, prompts, completions, columns, completion_ids=None):
        index = int(columns["answer"][0])
        rewards = [
            None if index in self.unscored else 1.0 - (index % 3 == 0) * (i % 2) for i in range(len(completions))
        ]
        return [ItemScore(rewards={"r": reward}, statuses={"r": "said"}, reward=reward) for reward in rewards]


MANY = [Prompt(index=i, token_ids=(1,), columns={"answer": str(i)}) for i in range(40)]


def sampler_of(scorer=None, **sections):
    values = {"model": {"path": "m"}, "trainer": {"steps": 9, "prompts_per_step": 4, "group_size": 4, "micro_batch": 4}}
    for key, value in sections.items():
        section, name = key.split("__")
        values.setdefault(section, {})[name] = value
    config = TrainConfig.model_validate(values, strict=False)
    return GroupSampler(config, SamplingParams(max_new_tokens=3), StubPool(), scorer or ByPrompt(), TOKENIZER, MANY)


def prompts_of(scored):
    assert len(scored) % 4 == 0
    groups = [{item.rollout.prompt_index for item in scored[i : i + 4]} for i in range(0, len(scored), 4)]
    assert all(len(indices) == 1 for indices in groups)
    return [indices.pop() for indices in groups]


def test_groups_without_variance_are_refilled_by_further_prompts():
    asked = [MANY[i] for i in (1, 3, 2, 4)]
    plain, metrics = sampler_of()(asked, 5)
    assert prompts_of(plain) == [1, 3, 2, 4] and not [
        name for name in metrics if name.startswith(("groups/", "reward/"))
    ]
    sampler = sampler_of(trainer__refill=20)
    scored, metrics = sampler(asked, 5)
    found = prompts_of(scored)
    assert found[1] == 3 and all(index % 3 == 0 for index in found) and len(set(found)) == 4
    order = [prompt.index for prompt in further_prompts(MANY, asked, seed=0, step=5)]
    useful = [index for index in order if index % 3 == 0]
    assert [found[0], *found[2:]] == useful[:3], "the first ones of the step's order"
    assert metrics["groups/replaced"] == 3 and metrics["groups/sampled"] == len(sampler.pool.requests)
    assert metrics["groups/reward_before_refill"] == (4 + 2 + 4 + 4) / 16
    for request in sampler.pool.requests:  # seeds follow from the prompt
        seeds = tuple(sample_seed(0, 5, request.prompt.index, sample) for sample in range(4))
        assert request.seeds == seeds
    again = sampler_of(trainer__refill=20)(asked, 5)[0]
    assert again == scored and prompts_of(sampler_of(trainer__refill=20)(asked, 6)[0]) != found


def test_a_refill_does_not_hide_what_could_not_be_scored():
    """All four prompts are unscored and would be replaced by others."""
    asked = [MANY[i] for i in (1, 2, 4, 5)]
    with pytest.raises(RunError, match="100% of this step's completions could not be scored.*16 x r: said"):
        sampler_of(ByPrompt(unscored={1, 2, 4, 5}), trainer__refill=20, rewards__max_unscored=0.9)(asked, 1)
    scored, metrics = sampler_of(ByPrompt(unscored={1}), trainer__refill=20, rewards__max_unscored=0.25)(asked, 1)
    assert 1 not in prompts_of(scored) and metrics["groups/reward_before_refill"] == 1.0


def test_requests_carry_the_anytime_depths_and_the_temperature_of_their_step():
    sampler = sampler_of(
        trainer__refill=1, rollout__anytime=[1, 3], rollout__gate_temperature=2.0,
        rollout__gate_temperature_end=1.0, rollout__gate_temperature_updates=4,
    )  # fmt: skip
    for step in (1, 3, 9):
        scored, _ = sampler(MANY[1:5], step)
        assert [item.rollout.fixed_depth for item in scored] == [None, None, 1, 3] * 4
    temperatures = [params.depth_policy.gate_temperature for params in sampler.pool.params]
    assert temperatures == [2.0, 2.0, 1.5, 1.5, 1.0, 1.0], "those of a refill are those of the step"
