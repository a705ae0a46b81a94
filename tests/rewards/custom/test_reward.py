"""Functions written for verl, TRL or neither, the early check, the children's environment, and gold answers."""

import json
import logging
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ouro_rl.core.errors import UserError
from ouro_rl.core.rollout import Prompt
from ouro_rl.data.gold_answers import keep_gradable
from rewards.grade import grade_file
from rewards.math_grader.golds import check_golds
from rewards.math_grader.reward import MathReward
from rewards.processes.pool import ProcessPool
from rewards.scorer import Scorer, check_reward
from rewards.spec import RewardSpec
from rewards.try_reward import try_reward
from tests.references.patience import HANG_S
from tests.references.places import REPOSITORY

REWARDS = """
import asyncio, functools, os, time

def compute_score(data_source, solution_str, ground_truth, extra_info=None):
    assert isinstance(solution_str, str)
    if solution_str == "bad":
        raise ValueError("bad item")
    return {"score": float(ground_truth in solution_str) + extra_info.get("bonus", 0), "acc": True, "of": data_source}

async def plain(completion, answer, level=0):
    await asyncio.sleep(0)
    if completion == "hang":
        time.sleep(60)
    if completion == "die":
        os._exit(1)
    return (answer in completion) * 0.5 + level

def text_only(completion):
    return len(completion)

def no_score(solution_str, ground_truth):
    return {"acc": 1}

def positional(said, right):
    return float(said == right)

def ids(completions, completion_ids, **kwargs):
    return [float(len(tokens)) for tokens in completion_ids]

class Unspeakable(Exception):
    def __str__(self):
        raise RuntimeError

def unspeakable(completions, **kwargs):
    raise Unspeakable

def half_too_large(completions, **kwargs):
    return [10**400, 1.0]

def nan_for_bad(completions, **kwargs):
    return [float("nan" if said[-1]["content"] == "bad" else 1) for said in completions]

def raises_for_bad(completions, **kwargs):
    if any(said[-1]["content"] == "bad" for said in completions):
        raise ValueError("bad item")
    return [1.0] * len(completions)

def unwritable(completions, **kwargs):
    raise ValueError("\\ud800")

def secret(completions, **kwargs):
    return [float(os.environ.get("OURO_TEST_SECRET") == "s3cret")] * len(completions)

def by_level(completion, answer, level):
    return level * float(answer in completion)

def of_level(completions, level, **kwargs):
    return level

def verl_level(solution_str, ground_truth, level):
    return level * float(ground_truth in solution_str)

def with_judge(function):
    @functools.wraps(function)
    def given(*args, **kwargs):
        return function(*args, judge=3.0, **kwargs)
    return given

@with_judge
def judged(completions, judge, **kwargs):
    return [judge] * len(completions)
"""


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    (tmp_path / "plug.py").write_text(REWARDS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return "plug.py"


def scores(spec, completions, ids=None, **columns):
    with Scorer([spec], timeout_s=20.0) as scorer:
        return scorer.score(["?"] * len(completions), completions, columns, ids)


def test_verls_compute_score(plugin):
    spec = RewardSpec(f"{plugin}:compute_score")
    found = scores(
        spec,
        ["it is 4", "bad", "5"],
        ground_truth=["4", "4", "4"],
        data_source=["gsm"] * 3,
        extra_info=[{"bonus": 2}, {}, None],
    )
    assert [item.reward for item in found] == [3.0, None, 0.0]
    assert found[1].statuses == {"compute_score": "crash"}
    assert (
        "plug.py:compute_score" in found[1].details["compute_score"]
        and "item 1: ValueError: bad item" in found[1].details["compute_score"]
    )
    nested = scores(spec, ["4"], reward_model=[{"ground_truth": "4"}])
    assert nested[0].reward == 1.0
    assert "gold answer" in scores(spec, ["4"])[0].details["compute_score"]
    assert "without `score`" in scores(RewardSpec(f"{plugin}:no_score"), ["4"], answer=["4"])[0].details["no_score"]


def test_a_plain_function_loses_only_the_item_that_hangs_or_dies(plugin):
    spec = RewardSpec(f"{plugin}:plain", timeout_s=3.0)
    found = scores(spec, ["4", "hang", "die", "44"], answer=["4"] * 4, level=[0, 0, 0, 1])
    assert [item.reward for item in found] == [0.5, None, None, 1.5]
    assert [item.statuses["plain"] for item in found] == ["correct", "timeout", "crash", "correct"]
    assert scores(RewardSpec(f"{plugin}:text_only"), ["four"])[0].reward == 4.0


@pytest.mark.parametrize("function", ["by_level", "of_level", "verl_level"])
def test_a_column_that_the_data_lacks_is_named_with_those_that_it_has(plugin, function):
    spec = RewardSpec(f"{plugin}:{function}")
    problem = scores(spec, ["4"], answer=["4"], grade=[3])[0].details[function]
    assert "the data has no column level," in problem and "(its columns: answer, grade)" in problem
    assert scores(spec, ["4"], answer=["4"], level=[3])[0].reward == 3.0


def test_what_a_decorator_gives_need_not_be_a_column(plugin):
    assert scores(RewardSpec(f"{plugin}:judged"), ["4"], answer=["4"])[0].reward == 3.0


def test_the_adapter_can_be_set(plugin):
    assert scores(RewardSpec(f"{plugin}:positional", adapter="plain"), ["a"], answer=["a"])[0].reward == 1.0
    with pytest.raises(UserError, match="adapter cannot be inferred"):
        scores(RewardSpec(f"{plugin}:positional"), ["a"], answer=["a"])


def test_completion_ids_are_passed_as_in_trl(plugin):
    assert [item.reward for item in scores(RewardSpec(f"{plugin}:ids"), ["a", "b"], [[1], [1, 2]])] == [1.0, 2.0]


def test_the_early_check_has_a_deadline_and_imports_in_a_child(plugin, tmp_path):
    (tmp_path / "sleepy.py").write_text(f"import time; time.sleep({2 * HANG_S})\n")
    (tmp_path / "dead.py").write_text("import os; os._exit(0)\n")
    started = time.monotonic()
    with pytest.raises(UserError, match="sleepy.py:f.*not ready after 1 s"):
        check_reward("sleepy.py:f", timeout_s=1.0)
    assert time.monotonic() - started < HANG_S
    with pytest.raises(UserError, match="dead.py:f.*exited with status 0"):
        check_reward("dead.py:f")
    check_reward(f"{plugin}:plain")
    assert not any("plug" in name for name in sys.modules if name.startswith("ouro_reward"))


def test_workers_of_built_in_rewards_see_no_secrets(plugin, tmp_path, monkeypatch):
    monkeypatch.setenv("OURO_TEST_SECRET", "s3cret")
    (tmp_path / "env_handler.py").write_text("import os\ndef make():\n    return lambda item: dict(os.environ)\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with ProcessPool("env_handler:make", {}, workers=1, timeout_s=10, bare_environment=True) as pool:
        assert "OURO_TEST_SECRET" not in pool.run([0])[0].value
    math = MathReward()
    assert math._pool._bare_environment
    math.close()
    assert scores(RewardSpec(f"{plugin}:secret"), ["a"])[0].reward == 1.0  # a user's own code keeps its environment


def prompt(index, **columns):
    return Prompt(index=index, token_ids=(1,), columns=columns)


def test_ungradable_golds_are_left_out_listed_and_counted(caplog):
    golds = ["42", "", "{", "\\frac{1}{2}", "1" * 5000]
    assert sorted(check_golds(golds)) == [1, 2, 4]
    with caplog.at_level(logging.WARNING):
        kept = keep_gradable([prompt(i, answer=gold) for i, gold in enumerate(golds)], "data.source x.jsonl")
    assert [one.index for one in kept] == [0, 3]
    assert "data.source x.jsonl: left out 3 of 5 prompts" in caplog.text and "row 3: '{'" in caplog.text
    with pytest.raises(UserError, match="none of the 1 gold answers can be graded"):
        keep_gradable([prompt(0, answer="{")], "x")
    without = [prompt(0, tests=["assert f()"])]
    assert keep_gradable(without, "x") == without


def run(*arguments, cwd):
    return subprocess.run(
        [sys.executable, "-m", "ouro_rl", *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"},
    )


def test_reward_test_prints_every_item(plugin, tmp_path):
    rows = [{"completion": "4", "answer": "4"}, {"completion": "bad", "answer": "4"}]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = run("reward", "test", f"{plugin}:compute_score", "rows.jsonl", cwd=tmp_path)
    lines = done.stdout.splitlines()
    assert done.returncode == 1 and lines[1].split()[:3] == ["1", "1", "correct"] and "ValueError: bad item" in lines[2]
    assert (
        "2 items, 1 scored, mean 1.0000" in done.stdout
        and "crash 1" in done.stdout
        and "ms per item: median" in done.stdout
    )
    assert run("reward", "test", "math", "rows.jsonl", cwd=tmp_path).returncode == 0
    for arguments, part in [
        (("test", "mathh", "rows.jsonl"), "did you mean math"),
        (("test", "math", "gone.jsonl"), "gone.jsonl"),
        (("test", "length", "rows.jsonl"), "longest"),
        (("test", "math", "rows.jsonl", "--kwargs", "{accept: all}"), "accept must be one of"),
        (("bench", "rows.jsonl"), "'gold' is missing"),
    ]:
        done = run("reward", *arguments, cwd=tmp_path)
        assert done.returncode == 2 and part in done.stderr and len(done.stderr.splitlines()) <= 3, done


@pytest.mark.parametrize(
    ("function", "batch", "said"),
    [
        ("compute_score", 1, "row 3: ValueError: bad item"),
        ("compute_score", 2, "row 3: ValueError: bad item"),
        ("nan_for_bad", 1, "row 3: returned nan"),
        ("nan_for_bad", 2, "row 3: returned nan"),
        ("raises_for_bad", 1, "row 3: ValueError: bad item"),
        ("raises_for_bad", 2, "the whole batch: ValueError: bad item"),
    ],
)
def test_errors_name_the_row_of_the_file(plugin, tmp_path, function, batch, said):
    rows = [{"completion": said, "answer": "4"} for said in ("4", "4", "bad", "4")]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    printed = try_reward(RewardSpec(f"{plugin}:{function}"), Path("rows.jsonl"), batch=batch, timeout_s=20)
    lines = [line for line in printed if isinstance(line, str)]
    assert lines[3].split()[0] == "3" and said in lines[3]


def test_errors_of_graded_files_name_the_row(plugin, tmp_path, monkeypatch):
    monkeypatch.setattr("rewards.grade._BATCH", 2)
    rows = [{"completion": said, "answer": "4"} for said in ("4", "4", "bad", "4")]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    summary = grade_file("rows.jsonl", f"{plugin}:nan_for_bad", out="out.jsonl", timeout_s=20)
    assert "row 3: returned nan" in str(summary)


def test_reward_bench_counts_both_kinds_of_error(tmp_path):
    rows = [("x+1", "1+x", True, None), ("x+1", "x+2", False, None), ("50\\%", "50", True, "percent")]
    text = "".join(
        json.dumps({"gold": gold, "prediction": said, "expected_equal": equal, "policy": policy}) + "\n"
        for gold, said, equal, policy in rows
    )
    (tmp_path / "pairs.jsonl").write_text(text)
    done = run("reward", "bench", "pairs.jsonl", "--workers", "1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "2 pairs; 1 left out" in done.stdout
    assert [line.split(" | ")[2:5] for line in done.stdout.splitlines() if line.startswith(("| ouro", "| Math"))] == [
        ["100.0%", "0 of 1", "0 of 1"]
    ] * 2


def test_errors_that_cannot_be_printed_or_represented(plugin, tmp_path):
    with Scorer([RewardSpec("plug.py:unspeakable"), RewardSpec("plug.py:half_too_large")], timeout_s=20) as scorer:
        first, second = scorer.score(["q", "q"], ["a", "b"], {})
    assert first.details["unspeakable"] == "reward 'plug.py:unspeakable', the whole batch: Unspeakable (plug.py:35)"
    assert "item 0: returned an integer too large" in first.details["half_too_large"]
    assert second.rewards["half_too_large"] == 1.0
    (tmp_path / "rows.jsonl").write_text('{"completion": "x"}\n')
    command = [sys.executable, "-m", "ouro_rl", "reward", "test", "plug.py:unwritable", "rows.jsonl"]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(REPOSITORY)}
    )
    assert done.returncode == 1 and "ValueError: \\ud800" in done.stdout and not done.stderr, done.stderr
