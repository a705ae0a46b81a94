"""Loading rewards by name, the scorer, and grading of files."""

import gzip
import json
import re
import subprocess
import sys

import pytest

from ouro_rl.core.errors import UserError
from rewards.grade import grade_file
from rewards.math_grader.golds import check_golds
from rewards.registry import load_reward
from rewards.scorer import Scorer
from rewards.spec import RewardSpec
from tests.references.places import REPOSITORY

REWARDS = """
import os, time
import helper_beside

seen = []

def length(prompts, completions, **kwargs):
    print("a reward may print")
    assert prompts[0][0]["role"] == "user" and completions[0][0]["role"] == "assistant"
    return [len(completion[0]["content"]) / kwargs.get("scale", 1) for completion in completions]

async def slow_length(completions, target, **kwargs):
    return [float(len(completion[0]["content"]) == t) for completion, t in zip(completions, target)]

def narrow(completions, answer):
    return [answer[i] == completions[i][0]["content"] for i in range(len(completions))]

def logs(completions, log_metric, log_extra, trainer_state, **kwargs):
    log_metric("x", 1.0)
    return [1.0] * len(completions)

def none(completions, **kwargs):
    return [None, 1.0]

def raises(completions, **kwargs):
    raise KeyError("gone")

def short(completions, **kwargs):
    return [1.0]

def odd(completions, **kwargs):
    return [float("nan"), "good"]

def hangs(completions, **kwargs):
    time.sleep(100)

def dies(completions, **kwargs):
    os._exit(1)

def counts(completions, **kwargs):
    seen.append(1)
    return [float(len(seen))] * len(completions)

NUMBER = 3
"""


@pytest.fixture
def reward_file(tmp_path, monkeypatch):
    (tmp_path / "helper_beside.py").write_text("")
    (tmp_path / "my_rewards.py").write_text(REWARDS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return "my_rewards.py"


def score(spec, completions=("a", "bb"), timeout_s=20.0, **columns):
    specs = spec if isinstance(spec, list) else [spec if isinstance(spec, RewardSpec) else RewardSpec(spec)]
    with Scorer(specs, timeout_s=timeout_s) as scorer:
        return scorer.score(["?"] * len(completions), list(completions), columns)


def test_raw_scores_are_reported_and_the_sum_is_weighted(reward_file):
    specs = [RewardSpec("math"), RewardSpec(f"{reward_file}:length", 0.5, {"scale": 10})]
    first, second = score(specs, ["\\boxed{42}", "\\boxed{4}"], answer=["42", "42"])
    assert first.rewards == {"math": 1.0, "length": 1.0}
    assert first.reward == 1.5
    assert second.rewards == {"math": 0.0, "length": 0.9}
    assert second.reward == pytest.approx(0.45)
    assert second.statuses == {"math": "wrong", "length": "correct"}
    assert second.verdicts["math"].extracted == "4"


def test_functions_written_for_trl_run_unchanged(reward_file):
    assert [item.reward for item in score(f"{reward_file}:slow_length", target=[1, 1])] == [1.0, 0.0]
    assert [item.reward for item in score("my_rewards:narrow", answer=["a", "x"], other=[1, 2])] == [1.0, 0.0]
    assert [item.reward for item in score("my_rewards:logs")] == [1.0, 1.0]


def test_a_custom_reward_keeps_its_state_between_batches(reward_file):
    with Scorer([RewardSpec(f"{reward_file}:counts")]) as scorer:
        assert [scorer.score(["?"], ["a"], {})[0].reward for _ in range(3)] == [1.0, 2.0, 3.0]


@pytest.mark.parametrize(
    ("function", "status", "detail"),
    [
        ("raises", "crash", "the whole batch: KeyError: 'gone' (my_rewards.py:"),
        ("short", "crash", "returned 1 rewards for 2 completions"),
        ("odd", "crash", "item 0: returned nan"),
        ("dies", "crash", "the worker exited with status 1"),
        ("hangs", "timeout", "killed at its deadline of 3 s"),
        ("none", "policy", "returned None"),
    ],
)
def test_failures_are_unscored_and_named(reward_file, function, status, detail):
    name = f"{reward_file}:{function}"
    first, second = score([RewardSpec(name, timeout_s=3.0), RewardSpec("math")], ["\\boxed{1}"] * 2, answer=["1", "1"])
    assert first.rewards == {function: None, "math": 1.0}
    assert first.reward is None
    assert first.statuses[function] == status
    assert detail in first.details[function]
    assert name in first.details[function]
    if function == "none":
        assert second.reward == 2.0
    if function == "odd":
        assert "item 1: returned str 'good', not a number" in second.details[function]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mathh", "did you mean math?"),
        ("nothing", "the built-in rewards are math"),
        ("no_such_module:f", "run from the folder"),
        ("missing.py:f", "there is no file"),
        ("my_rewards.py:lenth", "did you mean 'length'?"),
        ("my_rewards.py:NUMBER", "is of type int, not a function"),
        ("broken.py:f", "No module named 'nowhere'"),
        ("syntax.py:f", "SyntaxError"),
        ("my_rewards:", "no function is named"),
    ],
)
def test_a_reward_that_cannot_be_imported(reward_file, tmp_path, name, message):
    (tmp_path / "broken.py").write_text("import nowhere\n")
    (tmp_path / "syntax.py").write_text("def f(:\n")
    with pytest.raises(UserError) as error:
        load_reward(name)
    assert message in str(error.value)
    assert name.rstrip(":") in str(error.value)
    assert str(error.value).count("\n") <= 2
    if ":" in name and name != "my_rewards.py:NUMBER":
        with pytest.raises(UserError):
            score(name)


def test_options_of_built_in_rewards():
    assert load_reward(RewardSpec("math", kwargs={"thinking": True}))(["\\boxed{1}"], answer=["1"]) == [0.0]
    with pytest.raises(UserError, match="no option 'acept'"):
        load_reward(RewardSpec("math", kwargs={"acept": "box"}))
    with pytest.raises(UserError, match="accept must be one of"):
        load_reward(RewardSpec("math", kwargs={"accept": "all"}))
    with pytest.raises(UserError, match="two rewards"):
        Scorer([RewardSpec("math"), RewardSpec("math")])


def test_importing_the_registry_is_light(tmp_path):
    code = (
        "import sys, time; t = time.process_time(); from rewards.registry import load_reward; "
        "from rewards.grade import grade_file; load_reward('math'); assert time.process_time() - t < 2; "
        "print({'torch', 'ray', 'transformers', 'sympy'} & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert (run.stdout, run.stderr) == ("set()\n", "")


def test_grade_file(tmp_path, reward_file):
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    lines = [{"completion": "\\boxed{42}", "answer": "42", "id": 7}, {"completion": "hm", "answer": "é"}]
    source.write_text("\n".join(json.dumps(line) for line in lines) + "\n\n")
    summary = grade_file(source, "math", out)
    graded = [json.loads(line) for line in out.read_text().splitlines()]
    assert graded[0].items() >= {"id": 7, "value": 1.0, "status": "correct", "extracted": "42"}.items()
    assert graded[1].items() >= {"answer": "é", "value": 0.0, "status": "no_answer", "extracted": None}.items()
    assert str(summary) == "2 items, 2 scored, mean 0.5000 (correct 1, no_answer 1)"
    failed = grade_file(source, f"{reward_file}:raises", source)
    assert (failed.scored, failed.mean) == (0, None)
    assert "KeyError" in str(failed)
    assert json.loads(source.read_text().splitlines()[0])["status"] == "crash"


def test_a_number_that_is_missing_is_no_gold_answer(tmp_path):
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text('{"completion": "\\\\boxed{1}", "answer": NaN}\n{"completion": "\\\\boxed{1}", "answer": null}\n')
    assert grade_file(source, "math", out).statuses == {"gold_unparsable": 2}
    assert [json.loads(line)["answer"] for line in out.read_text().splitlines()] == [None, None]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot be read .No such file"),
        ('{"completion": "x", "answer": "1"}\nnot json\n', "line 2: not JSON"),
        ("[1]\n", "line 1: is not a JSON object"),
        ('{"completion": "x"}\n', "row 1: the field 'answer' or 'solution' is missing"),
        ("\n", "is empty"),
    ],
)
def test_grade_file_errors_name_file_and_line(tmp_path, text, message):
    path = tmp_path / "in.jsonl"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match=message) as error:
        grade_file(path, "math")
    assert str(path) in str(error.value)


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".parquet"])
def test_grade_file_reads_every_form_and_takes_solutions(tmp_path, suffix):
    rows = [{"completion": "\\boxed{42}", "solution": "Hence $\\boxed{42}$."}, {"completion": "41", "solution": "42"}]
    path = tmp_path / f"rows{suffix}"
    text = "\ufeff" + "\n".join(map(json.dumps, rows))
    if suffix == ".parquet":
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    elif suffix == ".jsonl.gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text, encoding="utf-8")
    summary = grade_file(path, RewardSpec("math", kwargs={"accept": "any"}), tmp_path / "out.jsonl")
    assert summary.statuses == {"correct": 1, "wrong": 1}


def test_a_broken_gzip_file_is_named(tmp_path):
    (tmp_path / "rows.jsonl.gz").write_bytes(b"no gzip")
    with pytest.raises(UserError, match="rows.jsonl.gz: not a whole gzip file"):
        grade_file(tmp_path / "rows.jsonl.gz")


@pytest.mark.parametrize("prompt", [7, ["a", "b"]])
def test_a_prompt_of_another_kind_is_a_mistake(tmp_path, prompt):
    (tmp_path / "rows.jsonl").write_text(json.dumps({"completion": "1", "answer": "1", "prompt": prompt}))
    with pytest.raises(UserError, match="row 1: `prompt` is neither a string nor a list of messages"):
        grade_file(tmp_path / "rows.jsonl")


def test_several_accepted_golds():
    golds = [["41", "42"], '["1/2", "0.5"]', ["1", "2"], None, [], True, ["{", "42"]]
    texts = ["42", "\\frac12", "3", "1", "1", "\\text{true}", "42"]
    verdicts = ouro_math([f"\\boxed{{{text}}}" for text in texts], golds)
    assert [verdict.value for verdict in verdicts] == [1.0, 1.0, 0.0, None, None, 1.0, 1.0]
    assert verdicts[3].status == "gold_unparsable"
    assert list(check_golds(golds)) == [3, 4]


def ouro_math(completions, golds):
    math = load_reward("math")
    try:
        return math.verdicts(completions, {"answer": golds})
    finally:
        math.close()


def test_the_package_works_without_torch_and_ray(tmp_path):
    code = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in "torch ray transformers trl accelerate datasets sympy math_verify".split():
            raise ImportError(name)
sys.meta_path.insert(0, Blocked())
from rewards.registry import load_reward
math = load_reward("math")
print(math(["so \\\\boxed{(x+1)^2}", "\\\\boxed{2}"], answer=["x^2+2x+1", ["1", "3"]]))
math.close()
"""
    run = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert (run.stdout, run.stderr) == ("[1.0, 0.0]\n", "")


def test_check_golds():
    assert list(check_golds(["42", "\\frac{1}{2}", "", "{", "x \\boxed{3} y", "x+1"])) == [2, 3]


@pytest.mark.parametrize("value", [None, 7, {"content": "1"}])
def test_a_completion_of_another_kind_is_shown(tmp_path, value):
    (tmp_path / "rows.jsonl").write_text(json.dumps({"completion": value, "answer": "1"}))
    with pytest.raises(UserError, match=f"row 1: `completion` is {re.escape(json.dumps(value))}: use a string or"):
        grade_file(tmp_path / "rows.jsonl")


@pytest.mark.parametrize(
    "name", ["rows.csv", "new.csv", "new.parquet", "new.json", "new.jsonl.gz", "folder", "rows.csv/x"]
)
def test_rows_are_written_to_no_file_of_another_kind(tmp_path, reward_file, name):
    """Found before anything is scored, and the input stays what it was."""
    rows = tmp_path / "rows.csv"
    rows.write_text("completion,answer\n1,1\n")
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match=f"--out .*{name.split('/')[0]}"):
        grade_file(rows, f"{reward_file}:raises", tmp_path / name)
    assert rows.read_text() == "completion,answer\n1,1\n"
    assert sorted(file.name for file in tmp_path.iterdir() if file.suffix != ".py") == ["folder", "rows.csv"]


@pytest.mark.parametrize("name", ["new.jsonl", "NEW.JSONL", "new", "new.out", "deep/new.jsonl"])
def test_rows_are_written_to_any_other_name(tmp_path, name):
    (tmp_path / "rows.csv").write_text("completion,answer\n\\boxed{1},1\n")
    grade_file(tmp_path / "rows.csv", "math", tmp_path / name)
    assert json.loads((tmp_path / name).read_text())["status"] == "correct"
