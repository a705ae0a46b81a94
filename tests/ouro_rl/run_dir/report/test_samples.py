import json
import math

import pytest

from ouro_rl.run_dir.report import samples
from ouro_rl.run_dir.report.browser import browser_section
from ouro_rl.run_dir.report.samples import StepSamples, choose, encode_sample, read_steps, split_groups, spread, verdict
from ouro_rl.run_dir.run_dir import RunDir


def record(prompt: int = 0, sample: int = 0, **changes) -> dict:
    return {
        "prompt_index": prompt,
        "sample_index": sample,
        "completion_ids": [5, 6, 7],
        "completion": "a\nb",
        "tokens": ["a", "\n", "b"],
        "depths": [1, 2, 4],
        "token_logprobs": [-0.25, -1.5, 0.0],
        "depth_logprobs": [math.log(0.5), math.log(0.125), 0.0],
        "exit_probs": [[0.5], [0.25, 0.125], [0.3, 0.3, 0.2, 0.2]],
        "rewards": {"math": 1.0, "length": 0.5},
        "statuses": {"math": "correct", "length": "wrong"},
        "details": {"length": "3 tokens"},
        "reward": 1.0,
        "advantage": -0.5,
        "finish_reason": "stop",
    } | changes


def test_a_sample_token_by_token():
    words = {"b": 0}
    assert encode_sample(record(), words) == {
        "reward": 1.0,
        "advantage": -0.5,
        "verdict": "right",
        "scores": [["math", 1.0, "correct", ""], ["length", 0.5, "wrong", "3 tokens"]],
        "end": "stop",
        "tokens": 3,
        "depth": round(7 / 3, 4),
        "t": [1, 2, 0],
        "k": [1, 2, 4],
        "out": None,
        "l": [-250, -1500, 0],
        "e": [500, 125, 1000],
        "p": [[], [250], [300, 300, 200]],
    }
    assert words == {"b": 0, "a": 1, "\n": 2}


def test_a_record_without_the_gate_by_loop():
    for changes in ({"exit_probs": []}, {"exit_probs": None}, {"exit_probs": [1, 2, 3]}):
        assert "p" not in encode_sample(record(**changes), {})


@pytest.mark.parametrize("tokens", [None, ["ab"], "a\nb"])
def test_without_a_split_the_plain_completion_is_shown(tokens):
    encoded = encode_sample(record(tokens=tokens), {})
    assert encoded["text"] == "a\nb" and "t" not in encoded and encoded["depth"] == pytest.approx(7 / 3, abs=1e-4)


def test_of_a_long_completion_the_beginning_and_the_end():
    n = samples.FIRST_TOKENS + samples.LAST_TOKENS + 40
    long = record(
        completion_ids=list(range(n)), tokens=[str(i) for i in range(n)], depths=[1] * n, token_logprobs=[0.0] * n,
        depth_logprobs=[0.0] * n,
    )  # fmt: skip
    words: dict[str, int] = {}
    encoded = encode_sample(long, words)
    assert encoded["out"] == [samples.FIRST_TOKENS, 40] and encoded["tokens"] == n
    assert len(encoded["t"]) == len(encoded["k"]) == len(encoded["l"]) == n - 40
    assert list(words)[-1] == str(n - 1) and str(samples.FIRST_TOKENS) not in words


@pytest.mark.parametrize(
    ("statuses", "said"),
    [
        ({"math": "correct", "length": "wrong"}, "right"),
        ({"math": "no_answer"}, "wrong"),
        ({"math": "policy"}, "wrong"),
        ({"math": "timeout", "format": "correct"}, "unscored"),
        ({}, "unscored"),
        (None, "unscored"),
    ],
)
def test_the_first_reward_says_right_or_wrong(statuses, said):
    assert verdict(record(statuses=statuses)) == said


def test_groups_begin_with_another_prompt_or_where_samples_are_counted_anew():
    places = [(3, 0), (3, 1), (4, 0), (4, 1), (4, 0), (4, 2), (None, None), (None, None)]
    groups = split_groups(record(prompt, sample) for prompt, sample in places)
    assert [len(group) for group in groups] == [2, 2, 2, 1, 1]


def test_spread_keeps_both_ends():
    assert spread(range(100), 4) == [0, 33, 66, 99]
    assert spread([1, 2], 4) == [1, 2] and spread([1, 2, 3], 1) == [1] and spread([], 3) == []


def test_what_is_kept_and_what_is_left_out(monkeypatch, tmp_path):
    monkeypatch.setattr(samples, "STEPS_SHOWN", 3)
    run = RunDir(tmp_path)
    for step in range(1, 10):
        rows = [record(prompt, sample, reward=prompt / 10) for prompt in range(10) for sample in range(2)]
        run.write_rollouts(step, rows)
    steps = read_steps(run)
    assert [step.step for step in steps] == [1, 5, 9] and all(step.whole for step in steps)
    size = 2 * (3 * samples._TOKEN_BYTES + samples._SAMPLE_BYTES)
    monkeypatch.setattr(samples, "PAGE_BYTES", 3 * 4 * size)  # four groups of each step
    shown = choose(steps, recorded=9, loops=4)
    assert [group["step"] for group in shown.data["groups"]] == [9] * 4 + [5] * 4 + [1] * 4
    assert [group["prompt"] for group in shown.data["groups"][:4]] == [
        0,
        3,
        6,
        9,
    ]  # from the lowest to the highest reward
    html = browser_section(shown)
    assert "24 samples: 12 of 30 groups, from the lowest to the highest reward of their groups" in html
    assert "of 3 of the 9 recorded steps, evenly spread" in html


def test_a_huge_step_is_not_read_to_its_end(monkeypatch, tmp_path):
    monkeypatch.setattr(samples, "TOKENS_READ", 30)
    run = RunDir(tmp_path)
    run.write_rollouts(1, [record(prompt, sample) for prompt in range(50) for sample in range(2)])
    (step,) = read_steps(run)
    assert len(step.groups) == 6 and not step.whole  # the group that passes 30 tokens is the last
    assert "the file of a step being long" in browser_section(choose([step], recorded=1, loops=4))


def test_the_page_stays_small_whatever_the_rollouts(tmp_path):
    n = 3000
    long = {
        "completion_ids": list(range(n)),
        "tokens": [f"w{i % 500}" for i in range(n)],
        "depths": [1 + i % 4 for i in range(n)],
        "token_logprobs": [-1.2345] * n,
        "depth_logprobs": [-0.5] * n,
    }
    group = [record(0, sample, **long) for sample in range(64)]
    steps = [StepSamples(step=step, groups=[group] * 20, whole=True) for step in range(1, samples.STEPS_SHOWN + 1)]
    shown = choose(steps, recorded=1000, loops=4)
    assert len(samples.as_json(shown.data)) < 4_000_000  # one group of each step, of 16 x 600 tokens
    assert shown.groups == samples.STEPS_SHOWN and shown.groups_read == 20 * samples.STEPS_SHOWN
    assert all(
        group["of"] == 64 and len(group["samples"]) == samples.SAMPLES_OF_GROUP for group in shown.data["groups"]
    )


def test_data_cannot_end_its_element():
    text = samples.as_json({"text": "</script><!--"})
    assert "<" not in text and json.loads(text) == {"text": "</script><!--"}
