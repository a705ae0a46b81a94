"""Which folder a run gets, where it is resumed from, and what is refused."""

import shutil
from pathlib import Path

import pytest
import yaml

from ouro_rl.config.train import TrainConfig
from ouro_rl.core.errors import UserError
from ouro_rl.core.rollout import Prompt
from ouro_rl.data.fingerprint import prompts_record
from ouro_rl.run_dir.manifest import write_manifest
from ouro_rl.run_dir.open_or_resume import check_resume, evaluated_alike_since, open_run_folder
from ouro_rl.run_dir.report.record import load_record
from ouro_rl.run_dir.resume_rules import MAY_CHANGE, REASONS
from ouro_rl.run_dir.run_dir import RunDir
from ouro_rl.run_dir.run_folder import run_folder

PROMPTS = prompts_record([Prompt(index=0, token_ids=(1, 2), columns={"answer": "3"})])


def config_of(folder, **sections):
    values = {
        "model": {"path": "x"}, "trainer": {"steps": 9, "lr": 1e-6}, "run": {"dir": str(folder)},
        "rollout": {"workers": 1}, "rewards": {"functions": [{"name": "math"}, {"name": "length", "timeout_s": 4.0}]},
    }  # fmt: skip
    for section, keys in sections.items():
        values[section] = values.get(section, {}) | keys if isinstance(keys, dict) else keys
    return TrainConfig.model_validate(values, strict=False)


@pytest.fixture
def run(tmp_path):
    """A run with rows of 5 updates and whole checkpoints after 2 and 4."""
    run, _ = open_run_folder(config_of(tmp_path / "run"), resume=False, prompts=PROMPTS)
    for step in range(1, 6):
        run.append_metrics({"step": step})
        run.write_rollouts(step, [{"step": step}])
    for step in (2, 4):
        folder = run.checkpoint_path(step)
        folder.mkdir(parents=True)
        (folder / "optimizer.pt").write_bytes(b"0123456789")
        write_manifest(folder, step=step, processes=1)
    return run


def files_of(run):
    return {path.relative_to(run.path): path.read_bytes() for path in run.path.rglob("*") if path.is_file()}


def resume(folder, prompts=PROMPTS, processes=1, **sections):
    return open_run_folder(config_of(folder.path, **sections), resume=True, prompts=prompts, processes=processes)[1]


def about(run):
    return yaml.safe_load(run.config_path.read_text())["about"]


def test_the_newest_whole_checkpoint_is_taken(run, caplog):
    assert resume(run) == run.checkpoint_path(4)
    assert [row["step"] for row in run.read_metrics()] == run.rollout_steps() == [1, 2, 3, 4]
    assert "after update 4" in caplog.text
    (run.checkpoint_path(4) / "optimizer.pt").write_bytes(b"01234")
    assert resume(run) == run.checkpoint_path(2)
    assert run.rollout_steps() == [1, 2]
    (line,) = [record.getMessage() for record in caplog.records if "passed over" in record.getMessage()]
    assert "step-4" in line and "has 5 bytes instead of 10" in line and "step-4.damaged" in line
    assert run.latest_checkpoint() == run.checkpoint_path(2)
    assert (run.checkpoints_dir / "step-4.damaged" / "optimizer.pt").exists()
    shutil.copytree(run.checkpoint_path(2), run.checkpoint_path(4))
    (run.checkpoint_path(4) / "optimizer.pt").unlink()
    assert resume(run) == run.checkpoint_path(2) and (run.checkpoints_dir / "step-4.damaged-2").exists()


@pytest.mark.parametrize("how", ["none", "damaged"])
def test_without_a_whole_checkpoint_nothing_is_touched(run, how):
    for step in (2, 4):
        if how == "none":
            shutil.rmtree(run.checkpoint_path(step))
        else:
            (run.checkpoint_path(step) / "optimizer.pt").unlink()
    before = files_of(run)
    for ask in (lambda: resume(run), lambda: check_resume(config_of(run.path), 1)):
        with pytest.raises(UserError, match="(?s)5 updates, but no whole checkpoint.*without --resume") as caught:
            ask()
        assert ("optimizer.pt is missing" if how == "damaged" else "none was written yet") in str(caught.value)
    assert files_of(run) == before


def test_a_run_that_was_stopped_before_its_first_update_begins(tmp_path, caplog):
    run, _ = open_run_folder(config_of(tmp_path / "run"), resume=False, prompts=PROMPTS)
    assert resume(run) is None and "after update 0" in caplog.text


def test_another_number_of_processes_is_refused(run):
    with pytest.raises(UserError, match="number of processes was 1 and is now 2"):
        resume(run, processes=2)


def test_other_prompts_under_the_same_path_are_refused(run, caplog):
    for prompt in (
        Prompt(index=1, token_ids=(1, 2), columns={"answer": "3"}),
        Prompt(index=0, token_ids=(1, 3), columns={"answer": "3"}),
        Prompt(index=0, token_ids=(1, 2), columns={"answer": "4"}),
    ):
        before = files_of(run)
        with pytest.raises(UserError, match="prompts are not those"):
            resume(run, prompts=prompts_record([prompt]))
        assert files_of(run) == before
    other = prompts_record([])
    assert resume(run, prompts=other, data={"max_prompt_tokens": 7}) is not None
    assert about(run)["prompts"] == other
    assert "(1 then, 0 now), as far as can be told because of data.max_prompt_tokens" in caplog.text


def test_a_prompts_record_does_not_depend_on_the_order_of_columns_or_the_process():
    columns = {"a": 1, "b": [1.5, None], "c": {"d": object()}}
    first = Prompt(index=0, token_ids=(1,), columns=columns)
    second = Prompt(index=0, token_ids=(1,), columns=dict(reversed(columns.items())) | {"c": {"d": object()}})
    assert prompts_record([first]) == prompts_record([second])


ALLOWED = {
    "trainer.micro_batch": 32, "trainer.steps": 20, "trainer.checkpoint_every": 7, "trainer.lr": 3e-6,
    "trainer.lr_scheduler": "linear", "gate.lr": 1e-5, "eval.source": "arithmetic", "eval.limit": 3,
    "data.max_prompt_tokens": 99, "rollout.workers": 2, "rollout.kv_memory_gib": 1.5, "rewards.workers": 3,
    "rewards.functions": [{"name": "math", "timeout_s": 99.0}, {"name": "length", "timeout_s": 1.0}],
    "run.rollouts": "none", "model.gradient_checkpointing": True, "trainer.max_staleness": 1,
}  # fmt: skip
REFUSED = {
    "run.seed": 1, "data.order": "sequential", "data.limit": 5, "trainer.group_size": 4, "trainer.prompts_per_step": 8,
    "trainer.clip_low": 0.1, "trainer.updates_per_batch": 2, "rollout.temperature": 0.5, "gate.price": 0.05,
    "rollout.max_new_tokens": 7, "model.dtype": "bfloat16", "rewards.functions": [{"name": "math"}],
}  # fmt: skip


@pytest.mark.parametrize("key", ALLOWED)
def test_what_may_change_is_taken_over_said_and_recorded(run, key, caplog):
    section, name = key.split(".")
    run.write_summary({"accuracy_before": 0.5})
    resume(run, **{section: {name: ALLOWED[key]}})
    assert f"Resuming with {key} " in caplog.text
    recorded = yaml.safe_load(run.config_path.read_text())
    (entry,) = recorded["about"]["resumed"]
    change = entry["changes"][key]
    assert entry["after_step"] == 4 and change["now"] == recorded[section][name] != change["before"]
    assert (run.read_summary() is None) == (section == "eval")  # figures of another evaluation are taken again
    caplog.clear()
    resume(run, **{section: {name: ALLOWED[key]}})  # the change is now the config of the run
    assert "instead of" not in caplog.text and "changes" not in about(run)["resumed"][1]


def test_trackers_may_change_and_the_change_is_recorded(run):
    resume(run, log=["tensorboard"])
    assert yaml.safe_load(run.config_path.read_text())["log"] == ["tensorboard"]
    assert about(run)["resumed"][0]["changes"] == {"log": {"before": [], "now": ["tensorboard"]}}


@pytest.mark.parametrize("key", REFUSED)
def test_what_may_not_change_is_refused_with_the_reason(run, key):
    section, name = key.split(".")
    before = files_of(run)
    for ask in (resume, lambda folder, **changes: check_resume(config_of(folder.path, **changes), 1)):
        with pytest.raises(UserError) as caught:
            ask(run, **{section: {name: REFUSED[key]}})
        lines = str(caught.value).splitlines()
        assert lines[0].startswith(f"--resume: {key} is ") and REASONS[section] in lines[1] and len(lines) == 3
    assert files_of(run) == before


def test_every_key_that_may_change_is_one():
    for section, keys in MAY_CHANGE.items():
        assert keys <= set(TrainConfig.model_fields[section].annotation.model_fields), section


def test_a_run_of_an_older_version_has_the_defaults_of_keys_that_were_added_since(run, caplog):
    recorded = yaml.safe_load(run.config_path.read_text())
    del recorded["trainer"]["clip_high"], recorded["eval"], recorded["rollout"]["exit_rule"]["value"]
    del recorded["rewards"]["functions"][0]["timeout_s"], recorded["about"]["prompts"]
    recorded["trainer"]["key_that_is_gone"], recorded["section_that_is_gone"] = 5, {"key": 6}
    run.config_path.write_text(yaml.safe_dump(recorded))
    with pytest.raises(UserError, match=r"trainer\.clip_high is 0\.5, but the run in .* began with 0\.28"):
        resume(run, trainer={"clip_high": 0.5})
    assert resume(run) == run.checkpoint_path(4)
    assert about(run)["resumed"][0]["changes"] == {
        "trainer.key_that_is_gone": {"before": 5, "now": "(no longer a key)"},
        "section_that_is_gone": {"before": {"key": 6}, "now": "(no longer a key)"},
    }
    assert "Resuming with trainer.key_that_is_gone (no longer a key) instead of 5" in caplog.text


def test_a_later_folder_is_named(run, tmp_path, caplog):
    check_resume(config_of(run.path), 1)
    assert not caplog.records
    (tmp_path / "run-9").mkdir()  # holds no run
    for _ in range(2):
        open_run_folder(config_of(run.path), resume=False)
    check_resume(config_of(run.path), 1)
    assert f"a later run is in {tmp_path / 'run-3'}" in caplog.text
    caplog.clear()
    check_resume(config_of(tmp_path / "run-3"), 1)
    assert not caplog.records


def test_a_start_that_fails_leaves_no_folder(tmp_path):
    config = config_of(tmp_path / "run")
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt), run_folder(config, resume=False, prompts=PROMPTS, processes=1) as opened:
            assert opened == (opened[0], None) and opened[0].path == tmp_path / "run"
            opened[0].write_summary({"accuracy_before": 0.5})
            raise KeyboardInterrupt
        assert not (tmp_path / "run").exists()
    with pytest.raises(ValueError), run_folder(config, resume=False, prompts=PROMPTS, processes=1) as (run, _):
        run.append_metrics({"step": 1})
        raise ValueError
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"config.yaml", "metrics.jsonl"}


def test_a_live_run_is_not_touched(run):
    with run_folder(config_of(run.path), resume=True, prompts=PROMPTS, processes=1):
        before = files_of(run)
        for ask in (
            lambda: run_folder(config_of(run.path), resume=True, prompts=PROMPTS, processes=1).__enter__(),
            lambda: check_resume(config_of(run.path), 1),
        ):
            with pytest.raises(UserError, match="is running there"):
                ask()
        assert files_of(run) == before
    assert resume(run) == run.checkpoint_path(4)


def test_a_folder_that_is_empty_is_used(tmp_path):
    (tmp_path / "run").mkdir()
    assert open_run_folder(config_of(tmp_path / "run"), resume=False)[0].path == tmp_path / "run"
    assert open_run_folder(config_of(tmp_path / "run"), resume=False)[0].path == tmp_path / "run-2"
    assert isinstance(open_run_folder(config_of(tmp_path / "run"), resume=False)[0], RunDir)


@pytest.mark.parametrize("given", [".", "../run", "../run/.."])
def test_a_taken_folder_without_a_name_of_its_own_gets_its_number_beside_it(tmp_path, monkeypatch, given):
    (tmp_path / "run" / "file").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "run")
    opened = open_run_folder(config_of(given), resume=False)[0]
    assert opened.path.resolve() == Path(f"{(tmp_path / 'run' / given).resolve()}-2") and opened.config_path.exists()


def test_the_root_of_the_file_system_is_no_folder_of_a_run():
    with pytest.raises(UserError, match="run.dir /: is the root of the file system; name a folder in it"):
        open_run_folder(config_of("/"), resume=False)


@pytest.mark.parametrize("content", [b"\xff\xfe", b"a: [", b"", b"- a", None])
def test_a_record_that_is_damaged_is_named_and_nothing_is_touched(run, content):
    run.config_path.unlink()
    run.config_path.mkdir() if content is None else run.config_path.write_bytes(content)
    before = files_of(run)
    for read in (resume, lambda run: check_resume(config_of(run.path), 1), lambda run: load_record(run.path)):
        with pytest.raises(UserError, match="config.yaml: is not a config; restore the file that the run wrote"):
            read(run)
    assert files_of(run) == before


def test_the_run_is_evaluated_alike_since_the_last_change_of_the_evaluation(run):
    def after(step, *keys):
        entries.append({"after_step": step, "changes": {key: {"before": 1, "now": 2} for key in keys}})
        record = yaml.safe_load(run.config_path.read_text())
        record["about"]["resumed"] = entries
        run.config_path.write_text(yaml.safe_dump(record))
        return evaluated_alike_since(run)

    entries = []
    assert evaluated_alike_since(run) == 0
    assert after(3, "trainer.steps") == after(5, "eval.every", "eval.patience") == after(6) == 0
    assert after(7, "eval.limit", "eval.every") == after(9) == 7
    assert after(8, "trainer.lr") == 7 and after(4) == 4, "from there, updates were made again"
    assert after(6, "eval.source") == 6
