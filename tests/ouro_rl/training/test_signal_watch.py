"""Steps without a signal are told of, with what the rewards were given."""

import math
import random

import pytest
import torch

from ouro_rl.training.objective.advantages import group_advantages
from ouro_rl.training.rollout_metrics import zero_variance
from ouro_rl.training.signal_watch import SILENT_STEPS, SignalWatch, has_signal, silence_message, split_groups
from rewards.scorer import Scorer
from rewards.spec import RewardSpec
from tests.ouro_rl.training.test_rollout_metrics import scored

EQUAL = [scored(0, (1,), 1.0), scored(0, (1,), 1.0), scored(1, (1,), 0.0), scored(1, (1,), None)]
UNEQUAL = [*EQUAL[:3], scored(1, (1,), 0.5)]

FUNCTIONS = """
def of_texts(completions, **columns):
    return [float(completion.endswith("7")) if isinstance(completion, str) else 0.0 for completion in completions]

def of_text(solution_str, ground_truth):
    return 0.0

def plain(completion, answer):
    return 0.0
"""


def test_a_signal_is_a_difference_within_a_group():
    assert [has_signal(group) for group in split_groups(EQUAL, 2)] == [False, False]
    assert [has_signal(group) for group in split_groups(UNEQUAL, 2)] == [False, True]
    assert not has_signal([scored(0, (1,), None)] * 4)


@pytest.mark.parametrize("scale", ["group", "batch", "none"])
def test_groups_without_a_signal_are_those_whose_advantages_are_all_0(scale):
    generator = random.Random(0)
    for _ in range(200):
        choices = [generator.choice([0.0, 0.1, 1 / 3, -2.7, 1e30, 1e-3, None]) for _ in range(2)]
        items = [scored(i // 3, (1,), generator.choice(choices)) for i in range(12)]
        rewards = torch.tensor(
            [math.nan if item.reward is None else item.reward for item in items], dtype=torch.float64
        )
        learned = (group_advantages(rewards, 3, scale).view(4, 3) != 0).any(1)
        assert [has_signal(group) for group in split_groups(items, 3)] == learned.tolist(), rewards
        assert zero_variance(split_groups(items, 3)) == 1 - learned.double().mean()


def test_a_missing_signal_is_reported_once_and_again_after_a_signal():
    watch = SignalWatch()
    steps = [EQUAL] * (SILENT_STEPS + 4) + [UNEQUAL] + [EQUAL] * SILENT_STEPS
    told = [step for step, rollouts in enumerate(steps, start=1) if watch.is_silent(split_groups(rollouts, 2))]
    assert told == [SILENT_STEPS, len(steps)]


def test_the_message_shows_what_every_reward_was_given(tmp_path):
    (tmp_path / "mine.py").write_text(FUNCTIONS)
    names = ("of_texts", "of_text", "plain")
    with Scorer([*[RewardSpec(f"{tmp_path}/mine.py:{name}") for name in names], RewardSpec("math")]) as scorer:
        passed = scorer.as_passed("it is 7")
        (score,) = scorer.score([""], ["it is 7"], {"answer": ["8"]})
    assert score.rewards["of_texts"] == 0.0, "a function that expects texts gives 0 for messages"
    assert passed == {
        "of_texts": "completions=[[{'role': 'assistant', 'content': 'it is 7'}], ...]",
        "of_text": "solution_str='it is 7'",
        "plain": "completion='it is 7'",
        "math": "completion='it is 7'",
    }
    text = silence_message(EQUAL, {"math": passed["of_texts"]})
    assert text.startswith(f"No group has had a signal in {SILENT_STEPS} steps")
    assert "math(completions=[[{'role'" in text and "-> 1.0; in all 2 x 1, 1 x 0, 1 x unscored (correct)" in text


def test_long_completions_are_shortened():
    with Scorer([RewardSpec("math")]) as scorer:
        assert scorer.as_passed("7" * 500)["math"] == f"completion={'7' * 120 + '...'!r}"
