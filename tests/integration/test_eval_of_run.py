"""`ouro-rl eval` on a checkpoint of a run: the format, limits and exit rule of the run, and exactly its accuracy."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from ouro_rl.cli import main as cli
from tests.ouro_rl.model.test_checkpoint_contract import keeps_the_contract
from tests.references.places import CONFIGS
from tests.references.published_code import add_code

JOB = """
model: {path: MODEL}
data: {source: arithmetic, limit: 40, operations: [2], prompt_suffix: "\\n", assistant_prefix: "1"}
rollout: {max_new_tokens: 24, min_depth: 2, max_depth: 3, kv_rule: skip, gate_temperature: 1.5}
trainer: {steps: 1, prompts_per_step: 2, group_size: 2, micro_batch: 4, lr: 1e-3}
eval:
  every: 1
  source: held_out.csv
  limit: 30
  question_column: sum
  answer_column: value
  max_new_tokens: 28
  gate_temperature: 0.7
  exit_rule: {kind: threshold, value: 0.6}
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose every setting of evaluation differs from the default."""
    folder = tmp_path_factory.mktemp("job")
    base = shutil.copytree(CONFIGS / "tiny_ouro", folder / "base")
    add_code(base)
    (folder / "job.yaml").write_text(JOB.replace("MODEL", str(base)))
    sums = [(a, b) for a in range(3, 9) for b in range(11, 18)]
    (folder / "held_out.csv").write_text("sum,value\n" + "".join(f"{a}+{b},{a + b}\n" for a, b in sums))
    assert cli.main(["train", str(folder / "job.yaml"), f"run.dir={folder / 'run'}"]) == 0
    return folder / "run"


def test_the_checkpoint_is_one_that_others_can_load(finished: Path) -> None:
    checkpoint, base = finished / "checkpoints" / "step-1", finished.parent / "base"
    keeps_the_contract(checkpoint, code=True)
    for name in ("tokenizer.json", "chat_template.jinja", "modeling_ouro.py"):
        assert (checkpoint / name).read_bytes() == (base / name).read_bytes()
    card = (checkpoint / "README.md").read_text()
    assert "| updates | 1 of 1 |" in card and "reward, last update" in card and str(base.parent) not in card


def row_of(out: Path) -> dict:
    (row,) = json.loads((out / "eval.json").read_text())["rows"]
    return {key: value for key, value in row.items() if key != "name"}


def after(run: Path) -> dict:
    row = json.loads((run / "summary.json").read_text())["eval_after"]
    return {key: value for key, value in row.items() if key != "name"}


def test_the_accuracy_is_exactly_that_of_the_run(finished: Path, tmp_path: Path, capsys) -> None:
    checkpoint = finished / "checkpoints" / "step-1"
    assert cli.main(["eval", "--model", str(checkpoint), "--out", str(tmp_path)]) == 0
    assert row_of(tmp_path) == after(finished)
    assert 0 < after(finished)["accuracy"] < 1 and 2 <= after(finished)["mean_depth"] <= 3
    shown = capsys.readouterr().out
    assert f"Prompt format: prompt suffix '\\n', assistant prefix '1' (from {finished / 'config.yaml'})" in shown
    record = json.loads((tmp_path / "eval.json").read_text())
    expected = {
        "format_from": str(finished / "config.yaml"), "prompt_suffix": "\n", "assistant_prefix": "1",
        "system_prompt": None, "question_column": "sum", "answer_column": "value", "max_new_tokens": 28,
        "kv_rule": "skip", "min_depth": 2, "max_depth": 3, "gate_temperature": 0.7, "problems": 30,
    }  # fmt: skip
    assert {key: record[key] for key in expected} == expected


def test_a_checkpoint_elsewhere_takes_the_format_from_a_config(finished: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(finished / "checkpoints" / "step-1", tmp_path / "moved")
    arguments = ["eval", "--model", str(moved), "--out", str(tmp_path)]
    assert cli.main([*arguments, "--config", str(finished / "config.yaml")]) == 0
    assert row_of(tmp_path) == after(finished)
    shutil.copy(finished / "config.yaml", moved)
    assert cli.main(arguments) == 0, "the config beside the checkpoint"
    assert row_of(tmp_path) == after(finished)


def test_options_come_before_the_run(finished: Path, tmp_path: Path, capsys) -> None:
    checkpoint = finished / "checkpoints" / "step-1"
    arguments = ["eval", "--model", str(checkpoint), "--out", str(tmp_path), "--limit", "3", "--prompt-suffix", ""]
    arguments += ["--assistant-prefix", "A\\n", "--system-prompt", "Be\\nbrief.", "--max-new-tokens", "4"]
    assert cli.main([*arguments, "--max-depth", "2", "--depth", "1"]) == 0
    assert "system prompt 'Be\\nbrief.', assistant prefix 'A\\n'" in capsys.readouterr().out
    record = json.loads((tmp_path / "eval.json").read_text())
    assert [record[key] for key in ("problems", "prompt_suffix", "max_new_tokens")] == [3, "", 4]
    assert record["rows"][0]["mean_depth"] == 1.0


def test_without_a_run_the_default_is_printed(tmp_path: Path, capsys) -> None:
    model, rows = str(CONFIGS / "tiny_ouro"), tmp_path / "rows.jsonl"
    rows.write_text(json.dumps({"problem": "1+1", "answer": "2"}) + "\n")
    arguments = ["eval", "--model", model, "--out", str(tmp_path), "--max-new-tokens", "4"]
    assert cli.main([*arguments, "--benchmark", str(rows)]) == 0
    shown = capsys.readouterr().out
    assert "put your final answer within" in shown and "--config takes that of a run" in shown
    assert json.loads((tmp_path / "eval.json").read_text())["format_from"] is None
    assert cli.main(arguments) == 2
    assert "--benchmark is missing" in capsys.readouterr().err
    assert cli.main([*arguments, "--benchmark", str(rows), "--question-column", "q"]) == 2
    assert "no column 'q'" in capsys.readouterr().err
