"""What stops a run, at the start, in the middle and by a signal, and what it leaves behind."""

import json
import os
import signal
import subprocess
import sys

import pytest
import yaml
from transformers import AutoModelForCausalLM

from ouro_rl.cli import main as cli
from ouro_rl.cli.preflight.checks import run_check
from ouro_rl.core.errors import RunError, UserError
from ouro_rl.launch import run_training
from ouro_rl.training.batch import collate
from tests.references.patience import HANG_S, comes_true
from tests.references.tiny_training import config_of, metrics_of


def test_a_gap_above_the_limit_stops_the_run(checkpoint, tmp_path, monkeypatch):
    """With the C kernels the gap is 0, so the workers' records are changed by ten times the limit."""
    config = config_of(checkpoint, tmp_path / "run", trainer__logp_gap_limit=1e-3, eval__source=None)

    def collate_changed(*arguments):
        batch = collate(*arguments)
        return batch | {"sampler_logprobs": batch["sampler_logprobs"] + 1e-2}

    monkeypatch.setattr("ouro_rl.training.trainer.collate", collate_changed)
    with pytest.raises(RunError, match="worker and trainer disagree"):
        run_training(config, resume=False)


def test_a_broken_reward_stops_the_run_and_says_why(checkpoint, tmp_path):
    with pytest.raises(RunError, match="KeyError") as caught:
        run_training(config_of(checkpoint, tmp_path / "run", reward="broken", eval__source=None), resume=False)
    assert "100% of this step's completions could not be scored" in str(caught.value)


def test_a_reward_that_breaks_later_leaves_an_intact_checkpoint(checkpoint, tmp_path):
    folder, file = tmp_path / "run", tmp_path / "rewards.py"
    file.write_text((checkpoint / "rewards.py").read_text())
    config = config_of(checkpoint, folder, rewards__functions=[{"name": f"{file}:breaks_later"}], eval__source=None)
    with pytest.raises(RunError, match="breaks_later: crash.*KeyError: 'gone at last'"):
        run_training(config, resume=False)
    assert [row["step"] for row in metrics_of(folder)] == [1, 2]
    assert metrics_of(folder)[0]["reward/breaks_later/status/correct"] == 1.0
    kept = folder / "checkpoints" / "step-2"
    assert AutoModelForCausalLM.from_pretrained(kept).config.total_ut_steps == 3
    file.write_text(file.read_text().replace("len(calls) > 8", "False"))
    assert run_training(config, resume=True) == 0
    assert [row["step"] for row in metrics_of(folder)] == [1, 2, 3]


def test_fewer_prompts_than_a_step_needs(checkpoint, tmp_path):
    with pytest.raises(UserError, match="prompts_per_step"):
        run_training(config_of(checkpoint, tmp_path / "run", data__limit=3), resume=False)
    assert not (tmp_path / "run").exists()  # so that the next attempt can use this folder


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_a_checkpoint_that_can_be_resumed(checkpoint, tmp_path, number):
    folder = tmp_path / "run"
    config = config_of(checkpoint, folder, trainer__steps=500, trainer__checkpoint_every=500, eval__source=None)
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    command = [sys.executable, "-m", "ouro_rl", "train", str(path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=os.environ)
    assert comes_true(lambda: (folder / "metrics.jsonl").exists() or process.poll() is not None)
    process.send_signal(number)
    output, _ = process.communicate(timeout=HANG_S)
    assert process.returncode == 128 + number, output
    assert f"is complete. Resume with --resume run.dir={folder}" in output
    steps = len(metrics_of(folder))
    assert (folder / "checkpoints" / f"step-{steps}" / "trainer_state.json").exists()
    assert cli.main(["train", str(path), "--resume", f"trainer.steps={steps + 1}"]) == 0
    assert len(metrics_of(folder)) == steps + 1


def test_prompts_that_do_not_fit_are_found_at_the_start(checkpoint, tmp_path, caplog, capsys):
    """The model has 256 positions; a prompt that exceeds them would stop the run when it comes up, after hours."""
    rows = [{"problem": "1" * length, "answer": "1"} for length in (1, 2, 300, 3, 4)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = str(tmp_path / "rows.jsonl")
    config = config_of(checkpoint, tmp_path / "run", data__source=source, eval__source=source)
    run_check(config)
    assert "prompt lengths: 4 of 5 fit into 246 tokens" in capsys.readouterr().out
    assert run_training(config, resume=False) == 0
    for where in ("data.source", "eval.source"):
        assert f"{where} {source}: left out 1 of 5 prompts, longer than 246 tokens (row 3 has " in caplog.text
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["n_heldout"] == 4
    none_fits = config_of(checkpoint, tmp_path / "none", data__source=source, rollout__max_new_tokens=256)
    with pytest.raises(UserError, match="none of 5 prompts fits"):
        run_training(none_fits, resume=False)
    assert not (tmp_path / "none").exists()


def test_a_reward_without_a_signal_is_reported(checkpoint, tmp_path, capsys):
    """It expects texts and gets messages, so it gives 0 for ever."""
    config = config_of(checkpoint, tmp_path / "run", reward="of_texts", eval__source=None, trainer__steps=5)
    assert run_training(config, resume=False) == 0
    told = [line for line in capsys.readouterr().err.splitlines() if "of_texts(" in line]
    assert len(told) == 1 and "of_texts(completions=[[{'role': 'assistant', 'content': " in told[0]
    assert "-> 0.0; in all 16 x 0" in told[0]
