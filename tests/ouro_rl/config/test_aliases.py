"""Names from other systems: every entry of the table leads to an existing key."""

from __future__ import annotations

import re

import pytest

from ouro_rl.config.aliases import ALIASES, MEANINGS, argument_hint, meaning, option_hint
from ouro_rl.config.loader import known_keys, load_config
from ouro_rl.config.train import TrainConfig
from ouro_rl.config.warmstart import WarmstartConfig
from ouro_rl.core.errors import UserError

KEYS = known_keys(TrainConfig)
SECTIONS = {key.partition(".")[0] for key in KEYS}


def test_the_table_refers_to_existing_keys_and_has_each_name_once() -> None:
    for text in ALIASES:
        for word in re.findall(r"\b([a-z]+\.[a-z_]+)\b", text):
            assert word.partition(".")[0] not in SECTIONS or word in KEYS, text
    names = [name for names in ALIASES.values() for name in names]
    assert len(names) == len(set(names))
    assert not {key for key in KEYS if key.partition(".")[2] in MEANINGS and not key.endswith(".lr")}


@pytest.mark.parametrize("name", MEANINGS)
def test_every_name_is_explained_when_used_as_a_config_key(name: str) -> None:
    with pytest.raises(UserError) as caught:
        load_config(TrainConfig, [], [f"{name}=1", "model.path=x", "trainer.steps=1"])
    assert f"unknown key {name}; " in str(caught.value) and MEANINGS[name] in str(caught.value)


def test_a_warm_start_has_its_own_keys() -> None:
    overrides = ["stage_one.steps=1", "stage_two.steps=1", "output=x"]
    with pytest.raises(UserError, match="did you mean stage_one.lr or stage_two.lr or settling.lr?"):
        load_config(WarmstartConfig, [], ["lr=1", *overrides])


def test_meanings_are_found_in_dotted_keys_and_options() -> None:
    assert meaning("trainer.num-generations") == meaning("num_generations") == "trainer.group_size"
    assert meaning("trainer.steps") is None


@pytest.mark.parametrize(
    ("text", "following", "expected"),
    [
        ("--trainer.steps=3", "x", "trainer.steps is a key, written without dashes: trainer.steps=3"),
        ("--trainer.steps", "3", "trainer.steps is a key, written without dashes: trainer.steps=3"),
        ("--trainer.steps", None, "trainer.steps is a key, written without dashes: trainer.steps=..."),
        ("--report-to", "wandb", "report-to: here there is no tracker"),
        ("--seed", "3", "seed: here run.seed"),
        ("--max-new-tokens=3", None, "max-new-tokens: here rollout.max_new_tokens or eval.max_new_tokens"),
        ("--dryrun", None, "did you mean --dry-run?"),
        ("--zzz", None, ""),
    ],
)
def test_options(text, following, expected) -> None:
    hint = option_hint(text, following, ["--dry-run", "--resume"], KEYS)
    assert hint.startswith(expected) and bool(hint) == bool(expected)


def test_options_of_a_command_without_a_config() -> None:
    assert option_hint("--max_new_tokens", "3", ["--max-new-tokens"], []) == "did you mean --max-new-tokens?"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["+trainer.steps=3"], "+trainer.steps=3: an override is written without +: trainer.steps=3"),
        (["++x.y=3"], "++x.y=3: an override is written without +: x.y=3"),
        (["trainer.steps", "3"], "trainer.steps: is a key; give its value with =, as in trainer.steps=3"),
        (["trainer.steps"], "trainer.steps: is a key; give its value with =, as in trainer.steps=..."),
        (["num_generations", "8"], "num_generations: is not a config file; as a setting: trainer.group_size"),
        (["seed", "3"], "seed: is not a config file; as a setting: run.seed"),
        (["job.yaml"], None),
    ],
)
def test_arguments(arguments, expected) -> None:
    assert argument_hint(arguments, 0, KEYS) == expected
