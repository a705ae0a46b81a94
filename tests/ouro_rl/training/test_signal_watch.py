"""Steps without a signal are told of, with what the rewards were given."""

from ouro_rl.training.signal_watch import SILENT_STEPS, SignalWatch, has_signal, silence_message
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
    assert not has_signal(EQUAL, 2) and has_signal(UNEQUAL, 2)
    assert not has_signal([scored(0, (1,), None)] * 4, 2)


def test_a_missing_signal_is_reported_once_and_again_after_a_signal():
    watch = SignalWatch(2)
    steps = [EQUAL] * (SILENT_STEPS + 4) + [UNEQUAL] + [EQUAL] * SILENT_STEPS
    told = [step for step, rollouts in enumerate(steps, start=1) if watch.is_silent(rollouts)]
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
