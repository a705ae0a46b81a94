"""The real command line in a separate process: exit status, stderr, and how long an error message takes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ouro_rl.cli import main as cli
from ouro_rl.config.loader import load_config
from ouro_rl.config.train import TrainConfig
from ouro_rl.core.errors import RunError
from tests.references.patience import HANG_S, comes_true, processor_time
from tests.references.places import REPOSITORY

SECONDS = 2.0
"""CPU time within which a mistake must be reported."""


def ouro_rl(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ouro_rl", *map(str, arguments)],
        cwd=cwd,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=HANG_S,
    )


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}


@pytest.fixture
def folder(tmp_path: Path, random_checkpoint: Path) -> Path:
    """A working directory with valid files of every kind and some invalid ones."""
    (tmp_path / "good.yaml").write_text("model: {path: good}\ntrainer: {steps: 2}\n")
    (tmp_path / "broken.yaml").write_text("model: {path: good\n")
    (tmp_path / "warm.yaml").write_text("stage_one: {steps: 1}\nstage_two: {steps: 1}\noutput: out\n")
    (tmp_path / "empty.jsonl").write_text("\n")
    (tmp_path / "rows.jsonl").write_text(
        json.dumps({"problem": "1+1", "answer": "2", "completion": "\\boxed{2}"}) + "\n"
    )
    (tmp_path / "text.jsonl").write_text("not json\n")
    (tmp_path / "deep.jsonl").write_text('{"completion": ' + 100_000 * "[" + 100_000 * "]" + "}\n")
    (tmp_path / "digits.jsonl").write_text('{"completion": ' + 5000 * "9" + "}\n")
    (tmp_path / "texts.jsonl").write_text('{"completion": ["x"], "answer": "1"}\n')
    (tmp_path / "reward.py").write_text("import nothing_of_this_name\n")
    (tmp_path / "folder").mkdir()
    shutil.copytree(random_checkpoint, tmp_path / "good")
    shutil.copytree(random_checkpoint, tmp_path / "no_weights")
    (tmp_path / "no_weights" / "model.safetensors").unlink()
    shutil.copytree(random_checkpoint, tmp_path / "no_config")
    (tmp_path / "no_config" / "config.json").unlink()
    shutil.copytree(random_checkpoint, tmp_path / "misfit")
    config = json.loads((tmp_path / "misfit" / "config.json").read_text())
    (tmp_path / "misfit" / "config.json").write_text(json.dumps({**config, "intermediate_size": 64}))
    shutil.copytree(random_checkpoint, tmp_path / "llama")
    (tmp_path / "llama" / "config.json").write_text(json.dumps({**config, "model_type": "llama"}))
    return tmp_path


BARE = """
model: {path: "modèl 1"}
data: {source: "röws 1.jsonl"}
rollout: {max_new_tokens: 8}
rewards: {functions: [{name: "bewertung ä.py:f"}]}
trainer: {steps: 1, prompts_per_step: 2, group_size: 2, micro_batch: 4}
"""
EVAL = ["--model", "good", "--benchmark", "arithmetic", "--out", "o"]
MISTAKES = {
    "no command": ([], ["COMMAND"]),
    "unknown command": (["trian"], ["trian", "train"]),
    "unknown option": (["train", "good.yaml", "--dryrun"], ["--dryrun"]),
    "option of a key": (
        ["train", "good.yaml", "--trainer.steps", "3"],
        ["key, written without dashes: trainer.steps=3"],
    ),
    "option of another system": (["train", "good.yaml", "--resume_from_checkpoint"], ["the option --resume"]),
    "option of another spelling": (["eval", *EVAL, "--max_new_tokens", "3"], ["did you mean --max-new-tokens?"]),
    "more workers than CPUs": (
        ["train", "good.yaml", "rollout.workers=5000"],
        ["5000 rollout workers of 1 CPUs each", "would fit"],
    ),
    "more workers for eval": (["eval", *EVAL, "--workers", "5000"], ["--workers 5000", "would fit"]),
    "override with a plus": (["train", "good.yaml", "+trainer.steps=3"], ["written without +: trainer.steps=3"]),
    "override without =": (["train", "good.yaml", "trainer.steps", "3"], ["with =, as in trainer.steps=3"]),
    "key of another system": (["train", "good.yaml", "num_generations=8"], ["here it is trainer.group_size"]),
    "no config": (["train"], ["CONFIG"]),
    "missing config": (["train", "god.yaml"], ["god.yaml", "there is good.yaml"]),
    "broken config": (["train", "broken.yaml"], ["broken.yaml", "not YAML"]),
    "unknown key": (["train", "good.yaml", "trainer.group_sise=4"], ["trainer.group_sise", "trainer.group_size?"]),
    "wrong type": (["train", "good.yaml", "trainer.steps=many"], ["trainer.steps", "whole number", "many"]),
    "out of range": (["train", "good.yaml", "rollout.temperature=0"], ["rollout.temperature", "greater than 0"]),
    "group of one": (["train", "good.yaml", "trainer.group_size=1"], ["trainer.group_size", "at least 2"]),
    "batch does not divide": (
        ["train", "good.yaml", "trainer.micro_batch=60"],
        ["micro batches of 60", "micro_batch to 32"],
    ),
    "dry run checks too": (["train", "good.yaml", "trainer.group_size=1", "--dry-run"], ["trainer.group_size"]),
    "model missing": (["train", "good.yaml", "model.path=folder/gone"], ["model.path folder/gone", "no such folder"]),
    "model without weights": (["train", "good.yaml", "model.path=no_weights"], ["no_weights", "no weights"]),
    "model without config": (["train", "good.yaml", "model.path=no_config"], ["no_config", "config.json"]),
    "model of other shapes": (
        ["train", "good.yaml", "model.path=misfit"],
        ["misfit", "model.layers.0.mlp.down_proj.weight", "[32, 48]", "[32, 64]"],
    ),
    "other architecture": (["train", "good.yaml", "model.path=llama"], ["model_type is 'llama'"]),
    "data missing": (["train", "good.yaml", "data.source=gone.jsonl"], ["data.source gone.jsonl"]),
    "data empty": (["train", "good.yaml", "data.source=empty.jsonl"], ["empty.jsonl: is empty"]),
    "data not JSON": (["train", "good.yaml", "data.source=text.jsonl"], ["text.jsonl, line 1: not JSON"]),
    "no such column": (
        ["train", "good.yaml", "data.source=rows.jsonl", "data.answer_column=gold"],
        ["'gold'", "problem, answer, completion", "data.answer_column"],
    ),
    "data of an unknown kind": (["train", "good.yaml", "data.source=a/b/c"], ["data.source a/b/c"]),
    "unknown reward": (["train", "good.yaml", "rewards.functions=[{name: mathh}]"], ["mathh", "math"]),
    "reward module missing": (
        ["train", "good.yaml", "rewards.functions=[{name: 'no.such:f'}]"],
        ["no.such:f", "cannot be imported"],
    ),
    "reward that fails": (
        ["train", "good.yaml", "rewards.functions=[{name: 'reward.py:f'}]"],
        ["reward.py:f", "nothing_of_this_name"],
    ),
    "same reward twice": (["train", "good.yaml", "rewards.functions=[{name: math}, {name: math}]"], ["two rewards"]),
    "unknown benchmark for eval": (["train", "good.yaml", "eval.source=aime"], ["eval.source aime", "math500"]),
    "run into a file": (["train", "good.yaml", "run.dir=good.yaml/x"], ["run.dir good.yaml/x", "is a file"]),
    "nothing to resume": (["train", "good.yaml", "--resume", "run.dir=runs/x"], ["--resume", "runs/x"]),
    "check": (["check", "good.yaml", "model.path=no_weights"], ["no_weights"]),
    "warmstart": (["warmstart", "warm.yaml", "stage_one.lr=0"], ["stage_one.lr"]),
    "warmstart shape": (
        ["warmstart", "warm.yaml", "model.hidden_size=100", "model.num_attention_heads=3"],
        ["hidden_size (100)"],
    ),
    "eval without model": (["eval", "--benchmark", "arithmetic", "--out", "o"], ["--model"]),
    "eval of no weights": (
        ["eval", "--model", "no_weights", "--benchmark", "arithmetic", "--out", "o"],
        ["--model no_weights"],
    ),
    "eval of a misfit": (
        ["eval", "--model", "misfit", "--benchmark", "arithmetic", "--out", "o"],
        ["[32, 48]", "[32, 64]"],
    ),
    "eval on nothing": (["eval", "--model", "good", "--benchmark", "aime", "--out", "o"], ["--benchmark aime"]),
    "eval on no file": (["eval", "--model", "good", "--benchmark", "gone.jsonl", "--out", "o"], ["gone.jsonl"]),
    "eval data empty": (
        ["eval", "--model", "good", "--benchmark", "math500", "--data", "empty.jsonl", "--out", "o"],
        ["empty.jsonl: is empty"],
    ),
    "eval depth": (
        ["eval", "--model", "good", "--benchmark", "arithmetic", "--depth", "0", "--out", "o"],
        ["--depth", "'0'"],
    ),
    "eval too deep": (
        ["eval", "--model", "good", "--benchmark", "arithmetic", "--depth", "2,99", "--out", "o"],
        ["--depth 99", "more than 64 loops"],
    ),
    "eval threshold": (
        ["eval", "--model", "good", "--benchmark", "arithmetic", "--exit-threshold", "0.5,2", "--out", "o"],
        ["--exit-threshold", "'2'"],
    ),
    "eval top-p": (
        ["eval", "--model", "good", "--benchmark", "arithmetic", "--top-p", "0", "--out", "o"],
        ["--top-p", "'0' is not a number greater than 0 and at most 1"],
    ),
    "eval processor": (
        ["eval", "--model", "good", "--benchmark", "arithmetic", "--logit-processor", "mine", "--out", "o"],
        ["--logit-processor", "'mine' does not name a function"],
    ),
    "eval into a file": (
        ["eval", "--model", "good", "--benchmark", "arithmetic", "--out", "good.yaml"],
        ["--out good.yaml"],
    ),
    "grade without reward": (["grade", "rows.jsonl"], ["--reward"]),
    "grade by an unknown reward": (["grade", "rows.jsonl", "--reward", "no.such:f"], ["no.such:f"]),
    "grade no file": (["grade", "gone.jsonl", "--reward", "math"], ["gone.jsonl"]),
    "grade an empty file": (["grade", "empty.jsonl", "--reward", "math"], ["empty.jsonl"]),
    "reward test with bad kwargs": (
        ["reward", "test", "math", "rows.jsonl", "--kwargs", "[1"],
        ["--kwargs [1", "not a mapping"],
    ),
    "reward test with no time": (
        ["reward", "test", "math", "rows.jsonl", "--timeout", "nan"],
        ["'nan' is not a number greater than 0"],
    ),
    "rows too deep": (["grade", "deep.jsonl", "--reward", "math"], ["deep.jsonl, line 1", "recursion"]),
    "rows with a huge number": (["grade", "digits.jsonl", "--reward", "math"], ["digits.jsonl, line 1", "4300 digits"]),
    "rows with no messages": (["grade", "texts.jsonl", "--reward", "math"], ["texts.jsonl, row 1", "other items"]),
    "report of nothing": (["report", "folder"], ["folder", "holds no run"]),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_reported_at_once_and_in_plain_words(mistake: str, folder: Path) -> None:
    arguments, parts = MISTAKES[mistake]
    with processor_time() as spent:
        done = ouro_rl(*arguments, cwd=folder)
    assert done.returncode == 2, done
    lines = done.stderr.splitlines()
    assert 1 <= len(lines) <= 3 and lines[0].startswith("ouro-rl"), done.stderr
    assert done.stdout == "" and "Traceback" not in done.stderr
    for part in parts:
        assert part in done.stderr
    assert spent.seconds < SECONDS
    assert not (folder / "runs").exists() and not (folder / "o").exists()


def test_a_dry_run_prints_a_config_that_loads(folder: Path) -> None:
    done = ouro_rl("train", "good.yaml", "trainer.lr=6e-5", "--dry-run", cwd=folder)
    assert done.returncode == 0 and done.stderr == ""
    assert "# completions per update: 128" in done.stdout
    (folder / "printed.yaml").write_text(done.stdout)
    expected = load_config(TrainConfig, [folder / "good.yaml"], ["trainer.lr=6e-5"])
    assert load_config(TrainConfig, [folder / "printed.yaml"]) == expected
    assert ouro_rl("warmstart", "warm.yaml", "seed=3", "--dry-run", cwd=folder).returncode == 0


def test_a_closed_output_pipe(folder: Path) -> None:
    command = [sys.executable, "-m", "ouro_rl", "train", "good.yaml", "--dry-run"]
    process = subprocess.Popen(
        command, cwd=folder, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    process.stdout.close()
    assert process.stderr.read() == "" and process.wait() == 141


def test_grade_scores_every_line(folder: Path) -> None:
    done = ouro_rl("grade", "rows.jsonl", "--reward", "math", "--out", "graded.jsonl", cwd=folder)
    assert done.returncode == 0, done.stderr
    (row,) = [json.loads(line) for line in (folder / "graded.jsonl").read_text().splitlines()]
    assert row["value"] == 1.0 and row["status"] == "correct" and row["problem"] == "1+1"


def test_it_trains_in_a_bare_environment(tmp_path: Path, random_checkpoint: Path) -> None:
    """No HOME, no git, no compiler; spaces and non-ASCII letters in every path; started from another folder."""
    place = tmp_path / "mein Prüfstand"
    shutil.copytree(random_checkpoint, place / "modèl 1")
    (place / "bewertung ä.py").write_text("def f(completion, answer):\n    return float(len(completion))\n")
    rows = [json.dumps({"problem": f"{number}+1", "answer": str(number + 1)}) for number in range(4)]
    (place / "röws 1.jsonl").write_text("\n".join(rows), encoding="utf-8")
    (place / "jöb 1.yaml").write_text(BARE, encoding="utf-8")
    bare = {"PATH": str(tmp_path), "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    command = [
        sys.executable,
        "-m",
        "ouro_rl",
        "train",
        str(place / "jöb 1.yaml"),
        f"run.dir={place / 'läufe' / 'x 1'}",
    ]
    done = subprocess.run(command, cwd=tmp_path, env=bare, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "no C compiler found" in done.stdout
    record = (place / "läufe" / "x 1" / "config.yaml").read_text(encoding="utf-8")
    assert "commit: null" in record and "bewertung ä.py:f" in record


def test_help_and_version(folder: Path) -> None:
    for command in ("train", "eval", "grade", "check", "warmstart", "report"):
        assert ouro_rl(command, "--help", cwd=folder).returncode == 0
    assert ouro_rl("--version", cwd=folder).stdout.strip()


@pytest.mark.parametrize("command", ["train", "check"])
def test_a_foreign_world_size_is_reported_first(
    command: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("WORLD_SIZE", "7")
    assert cli.main([command, "good.yaml"]) == 2
    assert "ouro-rl: the environment has WORLD_SIZE=7, but no" in capsys.readouterr().err


def test_a_dry_run_ignores_a_foreign_world_size(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("WORLD_SIZE", "7")
    assert cli.main(["train", "good.yaml", "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert "# processes (WORLD_SIZE): 1\n" in printed and "# ignored: WORLD_SIZE=7, which neither" in printed


# --- in process: cases that are hard to provoke from outside
# ------------------------------------------------------------------


def failing(error: BaseException):
    def run_check(config: TrainConfig) -> int:
        raise error

    return run_check


@pytest.mark.parametrize(
    ("error", "status", "text"),
    [
        (RunError("a worker is gone\nand another\nand a third\nand a fourth"), 1, "ouro-rl: a worker is gone\n"),
        (KeyboardInterrupt(), 130, "ouro-rl: interrupted\n"),
    ],
)
def test_exit_status(error, status, text, folder, monkeypatch, capsys) -> None:
    import ouro_rl.cli.preflight.checks

    monkeypatch.chdir(folder)
    monkeypatch.setattr(ouro_rl.cli.preflight.checks, "run_check", failing(error))
    assert cli.main(["check", "good.yaml"]) == status
    stderr = capsys.readouterr().err
    assert stderr.startswith("Importing torch, transformers and TRL ...\n" + text) and len(stderr.splitlines()) <= 4


def test_a_bug_is_not_swallowed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import ouro_rl.cli.preflight.checks

    monkeypatch.chdir(folder)
    monkeypatch.setattr(ouro_rl.cli.preflight.checks, "run_check", failing(ZeroDivisionError()))
    with pytest.raises(ZeroDivisionError):
        cli.main(["check", "good.yaml"])


def test_control_c_leaves_one_line(folder: Path) -> None:
    """Interrupted while the model is loaded, in an evaluation that would take long."""
    command = [sys.executable, "-m", "ouro_rl", "eval", "--model", "good", "--benchmark", "arithmetic", "--out", "o"]
    process = subprocess.Popen(
        [*command, "--limit", "100000"],
        cwd=folder,
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a background job inherits it as ignored
    )
    # After the interpreter's startup, during which the signal could not be caught.
    assert comes_true(lambda: "libtorch" in Path(f"/proc/{process.pid}/maps").read_text())
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=HANG_S)
    assert process.returncode == 130
    assert stderr.splitlines()[-1] == "ouro-rl: interrupted" and "Traceback" not in stderr
