"""Benchmarks by name: from files in every form that they come in, from the hub, and what is said where they are not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ouro_rl.cli.eval import benchmarks_of, request_of
from ouro_rl.cli.parser import parse
from ouro_rl.cli.preflight.files import check_benchmark
from ouro_rl.config.evaluation import BOX_REQUEST, evaluation_config
from ouro_rl.core.benchmarks import HUB_BENCHMARKS, code_question
from ouro_rl.core.errors import UserError
from ouro_rl.data import prompts as prompts_module
from ouro_rl.data.prompts import StoredAs, load_benchmark
from ouro_rl.evaluation.answers import answer_scorer
from ouro_rl.evaluation.out_folder import EvalFolder
from ouro_rl.model.tiny_tokenizer import make_tokenizer

TOKENIZER = make_tokenizer()


def write(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


HUMANEVAL = {
    "task_id": "x/0", "prompt": 'def inc(x):\n    """Add one."""\n', "entry_point": "inc",
    "test": "def check(candidate):\n    assert candidate(1) == 2\n",
}  # fmt: skip
MBPP = {
    "task_id": 1,
    "prompt": "Write a function that adds one.",
    "test_list": ["assert inc(1) == 2"],
    "test_imports": [],
}


def test_a_function_to_complete_and_a_description_with_tests(tmp_path: Path) -> None:
    (whole,) = load_benchmark("humaneval", tokenizer=TOKENIZER, data_file=write(tmp_path / "h.jsonl", HUMANEVAL))
    asked = whole.messages[0]["content"]
    assert asked.startswith("Complete this Python function") and "def inc(x):" in asked and "boxed" not in asked
    (described,) = load_benchmark("mbpp", tokenizer=TOKENIZER, data_file=write(tmp_path / "m.jsonl", MBPP))
    assert "adds one" in (asked := described.messages[0]["content"]) and "assert inc(1) == 2" in asked
    answers = ["    return x + 1\n", "```python\ndef inc(x):\n    return x + 1\n```", "def inc(x):\n    return x"]
    for prompt, wanted in ((whole, [1.0, 1.0, 0.0]), (described, [0.0, 1.0, 0.0])):
        columns = {name: [value] * 3 for name, value in prompt.columns.items()}
        with answer_scorer(TOKENIZER, [prompt]) as scorer:
            scores = scorer.score([prompt.messages] * 3, answers, columns)
        assert [score.rewards["code"] for score in scores] == wanted


def test_a_file_with_tests_and_no_answer_is_one_of_programs(tmp_path: Path) -> None:
    rows = write(tmp_path / "own.jsonl", {"question": "Add one.", "tests": ["assert inc(1) == 2"]})
    (prompt,) = load_benchmark(str(rows), tokenizer=TOKENIZER)
    assert prompt.columns["prompt"] == "Add one." and "boxed" not in prompt.messages[0]["content"]
    both = write(tmp_path / "both.jsonl", {"question": "1+1", "answer": "2", "tests": ["assert True"]})
    (prompt,) = load_benchmark(str(both), tokenizer=TOKENIZER)
    assert prompt.columns["answer"] == "2" and prompt.messages[0]["content"] == "1+1" + BOX_REQUEST


def test_named_benchmarks_are_read_from_the_hub_at_the_commit_that_is_recorded(monkeypatch) -> None:
    asked = []

    def stored(*where, limit=None):
        asked.append((*where, limit))
        return [
            {"problem": "1+1", "question": "1+1", "prompt": "def f():", "answer": "2", "test": "x", "entry_point": "f"}
        ]

    monkeypatch.setattr(prompts_module, "stored_rows", stored)
    for name in HUB_BENCHMARKS:
        load_benchmark(name, tokenizer=TOKENIZER, stored=StoredAs(revision="abc"), limit=3)
    load_benchmark("org/own", tokenizer=TOKENIZER, stored=StoredAs(name="part", split="dev"))
    expected = [(known.hub_id, known.config, known.split, "abc", 3) for known in HUB_BENCHMARKS.values()]
    assert asked == [*expected, ("org/own", "part", "dev", None, None)]


def test_where_there_is_no_hub_the_message_says_what_to_download(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path))
    monkeypatch.delenv("HF_DATASETS_CACHE", raising=False)
    with pytest.raises(UserError) as told:
        check_benchmark("gsm8k", None, key="--benchmark")
    text = str(told.value)
    assert "hf download openai/gsm8k --repo-type dataset" in text and "--data FILE" in text and text.count("\n") == 2
    with pytest.raises(UserError, match=r"unknown benchmark .did you mean gsm8k\?.; there are arithmetic"):
        check_benchmark("gsm8", None, key="--benchmark")


def test_several_names_each_once(tmp_path: Path) -> None:
    odd = write(tmp_path / "a,b.jsonl", MBPP)
    assert benchmarks_of(["math500,gsm8k", "gsm8k", str(odd)]) == ["math500", "gsm8k", str(odd)]


def test_programs_are_put_as_what_they_are() -> None:
    assert code_question({}, "Add one.") == "Add one.\n\nAnswer with a Python program."
    assert "```python\ndef f():\n```" in code_question({"entry_point": "f"}, "def f():\n")


def test_configs_overrides_and_run_folders(random_checkpoint: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    for step in (1, 2):
        (run / "checkpoints" / f"step-{step}").parent.mkdir(parents=True, exist_ok=True)
        (run / "checkpoints" / f"step-{step}").symlink_to(random_checkpoint)
    config = tmp_path / "job.yaml"
    config.write_text(
        f"model: {{path: {random_checkpoint}}}\ntrainer: {{steps: 1}}\ndata: {{prompt_suffix: '!'}}\n"
        "eval: {source: arithmetic, operations: [3], limit: 7, exit_rule: {kind: fixed, value: 2}}\n"
    )

    def asked(*arguments: str):
        return request_of(parse(["eval", *arguments, "--out", str(tmp_path / "out")]))

    of_config = asked(str(config), "eval.limit=5", "rollout.max_batch=8")
    assert of_config.model == str(random_checkpoint)
    (ask,) = of_config.asks
    assert (ask.benchmark, ask.config.eval.limit, ask.config.eval.operations) == ("arithmetic", 5, (3,))
    assert [rule.label() for rule in of_config.rules(ask)] == ["fixed 2"] and ask.config.data.prompt_suffix == "!"
    of_run = asked("--model", str(run), "--benchmark", "arithmetic,hops", "eval.operations=[4]", "--dtype", "bfloat16")
    assert of_run.model.endswith("step-2") and [ask.benchmark for ask in of_run.asks] == ["arithmetic", "hops"]
    assert of_run.asks[0].config.eval.operations == (4,) and of_run.dtype == "bfloat16"
    budgets = asked("--model", str(run), "--benchmark", "hops", "--max-new-tokens", "32,8,32", "--max-loops", "9")
    assert (budgets.token_budgets, budgets.loop_budgets) == ((8, 32), (9,))
    assert budgets.asks[0].config.eval.max_new_tokens == 32
    for mistake, text in {
        ("--benchmark", "hops"): "--model is missing",
        ("--model", str(run), "--benchmark", "hops", "gsm8k"): "gsm8k: is a benchmark; write --benchmark hops,gsm8k",
        ("--model", str(run), "--benchmark", "hops,arithmetic", "--data", "x.jsonl"): "problems of one benchmark",
        ("--model", str(run), "--benchmark", "hops", "eval.limits=3"): "eval.limits",
    }.items():
        with pytest.raises(UserError, match=text):
            asked(*mistake)


def test_an_evaluation_that_goes_on_keeps_the_commit_that_it_began_with(
    random_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    newest = ["a" * 40]

    def commit_of(name: str, kind: str, revision: str | None) -> str | None:
        return revision or newest[0]

    monkeypatch.setattr("ouro_rl.cli.eval.commit_of", commit_of)
    monkeypatch.setattr("ouro_rl.cli.preflight.files.check_on_hub", lambda *_: None)
    arguments = ["eval", "--model", str(random_checkpoint), "--benchmark", "gsm8k", "--out", str(tmp_path)]

    def revision(*further: str) -> str | None:
        return request_of(parse([*arguments, *further])).asks[0].config.eval.revision

    EvalFolder(tmp_path).begin(request_of(parse(arguments)).record())
    newest[0] = "b" * 40
    assert revision() == "a" * 40
    assert revision("--overwrite") == "b" * 40
    assert revision(f"eval.revision={'c' * 40}") == "c" * 40


def test_a_plain_evaluation_keeps_the_overrides_of_its_problems(random_checkpoint: Path) -> None:
    config, origin = evaluation_config(str(random_checkpoint), [], "org/own", ["eval.split=dev", "eval.limit=2"])
    assert origin is None and (config.eval.split, config.eval.limit, config.eval.max_new_tokens) == ("dev", 2, 2048)
