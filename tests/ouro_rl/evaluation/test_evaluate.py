"""Evaluation with a pool whose answers are known, and once with a real pool."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from unittest import mock

import pytest

from ouro_rl.cli import main as cli
from ouro_rl.cli.eval import request_of
from ouro_rl.cli.parser import parse
from ouro_rl.core.errors import RunError, UserError
from ouro_rl.core.rollout import Prompt, Rollout, RolloutRequest
from ouro_rl.core.sampling_params import ExitRule, SamplingParams
from ouro_rl.core.summary_stats import wilson_interval
from ouro_rl.data.prompts import load_benchmark
from ouro_rl.evaluation.answers import answer_scorer
from ouro_rl.evaluation.evaluate import evaluate
from ouro_rl.evaluation.request import EvalRequest
from ouro_rl.evaluation.rows import EvalRow
from ouro_rl.evaluation.run import run_eval
from ouro_rl.evaluation.statistics import clustered_mean
from ouro_rl.evaluation.tables import cut_off_note, table
from ouro_rl.model.tiny_tokenizer import make_tokenizer

TOKENIZER = make_tokenizer()
PARAMS = SamplingParams(max_new_tokens=16, temperature=0.0, exit_rule=ExitRule(kind="threshold", value=0.5))


@dataclass
class FakePool:
    """Answers every n-th request correctly, with depth 1 for correct answers and 3 for wrong ones."""

    every: int = 2
    asked: list[tuple[list[RolloutRequest], SamplingParams]] = field(default_factory=list)

    def rollout(self, requests: Sequence[RolloutRequest], params: SamplingParams, on_progress=None) -> list[Rollout]:
        self.asked.append((list(requests), params))
        if on_progress:
            on_progress(10, 1)
        return [
            self.answer(request.prompt, sample, right=number % self.every == 0)
            for number, request in enumerate(requests)
            for sample in range(len(request.seeds))
        ]

    def answer(self, prompt: Prompt, sample: int, *, right: bool) -> Rollout:
        text = f"\\boxed{{{prompt.columns['answer']}}}" if right else "no idea, and more words"
        ids = (*TOKENIZER(text)["input_ids"], TOKENIZER.eos_token_id)
        return Rollout(
            prompt_index=prompt.index, sample_index=sample, prompt_ids=prompt.token_ids, completion_ids=ids,
            token_logprobs=(0.0,) * len(ids), depths=((1 if right else 3),) * len(ids),
            depth_logprobs=(0.0,) * len(ids), policy_version=0, temperature=0.0, finish_reason="stop",
        )  # fmt: skip


@pytest.fixture(scope="module")
def prompts() -> list[Prompt]:
    return load_benchmark("arithmetic", tokenizer=TOKENIZER, limit=10)


def test_the_figures_follow_from_the_answers(prompts) -> None:
    pool = FakePool()
    row = evaluate(pool, prompts, PARAMS, tokenizer=TOKENIZER)
    assert (row.name, row.n, row.correct, row.unscored) == ("threshold 0.5", 10, 5, 0)
    assert row.accuracy == 0.5 and (row.ci_low, row.ci_high) == pytest.approx(wilson_interval(5, 10))
    ((_, params),) = pool.asked
    assert params == PARAMS
    right = sum(len(pool.answer(prompt, 0, right=True).completion_ids) for prompt in prompts[::2])
    wrong = 5 * len(pool.answer(prompts[1], 0, right=False).completion_ids)
    assert row.mean_depth == pytest.approx((right + 3 * wrong) / (right + wrong)), "per token, not per answer"
    assert row.mean_length == pytest.approx((right + wrong) / 10)


def test_samples_of_one_problem_do_not_narrow_the_interval(prompts) -> None:
    pool = FakePool()
    row = evaluate(pool, prompts, PARAMS, tokenizer=TOKENIZER, samples=4, name="before")
    assert (row.name, row.n, row.correct) == ("before", 40, 20)
    interval = clustered_mean([4.0, 0.0] * 5, [4.0] * 10)
    assert (row.ci_low, row.ci_high) == (interval.low, interval.high)
    seeds = [seed for request in pool.asked[0][0] for seed in request.seeds]
    assert len(seeds) == len(set(seeds)) == 40


def test_unscored_answers_are_left_out(prompts) -> None:
    broken = [Prompt(index=p.index, token_ids=p.token_ids, columns={"answer": ""}) for p in prompts]
    row = evaluate(FakePool(), [*prompts[:8], *broken[8:]], PARAMS, tokenizer=TOKENIZER)
    assert (row.n, row.correct, row.unscored) == (8, 4, 2) and row.accuracy == 0.5
    with pytest.raises(RunError, match="none of 10 answers could be scored"):
        evaluate(FakePool(), broken, PARAMS, tokenizer=TOKENIZER)


def test_a_box_inside_the_thinking_is_not_an_answer(prompts) -> None:
    ids = tuple(TOKENIZER("<|im_start|>assistant\n<think>\n")["input_ids"])
    thinking = [Prompt(index=0, token_ids=ids, columns={"answer": "2"})]
    for asked, value in ((thinking, 0.0), (prompts, 1.0)):
        with answer_scorer(TOKENIZER, asked) as scorer:
            (score,) = scorer.score([""], ["perhaps \\boxed{2}"], {"answer": ["2"]})
        assert score.rewards["math"] == value


def request_for(model: str, out: Path, *options: str) -> EvalRequest:
    return request_of(parse(["eval", "--model", model, "--benchmark", "arithmetic", "--out", str(out), *options]))


def test_rules_in_the_order_of_the_table(random_checkpoint: Path) -> None:
    model = str(random_checkpoint)
    options = ["--sample-gate", "--kl", "0.1", "--entropy", "2", "--confidence", "0.8", "--exit-threshold", "0.9"]
    request = request_for(model, Path("o"), *options, "--depth", "1,4")
    expected = ["fixed 1", "fixed 4", "threshold 0.9", "confidence 0.8", "entropy 2", "kl 0.1", "sample"]
    assert [rule.label() for rule in request.rules(request.asks[0])] == expected
    plain = request_for(model, Path("o"))
    assert [rule.label() for rule in plain.rules(plain.asks[0])] == ["threshold 0.5"]


def test_table() -> None:
    row = EvalRow(
        name="fixed 4",
        accuracy=0.25,
        ci_low=0.1,
        ci_high=0.4,
        mean_depth=4.0,
        mean_length=12.5,
        cut_off=0.05,
        n=40,
        correct=10,
        unscored=2,
    )
    head, line = table([row]).splitlines()
    assert line.split() == ["fixed", "4", "25.0%", "10.0%-40.0%", "4.00", "12.5", "5.0%", "40", "(2", "unscored)"]
    assert len(head) == len(line.removesuffix("  (2 unscored)"))


def test_cut_off_answers_are_counted_and_reported(prompts) -> None:
    pool = FakePool()

    def cut(requests, params, on_progress=None):
        rollouts = pool.rollout(requests, params, on_progress)
        return [replace(rollout, finish_reason="length") for rollout in rollouts[:3]] + rollouts[3:]

    row = evaluate(mock.Mock(rollout=cut), prompts, PARAMS, tokenizer=TOKENIZER)
    assert row.cut_off == 0.3
    assert cut_off_note([row], 2048, "--max-new-tokens, the default").startswith(
        "30.0% of the answers were cut off at 2,048 tokens (--max-new-tokens, the default)"
    )
    assert cut_off_note([evaluate(pool, prompts, PARAMS, tokenizer=TOKENIZER)], 9, "x") is None


SIX_PROBLEMS = ["eval", "--benchmark", "arithmetic", "--limit", "6", "--max-new-tokens", "8"]


@pytest.mark.parametrize("greedy", [["--temperature", "0"], ["--top-k", "1"]])
def test_samples_that_would_all_be_equal_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], greedy: list[str]
) -> None:
    arguments = [*SIX_PROBLEMS, "--model", str(tmp_path), "--samples", "4", *greedy, "--out", str(tmp_path)]
    for further in ([], ["--sample-gate", "--depth", "4"]):
        assert cli.main([*arguments, *further]) == 2
        assert f"--samples 4 with {' '.join(greedy)}: every problem would get 4 equal" in capsys.readouterr().err
    assert cli.main([*arguments, "--sample-gate"]) == 2
    assert "config.json" in capsys.readouterr().err, "drawn depths make samples differ, so the model is looked at"


def test_the_whole_command(random_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [*SIX_PROBLEMS, "--model", str(random_checkpoint)]
    rules = ["--depth", "1,4", "--exit-threshold", "0.5", "--sample-gate"]
    assert cli.main([*arguments, *rules, "--out", str(tmp_path / "out")]) == 0
    record = json.loads((tmp_path / "out" / "eval.json").read_text())
    assert [row["name"] for row in record["rows"]] == ["fixed 1", "fixed 4", "threshold 0.5", "sample"]
    assert [row["mean_depth"] for row in record["rows"][:2]] == [1.0, 4.0]
    assert all(1 <= row["mean_depth"] <= 4 and row["n"] == 6 for row in record["rows"])
    assert all(math.isfinite(value) for row in record["rows"] for value in row.values() if isinstance(value, float))
    assert record["temperature"] == 0.0 and record["versions"]["torch"]
    output = capsys.readouterr().out
    assert "threshold 0.5" in output and output.rstrip().endswith("eval.json")


def test_more_loops_than_the_model_was_trained_with_and_another_kv_rule(
    random_checkpoint: Path, tmp_path: Path
) -> None:
    arguments = ["eval", "--model", str(random_checkpoint), "--benchmark", "arithmetic", "--limit", "6"]
    arguments += ["--max-new-tokens", "8", "--depth", "5,6", "--sample-gate", "--kv-rule", "full"]
    arguments += ["--min-depth", "5", "--max-depth", "7", "--out", str(tmp_path)]
    assert cli.main(arguments) == 0
    record = json.loads((tmp_path / "eval.json").read_text())
    assert [record[key] for key in ("kv_rule", "min_depth", "max_depth")] == ["full", 5, 7]
    assert [row["mean_depth"] for row in record["rows"][:2]] == [5.0, 6.0]
    assert 5 < record["rows"][2]["mean_depth"] < 7


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--depth", "99"], "max_depth 99 is more than 64 loops, .* trained with 4"),
        (["--min-depth", "5"], "min_depth 5 is not in 1..max_depth, which is 4"),
        (["--stop-id", "5000"], "--stop-id: 5000 is not a token id, the tokenizer has"),
    ],
)
def test_invalid_requests(random_checkpoint: Path, tmp_path: Path, options: list[str], message: str) -> None:
    checkpoint = Path(shutil.copytree(random_checkpoint, tmp_path / "checkpoint"))
    with pytest.raises(UserError, match=message):
        run_eval(request_for(str(checkpoint), tmp_path, *options))


def test_sampling_options_are_applied_and_recorded(random_checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "def digits(logits, token_ids):\n    logits[:, 60:] = -float('inf')\n    return logits\n"
    )
    arguments = [*SIX_PROBLEMS, "--model", str(random_checkpoint)]
    arguments += ["--temperature", "0.7", "--top-k", "9", "--top-p", "0.9", "--min-p", "0.1", "--gate-temperature", "2"]
    arguments += [
        "--logit-processor",
        f"{tmp_path}/mine.py:digits",
        "--stop",
        "\\n\\n",
        "--stop",
        "9",
        "--stop-id",
        "30",
    ]
    assert cli.main([*arguments, "--out", str(tmp_path / "out")]) == 0
    record = json.loads((tmp_path / "out" / "eval.json").read_text())
    assert (record["temperature"], record["top_k"], record["top_p"], record["min_p"]) == (0.7, 9, 0.9, 0.1)
    assert record["stop_strings"] == ["\n\n", "9"] and record["stop_token_ids"] == [0, 2, 30]
    assert record["gate_temperature"] == 2 and record["logit_processors"][0].endswith("mine.py:digits")
