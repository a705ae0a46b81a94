"""How paths in configs and on the command line are resolved."""

from __future__ import annotations

import errno
import json
import os
import shutil
import tempfile
from pathlib import Path

import pytest

from ouro_rl.cli import main as cli
from ouro_rl.cli.preflight.files import check_train_files
from ouro_rl.config.loader import dump_config, load_config
from ouro_rl.config.study import StudyConfig
from ouro_rl.config.train import TrainConfig
from ouro_rl.config.warmstart import WarmstartConfig
from ouro_rl.config.yaml12 import to_yaml
from ouro_rl.core.errors import UserError
from ouro_rl.core.paths import KEYS, Kind, check_writable, expand
from ouro_rl.run_dir.open_or_resume import own_commit, refuse_other_config
from ouro_rl.run_dir.run_dir import RunDir
from tests.references.places import REPOSITORY

CONFIGS = REPOSITORY / "configs"
EVERY_KIND = """
model: {path: here/model}
data: {source: here/rows.jsonl}
rollout:
  logit_processors: [here/f.py:f, my.module:g]
  early_stop: {hook: here/f.py:g}
rewards:
  functions: [{name: math}, {name: here/f.py:f}, {name: my.module:h}]
trainer: {steps: 1}
eval: {source: here/rows.jsonl}
"""


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """The folder of a config, and another one as the working directory; their names have spaces and non-ASCII
    letters."""
    beside, elsewhere = tmp_path / "my configs ü", tmp_path / "else where"
    for folder in (beside, elsewhere):
        (folder / "here" / "model").mkdir(parents=True)
        (folder / "here" / "rows.jsonl").write_text("{}\n")
        (folder / "here" / "f.py").write_text("f = g = len\n")
    (beside / "job.yaml").write_text(EVERY_KIND)
    monkeypatch.chdir(elsewhere)
    return beside, elsewhere


def paths_of(config: TrainConfig) -> list[str]:
    """Every input path of `EVERY_KIND`."""
    rollout = config.rollout
    functions = [
        *rollout.logit_processors,
        rollout.early_stop.hook,
        *(reward.name for reward in config.rewards.functions),
    ]
    return [config.model.path, config.data.source, config.eval.source, *functions]


def expected(folder: Path) -> list[str]:
    here = folder / "here"
    rows, f, g = str(here / "rows.jsonl"), f"{here / 'f.py'}:f", f"{here / 'f.py'}:g"
    return [str(here / "model"), rows, rows, f, "my.module:g", g, "math", f, "my.module:h"]


def test_inputs_are_searched_for_next_to_the_config_and_then_in_the_working_directory(folders) -> None:
    beside, elsewhere = folders
    assert paths_of(load_config(TrainConfig, [beside / "job.yaml"], must_exist=True)) == expected(beside)
    shutil.rmtree(beside / "here")
    assert paths_of(load_config(TrainConfig, [beside / "job.yaml"], must_exist=True)) == expected(elsewhere)


def test_the_file_that_set_the_key_counts_and_overrides_use_the_working_directory(folders) -> None:
    beside, elsewhere = folders
    shutil.rmtree(elsewhere / "here")
    (elsewhere / "near").mkdir()
    (elsewhere / "overlay.yaml").write_text("data: {source: here/rows.jsonl}\n")
    with pytest.raises(UserError, match=r"overlay\.yaml: data\.source here/rows\.jsonl: there is no ") as caught:
        load_config(TrainConfig, [beside / "job.yaml", elsewhere / "overlay.yaml"], must_exist=True)
    assert str(elsewhere / "here/rows.jsonl") in str(caught.value) and str(beside) not in str(caught.value)
    files = [beside / "job.yaml"]
    assert load_config(TrainConfig, files, ["model.path=near"]).model.path == str(elsewhere / "near")
    assert load_config(TrainConfig, files, ["model.path=here/model"], must_exist=True).model.path == "here/model"


def test_a_missing_input_is_an_error_that_names_both_places(folders) -> None:
    beside, elsewhere = folders
    for folder in folders:
        (folder / "here" / "f.py").unlink()
    with pytest.raises(UserError) as caught:
        load_config(TrainConfig, [beside / "job.yaml"], must_exist=True)
    text = str(caught.value)
    assert f"{beside / 'here/f.py'} and no {elsewhere / 'here/f.py'}" in text and len(text.splitlines()) == 2
    assert load_config(TrainConfig, [beside / "job.yaml"]).rollout.early_stop.hook == "here/f.py:g"  # as in a dry run


def test_hub_ids_and_names_stay_unchanged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "arithmetic").mkdir()
    job = tmp_path / "job.yaml"
    job.write_text(
        "model: {path: ByteDance/Ouro-1.4B}\ndata: {source: open-r1/DAPO}\n"
        "eval: {source: arithmetic}\ntrainer: {steps: 1}\n"
    )
    config = load_config(TrainConfig, [job], must_exist=True)
    assert (config.model.path, config.data.source, config.eval.source) == (
        "ByteDance/Ouro-1.4B",
        "open-r1/DAPO",
        "arithmetic",
    )


def test_a_tilde_is_the_home_folder_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    job = tmp_path / "job.yaml"
    job.write_text(EVERY_KIND.replace("here/", "~/here/") + "run: {dir: ~/runs/x}\n")
    config = load_config(TrainConfig, [job], ["data.source=~/other.jsonl"])
    wanted = expected(tmp_path / "home")
    wanted[1] = str(tmp_path / "home/other.jsonl")
    assert paths_of(config) == wanted and config.run.dir == tmp_path / "home/runs/x"
    job.write_text("stage_one: {steps: 1}\nstage_two: {steps: 1}\noutput: ~/out\n")
    assert load_config(WarmstartConfig, [job]).output == tmp_path / "home/out"
    job.write_text("base: [quickstart]\narms: {a: {}}\nruns: ~/runs\n")
    assert load_config(StudyConfig, [job]).runs == tmp_path / "home/runs"
    with pytest.raises(UserError, match="no home folder is known for ~nobody-of-this-name"):
        expand("~nobody-of-this-name/x")


def test_the_output_folder_is_checked_first(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    check_writable(tmp_path / "new" / "run", "run.dir")
    check_writable(Path("new"), "run.dir")
    for path in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(UserError, match="file is a file; give a new or existing folder"):
            check_writable(path, "run.dir")


def test_a_folder_in_which_no_file_can_be_made_is_refused_whatever_its_permissions_say(tmp_path, monkeypatch) -> None:
    def refused(dir: Path) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(dir))

    monkeypatch.setattr(tempfile, "TemporaryFile", refused)
    with pytest.raises(UserError, match=r"run.dir .*new: cannot be written \(Read-only file system in "):
        check_writable(tmp_path / "new", "run.dir")


OPTIONS = {
    "eval": ("eval --model ~/a --benchmark ~/a.jsonl --data ~/a --out ~/a --logit-processor ~/a.py:f", 5),
    "grade": ("grade ~/a --reward ~/a.py:f --out ~/a", 3),
    "report": ("report ~/a", 1),
    "reward test": ("reward test ~/a.py:f ~/a", 2),
    "reward bench": ("reward bench ~/a ~/a", 2),
    "bench": ("bench page ~/a --json ~/a --plot ~/a", 3),
    "export": ("export ~/a --out ~/a --code ~/a", 3),
    "gate extract": ("gate extract ~/a --out ~/a", 2),
    "gate apply": ("gate apply ~/a --model ~/a --out ~/a", 3),
    "gate calibrate": ("gate calibrate --model ~/a --benchmark ~/a --out ~/a", 3),
    "compare": ("compare ~/a ~/a --out ~/a", 3),
    "configs": ("configs quickstart --to ~/a", 1),
    "study": ("study hops --out ~/a", 1),
}


@pytest.mark.parametrize("command", OPTIONS)
def test_a_tilde_is_the_home_folder_in_options_too(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/the/home")
    text, count = OPTIONS[command]
    values = str(vars(cli.parse(text.split())))
    assert values.count("/the/home/a") == count and "~" not in values


def strings(cls, at=()):
    """Keys of every string and path in a config's sections."""
    for name, field in cls.model_fields.items():
        kind = str(field.annotation)
        if "Config" in kind:
            inner = next(part for part in _parts(field.annotation) if hasattr(part, "model_fields"))
            yield from strings(inner, (*at, name, "*") if "tuple" in kind else (*at, name))
        elif "path" in kind.lower() or "str" in kind:
            yield (*at, name)


def _parts(annotation):
    from typing import get_args

    return [annotation, *(part for inner in get_args(annotation) for part in _parts(inner))]


def test_every_key_with_a_path_is_known() -> None:
    """A new key of type str must be added here or to `KEYS`."""
    texts = (
        "name",
        "split",
        "curriculum_column",
        "question_column",
        "answer_column",
        "system_prompt",
        "prompt_suffix",
        "assistant_prefix",
    )
    no_paths = {("data", name) for name in texts} | {("data", "revision"), ("model", "revision")} | {
        ("eval", "question_column"), ("eval", "answer_column"), ("eval", "name"), ("eval", "split"),
        ("eval", "revision"), ("rollout", "thinking_closing"), ("rollout", "stop_strings"), ("eval", "kv_rule"),
        ("rewards", "functions", "*", "kwargs"), ("ray", "address"),
    }  # fmt: skip
    known = {key[:-1] if key[-1] == "*" else key for key in KEYS}
    no_paths |= {("references",), ("arms", "about"), ("arms", "start"), ("arms", "marginal_of")}
    no_paths |= {("base",), ("arms", "configs"), ("overrides",), ("arms", "overrides")}  # read by `load_config`
    assert {*strings(TrainConfig), *strings(WarmstartConfig), *strings(StudyConfig)} == known | no_paths
    assert [key for key, kind in KEYS.items() if kind is Kind.OUTPUT] == [("run", "dir"), ("output",), ("runs",)]


@pytest.mark.parametrize("name", ["quickstart", "math_example", "code_example"])
def test_our_configs_find_their_files_from_any_folder(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = load_config(TrainConfig, [CONFIGS / f"{name}.yaml"], must_exist=True)
    functions = [reward for reward in config.rewards.functions if reward.name != "code"]  # `code` needs a sandbox
    if functions:
        check_train_files(
            config.model_copy(update={"rewards": config.rewards.model_copy(update={"functions": (*functions,)})})
        )
    assert Path(config.model.path).parent == CONFIGS


# --- resuming a run -----------------------------------------------------------------------------------------------


def recorded(config: TrainConfig, folder: Path) -> RunDir:
    run = RunDir(folder / "run")
    run.config_path.parent.mkdir(exist_ok=True)
    run.config_path.write_text(dump_config(config), encoding="utf-8")
    return run


def test_a_run_can_be_resumed_from_another_folder_and_after_a_move(folders, tmp_path: Path, monkeypatch) -> None:
    beside, elsewhere = folders
    job, moved = beside / "job.yaml", tmp_path / "moved"
    run = recorded(load_config(TrainConfig, [job]), tmp_path)
    monkeypatch.chdir(tmp_path)
    refuse_other_config(run, load_config(TrainConfig, [job]))
    other = load_config(TrainConfig, [job], [f"model.path={elsewhere / 'here/model'}"])
    with pytest.raises(UserError, match=r"model\.path is .*else where.*but the run in .* began with"):
        refuse_other_config(run, other)
    with pytest.raises(UserError, match=r"rewards\.functions is "):
        refuse_other_config(
            run, load_config(TrainConfig, [job], ["rewards.functions=[{name: math}, {name: my.module:h}]"])
        )
    beside.rename(moved)
    refuse_other_config(run, load_config(TrainConfig, [moved / "job.yaml"]))


def test_a_run_whose_record_has_relative_paths_can_be_resumed(folders, tmp_path: Path) -> None:
    """Older versions recorded paths as they were written."""
    _, elsewhere = folders
    config = load_config(TrainConfig, [], ["model.path=here/model", "trainer.steps=1"])
    values = json.loads(config.model_dump_json())
    values["model"]["path"] = "here/model"
    run = recorded(config, tmp_path)
    run.config_path.write_text(to_yaml(values))
    refuse_other_config(run, config)


def test_without_git_the_commit_is_unknown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert own_commit() is None
