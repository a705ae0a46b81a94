"""The checkpoint of long answers whose needed depth is known: in the engine, t loops solve the walks with at most t
hops in a step, and no others."""

from __future__ import annotations

import json

import pytest

from ouro_rl.cli import main as cli
from ouro_rl.config.loader import load_config
from ouro_rl.config.train import TrainConfig
from ouro_rl.tasks.walks import STEPS, TOKENS_PER_STEP
from tests.references.places import REPOSITORY
from tests.references.tiny_warmstart import assert_is_of_its_config

SOLVED, UNSOLVED = 0.8, 0.2
CHECKPOINT = REPOSITORY / "configs/walks_ouro"


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    out = tmp_path_factory.mktemp("eval")
    arguments = ["eval", "--model", str(CHECKPOINT), "--benchmark", "walks", "--limit", "120", "--stop", "}"]
    assert cli.main([*arguments, "--depth", "1,2,3,4", "--out", str(out / "fixed")]) == 0
    return {row["name"]: row for row in json.loads((out / "fixed" / "eval.json").read_text())["rows"]}


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_t_loops_solve_what_t_hops_lead_to(rows, depth):
    row = rows[f"fixed {depth}"]
    assert row["mean_length"] == STEPS * TOKENS_PER_STEP
    for part in row["by_difficulty"]:
        assert part["n"] == 30 and part["mean_depth"] == depth
        reached = part["difficulty"] <= depth
        assert part["accuracy"] >= SOLVED if reached else part["accuracy"] <= UNSOLVED, part


def test_it_is_the_checkpoint_of_its_config():
    assert_is_of_its_config(CHECKPOINT, "configs/walks_warmstart.yaml")
    assert load_config(TrainConfig, [REPOSITORY / "configs/walks.yaml"]).model.path == str(CHECKPOINT)
