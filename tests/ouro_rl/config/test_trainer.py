"""The section `trainer`: updates from steps or from epochs."""

import pytest

from ouro_rl.config.loader import load_config
from ouro_rl.config.sizes import derived_sizes
from ouro_rl.config.train import TrainConfig
from ouro_rl.core.errors import UserError

SIZES = ("model.path=x", "trainer.prompts_per_step=4", "trainer.micro_batch=8", "trainer.updates_per_batch=2")


@pytest.mark.parametrize("epochs,updates", [("1", 4), ("2.0", 8), ("1.25", 6), ("0.001", 2)])
def test_epochs_become_updates_once_the_prompts_are_known(epochs, updates):
    """10 prompts are 2 batches of 4 in an epoch, and each batch is used for 2 updates."""
    config = load_config(TrainConfig, [], [*SIZES, f"trainer.epochs={epochs}"])
    assert "optimizer updates" not in derived_sizes(config)
    assert config.trainer.with_steps(10).updates == updates


def test_steps_stay_what_they_are():
    config = load_config(TrainConfig, [], [*SIZES, "trainer.steps=7"])
    assert config.trainer.with_steps(10).updates == 7 and derived_sizes(config)["optimizer updates"] == 7


@pytest.mark.parametrize(
    "overrides,part",
    [
        ([], "steps is missing; set it, or trainer.epochs"),
        (["trainer.steps=1", "trainer.epochs=1"], "both set; set one of them"),
    ],
)
def test_neither_or_both_is_refused(overrides, part):
    with pytest.raises(UserError, match=part):
        load_config(TrainConfig, [], [*SIZES, *overrides])
