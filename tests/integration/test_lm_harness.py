"""lm-evaluation-harness asks a small checkpoint: log-likelihoods against plain forward passes, and a task."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from ouro_rl.core.rollout import Prompt, RolloutRequest
from ouro_rl.core.sampling_params import ExitRule, SamplingParams
from tests.references.places import CONFIGS

lm_eval = pytest.importorskip("lm_eval", reason="lm-evaluation-harness is not installed (pip install lm_eval)")
TINY = str(CONFIGS / "tiny_ouro")


def model(**arguments: Any):
    from ouro_rl.evaluation.lm_harness_model import OuroLM

    return OuroLM(TINY, **arguments)


class Request:
    """What the harness calls an instance."""

    def __init__(self, *args: Any):
        self.args = args


PAIRS = [("12+7*3=", "33"), ("(2+3)*4=5*4=", "20"), ("1", "2+3=5"), ("", "12")]


@pytest.mark.parametrize("depth", [1, 3, 4])
def test_log_likelihoods_at_a_fixed_depth_are_those_of_a_plain_forward(depth: int) -> None:
    lm = model(depth=depth, batch_size=3)
    found = lm.loglikelihood([Request(*pair) for pair in PAIRS], disable_tqdm=True)
    for (context, continuation), (value, is_greedy) in zip(PAIRS, found, strict=True):
        before = lm.tok_encode(context) or [lm.eot_token_id]
        ids = before + lm.tok_encode(continuation)
        logits = lm.model(input_ids=torch.tensor([ids]), num_loops=depth).logits[0].detach().log_softmax(-1)
        wanted = ids[len(before) :]
        rows = logits[len(before) - 1 : -1]
        assert value == pytest.approx(sum(float(row[token]) for row, token in zip(rows, wanted, strict=True)), abs=1e-4)
        assert is_greedy == all(int(row.argmax()) == token for row, token in zip(rows, wanted, strict=True))


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.9])
def test_log_likelihoods_under_a_threshold_are_those_of_the_engine(threshold: float) -> None:
    """The engine decodes greedily, token by token; the harness reads the same answer in a few parallel passes."""
    lm = model(threshold=threshold)
    questions = ["12+7*3", "45-6+2", "3*(4+5)"]
    contexts = [lm.apply_chat_template([{"role": "user", "content": text}]) for text in questions]
    params = SamplingParams(
        max_new_tokens=12,
        temperature=0.0,
        exit_rule=ExitRule(kind="threshold", value=threshold),
        depth_policy=lm.policy,
    )
    asked = [
        RolloutRequest(prompt=Prompt(index=i, token_ids=tuple(lm.tok_encode(text))), seeds=(0,))
        for i, text in enumerate(contexts)
    ]
    rollouts = lm.pool.rollout(asked, params)
    assert len({depth for rollout in rollouts for depth in rollout.depths}) > 1
    requests = [(None, lm.tok_encode(c), list(r.completion_ids)) for c, r in zip(contexts, rollouts, strict=True)]
    for rollout, (value, is_greedy) in zip(rollouts, lm._loglikelihood_tokens(requests), strict=True):
        assert value == pytest.approx(sum(rollout.token_logprobs), abs=1e-4) and is_greedy


def test_completions_end_before_the_stop_string_and_texts_roll_through_windows() -> None:
    lm = model(depth=4, max_length=24)
    options = {"until": ["=", "\u2603"], "max_gen_toks": 10, "do_sample": False}
    (text,) = lm.generate_until([Request(lm.apply_chat_template([{"role": "user", "content": "12+7"}]), options)])
    assert "=" not in text and text
    (whole,) = lm.loglikelihood_rolling([Request("1+2=3 4+5=9 6+7=13 8+9=17 3+4=7")])
    assert whole < 0


def test_the_harness_runs_a_task(tmp_path: Path) -> None:
    rows = [{"question": f"{a}+{b}=", "answer": str(a + b)} for a in range(2, 6) for b in range(3, 7)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "sums.yaml").write_text(
        f"""
task: sums
dataset_path: json
dataset_kwargs: {{data_files: {{test: {tmp_path / "rows.jsonl"}}}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{answer}}}}"
generation_kwargs: {{until: ["\\n"], max_gen_toks: 8, do_sample: false}}
metric_list: [{{metric: exact_match, aggregation: mean, higher_is_better: true}}]
"""
    )
    command = [sys.executable, "-m", "ouro_rl.evaluation.lm_harness", "--model", "ouro-rl"]
    command += ["--model_args", f"pretrained={TINY},threshold=0.5", "--tasks", "sums", "--include_path", str(tmp_path)]
    command += ["--apply_chat_template", "--output_path", str(tmp_path / "out"), "--log_samples"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    (result,) = (tmp_path / "out").rglob("results_*.json")
    assert 0 <= json.loads(result.read_text())["results"]["sums"]["exact_match,none"] <= 1
    (samples,) = (tmp_path / "out").rglob("samples_*.jsonl")
    assert len(samples.read_text().splitlines()) == len(rows)
