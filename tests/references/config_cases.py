"""The smallest config of a training job, how it is refused, and the environment of several processes."""

from __future__ import annotations

from pathlib import Path

import pytest

from ouro_rl.config.loader import load_config
from ouro_rl.config.sizes import LAUNCHER
from ouro_rl.config.train import TrainConfig
from ouro_rl.core.errors import UserError

MINIMAL = "model: {path: somewhere}\ntrainer: {steps: 5}\n"


def refusal(path: Path, *overrides: str) -> str:
    with pytest.raises(UserError) as caught:
        load_config(TrainConfig, [path], overrides)
    text = str(caught.value)
    assert 1 <= len(text.splitlines()) <= 3
    return text


def launched(monkeypatch: pytest.MonkeyPatch, world: str) -> None:
    """The environment of the first of `world` processes, as torchrun sets it."""
    for name in LAUNCHER:
        monkeypatch.setenv(name, "0")
    monkeypatch.setenv("WORLD_SIZE", world)
