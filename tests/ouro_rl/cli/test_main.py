"""The real command line in a separate process: exit status, stderr, and how long an error message takes."""

from __future__ import annotations

import json
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
from tests.references.command_line import environment, ouro_rl
from tests.references.patience import HANG_S, comes_true
from tests.references.places import REPOSITORY

BARE = """
model: {path: "modèl 1"}
data: {source: "röws 1.jsonl"}
rollout: {max_new_tokens: 8}
rewards: {functions: [{name: "bewertung ä.py:f"}]}
trainer: {steps: 1, prompts_per_step: 2, group_size: 2, micro_batch: 4}
"""


def test_a_dry_run_prints_a_config_that_loads(folder: Path) -> None:
    done = ouro_rl("train", "good.yaml", "trainer.lr=6e-5", "--dry-run", cwd=folder)
    assert done.returncode == 0 and done.stderr == ""
    assert "# completions per update: 128" in done.stdout
    (folder / "printed.yaml").write_text(done.stdout)
    expected = load_config(TrainConfig, [folder / "good.yaml"], ["trainer.lr=6e-5"])
    assert load_config(TrainConfig, [folder / "printed.yaml"]) == expected
    assert ouro_rl("warmstart", "warm.yaml", "seed=3", "--dry-run", cwd=folder).returncode == 0
    later = "rewards.functions=[{name: not_there_yet.py:score}]"
    assert ouro_rl("train", "good.yaml", later, "--dry-run", cwd=folder).returncode == 0


def test_the_end_does_not_look_through_all_objects(folder: Path) -> None:
    """What is frozen when the last function at exit runs, is not collected after it."""
    program = (
        "import atexit, gc; atexit.register(lambda: print(gc.get_freeze_count() > 0)); "
        "from ouro_rl.cli.main import main; main(['--version'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment()
    )
    assert done.stdout.splitlines()[-1] == "True"


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


# --- in process: cases that are hard to provoke from outside ----------------------------------------------------------


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


def test_what_is_left_to_the_end_of_the_process_is_left_once(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    left: list = []
    cli._end_soon.cache_clear()
    monkeypatch.setattr(cli.atexit, "register", left.append)
    assert [cli.main(["list"]) for _ in range(3)] == [0, 0, 0]
    cli._end_soon.cache_clear()
    assert left == [cli._freeze]


@pytest.mark.parametrize("triton", [False, True])
def test_bindings_that_report_what_was_not_freed_get_it_freed(triton, monkeypatch: pytest.MonkeyPatch) -> None:
    frozen: list = []
    monkeypatch.setattr(cli.gc, "freeze", lambda: frozen.append(True))
    monkeypatch.delitem(sys.modules, "triton", raising=False)
    if triton:
        monkeypatch.setitem(sys.modules, "triton", object())
    cli._freeze()
    assert frozen == [True] * (not triton)


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


def test_control_c_while_the_command_line_is_imported(folder: Path) -> None:
    # A background job inherits the signal as ignored, and Python then does not raise KeyboardInterrupt.
    heard = "import os, signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    interrupted = f"{heard}; os.kill(os.getpid(), signal.SIGINT)"
    (folder / "pydantic.py").write_text(interrupted)  # a module of the first imports
    done = ouro_rl("list", cwd=folder)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "ouro-rl: interrupted\n")


def test_a_working_directory_that_was_removed(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.chdir(folder / "folder")
    (folder / "folder").rmdir()
    assert cli.main(["train", "quickstart"]) == 2
    assert capsys.readouterr().err == "ouro-rl: the working directory has been removed; go to another one (cd)\n"


@pytest.mark.parametrize(
    ("command", "about"),
    [
        ("gate calibrate", "The lowest Q-exit threshold"),
        ("reward bench", "Compare the math reward with plain Math-Verify"),
        ("list", "Everything that has a name: rewards, benchmarks, configs, studies, exit rules, KV rules."),
    ],
)
def test_the_help_of_a_command_keeps_the_case_of_names(command: str, about: str, capsys) -> None:
    assert cli.main([*command.split(), "--help"]) == 0
    assert about in " ".join(capsys.readouterr().out.split())
