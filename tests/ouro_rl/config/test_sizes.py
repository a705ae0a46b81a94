"""Sizes that follow from a config and from the number of processes, and the environments that give that number."""

from __future__ import annotations

from pathlib import Path

import pytest

from ouro_rl.config.loader import load_config
from ouro_rl.config.sizes import LAUNCHER, check_launcher, derived_sizes
from ouro_rl.config.train import TrainConfig
from ouro_rl.core.errors import UserError
from tests.references.config_cases import launched, refusal


def test_sizes(minimal: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = load_config(TrainConfig, [minimal], ["trainer.micro_batch=32", "rollout.max_new_tokens=10"])
    launched(monkeypatch, "2")
    sizes = derived_sizes(config)
    assert sizes["completions per update"] == 16 * 8
    assert sizes["completions per update and device"] == 64
    assert sizes["micro batches per update and device"] == 2
    assert sizes["completion tokens per update, at most"] == 1280


@pytest.mark.parametrize(
    ("world", "part"), [("3", "multiple of 3"), ("4", "set trainer.micro_batch to 32"), ("x", "WORLD_SIZE")]
)
def test_batches_divide_among_processes(minimal: Path, monkeypatch: pytest.MonkeyPatch, world: str, part: str) -> None:
    launched(monkeypatch, world)
    assert part in refusal(minimal)


def test_indivisible_batches_name_the_files(minimal: Path, monkeypatch) -> None:
    launched(monkeypatch, "3")
    assert refusal(minimal, "trainer.group_size=8").startswith("override trainer.group_size=8: trainer: ")


def test_processes_of_other_systems_are_not_counted(minimal: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in LAUNCHER:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WORLD_SIZE", "3")
    assert derived_sizes(load_config(TrainConfig, [minimal]))["processes (WORLD_SIZE)"] == 1


@pytest.mark.parametrize(
    ("environment", "claim"),
    [
        ({"WORLD_SIZE": "4", "RANK": "1"}, "WORLD_SIZE=4"),
        ({"LOCAL_RANK": "0"}, "LOCAL_RANK=0"),
        ({"WORLD_SIZE": "1", "RANK": "0", "LOCAL_RANK": "0", "MASTER_PORT": "1"}, "WORLD_SIZE=1 and LOCAL_RANK=0"),
    ],
)
def test_an_environment_of_processes_that_were_not_started(environment, claim, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in LAUNCHER:
        monkeypatch.delenv(name, raising=False)
    check_launcher()
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=f"has {claim}, but no .*MASTER_ADDR") as caught:
        check_launcher()
    assert len(str(caught.value).splitlines()) == 2
    for name in LAUNCHER:  # as torchrun does
        monkeypatch.setenv(name, "2")
    check_launcher()
