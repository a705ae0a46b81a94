"""The built-in rewards that only look at the text: format, length, exact, regex."""

import pytest

from ouro_rl.core.errors import UserError
from rewards.messages import last_user_text, text_of
from rewards.registry import load_reward
from rewards.scorer import Scorer
from rewards.spec import RewardSpec


def values(name, texts, kwargs, **columns):
    with Scorer([RewardSpec(name, kwargs=kwargs)], timeout_s=20.0) as scorer:
        return [item.rewards[name] for item in scorer.score(["?"] * len(texts), texts, columns)]


@pytest.mark.parametrize(
    ("text", "kwargs", "value"),
    [
        ("<think>I add.</think> \\boxed{3}", {}, 1.0),
        ("<think></think> \\boxed{3}", {}, 0.0),
        ("\\boxed{3}", {}, 0.0),
        ("Hm. <think>x</think> \\boxed{3}", {}, 0.0),
        ("<think>a</think><think>b</think> \\boxed{3}", {}, 0.0),
        ("<think>\\boxed{3}</think> three", {}, 0.0),
        ("<think>x</think> \\boxed{ }", {}, 0.0),
        ("I add.</think> \\boxed{3}", {"thinking": True}, 1.0),
        ("<think>I add.</think> \\boxed{3}", {"thinking": True}, 0.0),
        ("\\boxed{3}", {"think": False}, 1.0),
        ("<think>x</think><answer>3</answer>", {"answer": True, "box": False}, 1.0),
        ("<think>x</think><answer>3</answer> and more", {"answer": True, "box": False}, 0.0),
        ("<think>x <answer>3</answer></think>", {"answer": True, "box": False}, 0.0),
        ("<think>x</think> 3", {"partial": True}, 0.5),
    ],
)
def test_format(text, kwargs, value):
    assert values("format", [text], kwargs) == [value]


def test_text_of_messages_with_several_parts():
    parts = [{"type": "text", "text": "So \\boxed{"}, {"type": "image"}, {"type": "text", "text": "42}"}]
    assert text_of([{"role": "assistant", "content": parts}]) == "So \\boxed{42}"
    assert (
        last_user_text([{"role": "user", "content": parts}, {"role": "assistant", "content": "x"}]) == "So \\boxed{42}"
    )


def test_length_is_dapos_soft_overlong_punishment():
    """DAPO: 0 up to L_max - L_cache, then (L_max - L_cache - |y|) / L_cache, then -1."""
    reward = load_reward(RewardSpec("length", kwargs={"longest": 100, "buffer": 20}))
    scores = reward(["x"] * 6, completion_ids=[[0] * n for n in (0, 80, 81, 90, 100, 500)])
    assert scores == pytest.approx([0.0, 0.0, -0.05, -0.5, -1.0, -1.0])
    assert values("length", ["x" * 9, "x" * 10], {"longest": 10, "buffer": 2, "unit": "characters"}) == [-0.5, -1.0]
    with pytest.raises(UserError, match="completion_ids"):
        values("length", ["x"], {"longest": 10})


def test_the_scorer_passes_token_ids_to_rewards_that_want_them():
    with Scorer([RewardSpec("length", kwargs={"longest": 4, "buffer": 2})]) as scorer:
        (item,) = scorer.score(["?"], ["abc"], {}, [[1, 2, 3]])
    assert item.rewards == {"length": -0.5} and item.verdicts["length"].extracted == "3 tokens"


def test_exact():
    texts = [" Paris\n", "paris", "<think>Rome</think>Paris", "\\boxed{Paris}", "So:\nParis"]
    gold = ["Paris"] * len(texts)
    assert values("exact", texts, {}, answer=gold) == [1.0, 0.0, 1.0, 0.0, 0.0]
    assert values("exact", texts, {"ignore_case": True}, answer=gold)[1] == 1.0
    assert values("exact", texts, {"where": "box"}, answer=gold) == [0.0, 0.0, 0.0, 1.0, 0.0]
    assert values("exact", texts, {"where": "last_line"}, answer=gold)[4] == 1.0
    assert values("exact", ["<answer> Paris </answer>"], {"where": "answer"}, answer=["Paris"]) == [1.0]


def test_regex():
    assert values("regex", ["a 42", "b"], {"pattern": r"\d+"}) == [1.0, 0.0]
    assert values("regex", ["= 42", "= 41", "?"], {"pattern": r"= (?P<answer>\d+)"}, answer=["42"] * 3) == [
        1.0,
        0.0,
        0.0,
    ]


def test_a_pattern_that_backtracks_forever_is_killed():
    reward = load_reward(RewardSpec("regex", kwargs={"pattern": "(a+)+$"}, timeout_s=3.0))
    reward(["warm"])
    first, second = reward.verdicts(["a" * 60 + "b", "aaa"], {})
    assert (first.value, first.status, second.value) == (None, "timeout", 1.0)
    reward.close()


@pytest.mark.parametrize(
    ("name", "kwargs", "message"),
    [
        ("format", {"think": False, "box": False}, "requires no part"),
        ("length", {}, "0 < buffer <= longest"),
        ("length", {"longest": 5, "buffer": 9}, "0 < buffer <= longest"),
        ("length", {"longest": 5, "unit": "words"}, "tokens or characters"),
        ("exact", {"where": "nowhere"}, "must be one of"),
        ("regex", {"pattern": "("}, "is invalid"),
        ("regex", {}, "needs kwargs with a `pattern`"),
        ("math", {"percent": "maybe"}, "percent must be one of value, either"),
        ("math", {"relative_tolerance": 2}, "relative_tolerance"),
        ("math", {"precent": "value"}, "no option 'precent'"),
    ],
)
def test_invalid_options(name, kwargs, message):
    with pytest.raises(UserError, match=message) as error:
        load_reward(RewardSpec(name, kwargs=kwargs))
    assert name in str(error.value)
