"""Configs that come with ouro-rl: found by name from any folder, listed, and copied with the files they need."""

from __future__ import annotations

from pathlib import Path

import pytest

from ouro_rl.config.loader import load_config
from ouro_rl.config.packaged_configs import config_folder, find_checkpoint, find_config, packaged_configs
from ouro_rl.config.train import TrainConfig
from ouro_rl.core.errors import UserError

SMALL = "trainer: {steps: 7}\nmodel: {path: x}\n"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", ["quickstart", "quickstart.yaml", "configs/quickstart.yaml", "configs/quickstart"])
def test_a_name_finds_the_packaged_config_from_any_folder(here, name):
    assert find_config(name) == config_folder() / "quickstart.yaml"
    assert load_config(TrainConfig, [name]).trainer.steps == 250


def test_a_user_file_takes_precedence_and_a_folder_is_not_a_config(here):
    (here / "quickstart").mkdir()
    assert find_config("quickstart") == config_folder() / "quickstart.yaml"
    (here / "quickstart.yaml").write_text(SMALL)
    assert load_config(TrainConfig, ["quickstart.yaml"]).trainer.steps == 7
    assert load_config(TrainConfig, [here / "quickstart.yaml"]).trainer.steps == 7


@pytest.mark.parametrize("name", ["elsewhere/quickstart.yaml", "/quickstart.yaml", "tiny_ouro", "configs/tiny_ouro"])
def test_other_paths_are_not_packaged_configs(here, name):
    assert find_config(name) == Path(name)


@pytest.mark.parametrize("name", ["tiny_ouro", "configs/tiny_ouro"])
def test_a_name_finds_the_packaged_checkpoint_unless_a_folder_has_it(here, name):
    assert find_checkpoint(name) == str(config_folder() / "tiny_ouro")
    (here / name).mkdir(parents=True)
    assert find_checkpoint(name) == name


@pytest.mark.parametrize("name", ["elsewhere/tiny_ouro", "study", "configs/nowhere", "quickstart.yaml", "me/tiny_ouro"])
def test_other_names_are_not_packaged_checkpoints(here, name):
    assert find_checkpoint(name) == name


def test_the_error_for_a_missing_config_names_the_closest_one_or_where_to_look(here):
    with pytest.raises(UserError, match=r"^quickstrat\.yaml: no such config file; there is the packaged quickstart$"):
        load_config(TrainConfig, ["quickstrat.yaml"])
    with pytest.raises(UserError, match=r"^zzz: no such config file; `ouro-rl configs` lists"):
        load_config(TrainConfig, ["zzz"])
    (here / "quickstrap.yaml").write_text(SMALL)
    with pytest.raises(UserError, match=r"; there is quickstrap\.yaml$"):
        load_config(TrainConfig, ["quickstrat.yaml"])


def test_the_packaged_configs_are_those_of_the_folder():
    assert {
        "quickstart",
        "math_example",
        "code_example",
        "gpus_8",
        "hops",
        "tiny_warmstart",
    } <= packaged_configs().keys()
    assert all(file.is_file() for file in packaged_configs().values())
