"""Studies with a stand-in for the processes: what runs when, what is kept, and what is done again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from ouro_rl.cli import main as cli
from ouro_rl.config.loader import load_config
from ouro_rl.config.train import TrainConfig
from ouro_rl.core.errors import RunError, UserError
from ouro_rl.evaluation.study import runner
from ouro_rl.evaluation.study.plan import load_study
from ouro_rl.evaluation.study.state import plan_table, states_of
from ouro_rl.run_dir.run_dir import RunDir
from ouro_rl.run_dir.study_result import read_result, read_results
from tests.references.patience import comes_true
from tests.references.places import REPOSITORY

BASE = """
model: {path: start}
trainer: {steps: 3, prompts_per_step: 2, group_size: 4, micro_batch: 8}
eval: {source: arithmetic}
"""
STUDY = """
base: [base.yaml]
seeds: [0, 1]
evaluation: {problems: 4, depths: [1], thresholds: [0.5], sample: false}
arms:
  iid: {marginal_of: ours, overrides: {gate.mode: "off"}, seeds: [1]}
  ours: {overrides: {gate.price: 0.1}}
  later: {start: ours, train: false, rules: [{kind: fixed, value: 3}]}
"""


class StandIn(runner.Processes):
    """Writes what the processes would write, and remembers what was asked."""

    asked: list[str] = []
    breaks: set[str] = set()
    """Runs whose training fails."""
    on_train = staticmethod(lambda name: None)

    def run(self, command, log, lock):
        assert os.fstat(lock)
        name, folder = log.parent.name, log.parent
        if command[2] == "ouro_rl":
            self.asked.append(f"train {name}")
            self.on_train(name)
            if name in self.breaks:
                raise RunError("no more memory (exit status 1)")
            config = load_config(TrainConfig, [command[4]])
            assert config.eval.source is None and config.rollout.workers == 0
            run_dir = RunDir(config.run.dir)
            for step in (1, 2, 3):
                run_dir.append_metrics({"step": step, "reward/mean": step / 4, "depth/mean": None, "logp_gap/max": 0.0})
            run_dir.write_rollouts(3, [{}])
            run_dir.checkpoint_path(3).mkdir(parents=True)
            (run_dir.checkpoint_path(3) / "model.safetensors").write_text(f"weights of {name} at {config.gate.price}")
        else:
            self.asked.append(f"measure {name}")
            task = json.loads((folder / "measure.json").read_text())
            rules = [figures(rule, Path(task["model"], "model.safetensors").read_text()) for rule in task["rules"]]
            (folder / "figures.json").write_text(
                json.dumps({"difficulty": [1, 2, 1, 2], "needed_loops": None, "rules": rules})
            )


def figures(rule: dict, weights: str) -> dict:
    return {
        "rule": {"fixed": f"fixed {rule['value']}", "threshold": f"threshold {rule['value']}", "iid": "iid"}[
            rule["kind"]
        ].removesuffix(".0"),
        "kind": rule["kind"], "value": rule["value"], "accuracy": 0.5, "loops_per_answer": 6.0, "loops_per_token": 2.0,
        "tokens_per_answer": 3.0, "flops_per_answer": 1e6, "cut_off": 0.0, "depth_shares": [0.25, 0.75],
        "careful_lines": None, "by_difficulty": {}, "correct": "1010", "loops": [6] * 4, "tokens": [len(weights)] * 4,
    }  # fmt: skip


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a study, and the stand-in in place of the processes."""
    (tmp_path / "start").mkdir()
    (tmp_path / "start" / "model.safetensors").write_text("the first weights")
    (tmp_path / "base.yaml").write_text(BASE)
    (tmp_path / "s.yaml").write_text(STUDY)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(runner, "Processes", StandIn)
    monkeypatch.setattr(StandIn, "asked", [])
    monkeypatch.setattr(StandIn, "breaks", set())
    # The label of `iid` has its probabilities, which the stand-in leaves out.
    monkeypatch.setattr("ouro_rl.core.sampling_params.ExitRule.label", label)
    return tmp_path


def label(rule) -> str:
    return rule.kind if rule.value is None else f"{rule.kind} {rule.value:g}"


def study(*overrides: str):
    return load_study("s.yaml", overrides, Path("out"))


def test_every_run_leaves_one_file_and_nothing_is_done_twice(here, capsys):
    assert runner.run_study(study(), jobs=1)
    assert StandIn.asked == [
        "train ours-0", "measure ours-0", "measure later-0",
        "train ours-1", "measure ours-1", "train iid-1", "measure iid-1", "measure later-1",
    ]  # fmt: skip
    results = read_results(here / "out" / "s")
    assert [(result.arm, result.seed) for result in results] == [
        ("iid", 1), ("later", 0), ("later", 1), ("ours", 0), ("ours", 1)
    ]  # fmt: skip
    iid, later, _, ours, _ = results
    assert iid.settings["train"]["rollout"]["exit_rule"]["probabilities"] == [0.25, 0.75], "the depths of `ours`"
    assert iid.served == "iid" and [rule.rule for rule in iid.rules] == ["iid", "fixed 1", "threshold 0.5"]
    assert later.checkpoint == ours.checkpoint != iid.checkpoint
    assert [rule.rule for rule in later.rules] == ["threshold 0.5", "fixed 1", "fixed 3"]
    assert ours.training == {"steps": 3, "logp_gap_max": 0.0, "curves": {
        "reward/mean": [0.25, 0.5, 0.75], "depth/mean": [None] * 3}}  # fmt: skip
    assert "start" not in json.dumps(ours.settings["train"]["model"]), "no path of this machine"
    assert str(here) not in (here / "out" / "s" / "iid-1.json").read_text()
    assert not list(here.glob("runs/**/rollouts"))
    StandIn.asked.clear()
    assert runner.run_study(study(), jobs=2)
    assert StandIn.asked == [] and "ours-1: done already" in capsys.readouterr().out


def test_another_config_is_done_again_and_the_plan_says_which_key(here):
    runner.run_study(study(), jobs=1)
    StandIn.asked.clear()
    changed = study("arms.ours.overrides={gate.price: 0.2}")
    table = plan_table(changed, states_of(changed), 1)
    assert "ours-0   to do" in table and "its config has changed: train.gate.price: 0.1 -> 0.2" in table
    assert "later-0  to do" in table and "after ours-0" in table
    assert runner.run_study(changed, jobs=1, only=["later"])
    assert StandIn.asked == [
        "train ours-0", "measure ours-0", "measure later-0", "train ours-1", "measure ours-1", "measure later-1"
    ]  # fmt: skip
    assert "0.2" not in plan_table(changed, states_of(changed), 1)


def test_a_change_of_the_evaluation_alone_trains_nothing(here):
    runner.run_study(study(), jobs=1)
    StandIn.asked.clear()
    assert runner.run_study(study("evaluation.thresholds=[0.5, 0.7]"), jobs=1)
    assert len(StandIn.asked) == 5 and all(asked.startswith("measure") for asked in StandIn.asked)


def test_where_and_how_fast_a_run_computes_is_not_its_config(here):
    runner.run_study(study(), jobs=1)
    (here / "elsewhere").mkdir()
    (here / "start").rename(here / "elsewhere" / "moved")
    moved = study("overrides={model.path: elsewhere/moved, rollout.max_batch: 7, trainer.checkpoint_every: 1}")
    assert all(state.done for state in states_of(moved))
    (here / "elsewhere" / "moved" / "model.safetensors").write_text("other weights")
    assert "train.model.path" in plan_table(moved, states_of(moved), 1)


def test_a_key_that_is_newer_than_a_result_counts_only_if_it_is_set(here):
    runner.run_study(study(), jobs=1)
    for file in (here / "out" / "s").glob("ours-*.json"):
        file.write_text(file.read_text().replace('"clip_low":0.2,', ""))
    assert all(state.done for state in states_of(study()))
    set_now = study("arms.ours.overrides={gate.price: 0.1, gate.clip_low: 0.7}")
    assert "train.gate.clip_low: null -> 0.7" in plan_table(set_now, states_of(set_now), 1)


def test_a_key_that_is_gone_counts_only_if_it_was_set(here):
    runner.run_study(study(), jobs=1)
    file = here / "out" / "s" / "ours-0.json"
    text = file.read_text().replace('"clip_low":0.2,', '"clip_low":0.2,"gone":3,')
    file.write_text(text)
    assert all(state.done for state in states_of(study()))
    file.write_text(text.replace('"set":[', '"set":["gate.gone",'))
    assert "train.gate.gone: 3 -> null" in plan_table(study(), states_of(study()), 1)


def test_how_a_gate_would_be_trained_is_no_setting_of_one_that_is_frozen(here):
    runner.run_study(study(), jobs=1)
    (iid,) = [result for result in read_results(here / "out" / "s") if result.arm == "iid"]
    assert iid.settings["train"]["gate"] == {"mode": "off"}
    frozen = study("arms.iid.overrides={gate.mode: off, gate.clip_low: 0.7}")
    assert "train.gate.clip_low: null -> 0.7" in plan_table(frozen, states_of(frozen), 1)


def test_results_of_an_arm_can_be_kept_and_are_then_not_made_anew(here, capsys):
    runner.run_study(study(), jobs=1)
    kept = study("arms.ours.overrides={gate.price: 0.2}", "arms.ours.keep=true")
    assert all(state.done for state in states_of(kept))
    Path("out/s/ours-0.json").unlink()
    assert [state.run.name for state in states_of(kept) if not state.done] == ["ours-0", "later-0"]
    assert not runner.run_study(kept, jobs=1)
    error = capsys.readouterr().err
    assert "ours-0: FAILED: a result to be kept is missing" in error and "later-0: FAILED: needs ours-0" in error
    assert not Path("out/s/ours-0.json").exists()


def test_a_kept_result_is_not_replaced_where_another_arm_needs_its_checkpoint(here, capsys):
    runner.run_study(study(), jobs=1)
    (here / "runs").rename(here / "gone")
    Path("out/s/later-0.json").unlink()
    before = Path("out/s/ours-0.json").read_text()
    assert not runner.run_study(study("arms.ours.keep=true"), jobs=1)
    assert "ours-0: FAILED: its result is to be kept, its checkpoint is gone" in capsys.readouterr().err
    assert Path("out/s/ours-0.json").read_text() == before


def test_a_failed_run_is_reported_and_stops_only_what_needs_it(here, capsys):
    StandIn.breaks.add("ours-1")
    assert not runner.run_study(study(), jobs=1)
    error = capsys.readouterr().err
    assert "ours-1: FAILED: no more memory (exit status 1)" in error
    assert "later-1: FAILED: needs ours-1, which failed" in error
    assert sorted(file.stem for file in Path("out/s").glob("*.json")) == ["later-0", "ours-0"]
    StandIn.breaks.clear()
    assert runner.run_study(study(), jobs=1), "the next call goes on"


def test_results_without_checkpoints_are_enough_until_one_is_needed(here):
    runner.run_study(study(), jobs=1)
    (here / "runs").rename(here / "gone")
    assert all(state.done for state in states_of(study()))
    Path("out/s/later-0.json").unlink()
    StandIn.asked.clear()
    assert "its checkpoint is gone" in plan_table(study(), states_of(study()), 1)
    assert runner.run_study(study(), jobs=1)
    assert StandIn.asked == ["train ours-0", "measure ours-0", "measure later-0"]


def test_two_runs_at_a_time(here, monkeypatch):
    both = threading.Barrier(2, timeout=60)
    monkeypatch.setattr(StandIn, "on_train", staticmethod(lambda name: name.startswith("ours") and both.wait()))
    assert runner.run_study(study(), jobs=2), "each waits for the other"


def test_two_studies_at_once_do_not_share_a_run(here):
    run = study().runs()[0]
    with runner.alone(run):
        with pytest.raises(RunError, match="another process is at this run"), runner.alone(run):
            pass
    with runner.alone(run):
        pass


def test_a_process_that_outlives_the_study_keeps_its_run_locked(here):
    """As after a SIGKILL: the study is gone, its child is not."""
    run = study().runs()[0]
    with runner.alone(run) as lock:
        child = subprocess.Popen(["sleep", "600"], pass_fds=(lock,))
    try:
        with pytest.raises(RunError, match="another process is at this run"), runner.alone(run):
            pass
    finally:
        child.kill()
        child.wait()
    with runner.alone(run):
        pass


def test_sigterm_ends_the_children(here, tmp_path):
    program = (
        "import sys; from pathlib import Path; from ouro_rl.evaluation.study import runner\n"
        "from ouro_rl.evaluation.study.plan import load_study\n"
        "def perform(run, needed, processes):\n"
        "    with runner.alone(run) as lock:\n"
        "        processes.run(['sh', '-c', 'echo begun; sleep 600'], Path(f'{run.name}.log'), lock)\n"
        "runner.perform = perform\n"
        "runner.run_study(load_study('s.yaml', [], Path('out')), jobs=1)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    process = subprocess.Popen([sys.executable, "-c", program], env=environment, stdout=subprocess.PIPE)
    log = tmp_path / "ours-0.log"
    assert comes_true(lambda: log.exists() and "begun" in log.read_text())
    process.terminate()
    assert process.wait() == 143
    with runner.alone(study().runs()[0]):
        pass  # nothing holds the lock: the child is gone


def test_a_failed_command_is_reported_with_its_last_line(tmp_path):
    log = tmp_path / "x.log"
    with (tmp_path / "lock").open("w") as file:
        lock = file.fileno()
        with pytest.raises(RunError, match=r"^the reason \(exit status 3; see .*x.log\)$"):
            runner.Processes().run(["sh", "-c", "echo first; echo the reason >&2; exit 3"], log, lock)
        processes = runner.Processes()
        stopper = threading.Timer(0.1, processes.stop)
        stopper.start()
        with pytest.raises(RunError, match="exit status -9|stopped"):
            processes.run(["sleep", "600"], log, lock)
        with pytest.raises(RunError, match="stopped"):
            processes.run(["true"], log, lock)


def test_a_broken_result_is_named(here):
    runner.run_study(study(), jobs=1)
    file = Path("out/s/ours-0.json")
    text = file.read_text()
    file.write_text(text.replace('"schema": 1', '"schema": 0'))
    assert read_result(file) is None
    assert "its result has another format" in plan_table(study(), states_of(study()), 1)
    file.write_text(text[:-20])
    with pytest.raises(UserError, match="ours-0.json: not a result of a study"):
        states_of(study())


def test_the_command_line(here, capsys):
    assert cli.main(["study", "s.yaml", "--list", "--out", "out", "seeds=[0]", "arms.iid.seeds=[]"]) == 0
    assert "s: 0 of 2 runs done; about 6 minutes are left with --jobs 1" in capsys.readouterr().out
    assert cli.main(["study", "s.yaml", "--list", "--only", "other"]) == 2
    assert "--only other: s has no such arm; it has iid, ours, later" in capsys.readouterr().err
    assert cli.main(["study", "seeds=[0]"]) == 2
    assert not StandIn.asked
