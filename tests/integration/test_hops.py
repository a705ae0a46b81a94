"""The checkpoint whose needed depth is known: in the engine, t loops solve the problems of at most t hops, and no
others."""

from __future__ import annotations

import json
from collections import defaultdict

import pytest
import torch

from ouro_rl.cli import main as cli
from ouro_rl.config.loader import load_config
from ouro_rl.config.train import TrainConfig
from ouro_rl.core.sampling_params import ExitRule, SamplingParams
from ouro_rl.data.prompts import load_benchmark
from ouro_rl.evaluation.evaluate import graded_answers
from ouro_rl.model.checkpoint import load_policy
from ouro_rl.model.tokenizer import stop_token_ids
from rollout_workers.pool import make_pool
from tests.references.places import REPOSITORY
from tests.references.tiny_warmstart import assert_is_of_its_config

SOLVED, UNSOLVED = 0.8, 0.55
NEUTRAL = 0.2
"""Largest rank correlation of depth with difficulty that a gate may start with."""
CHECKPOINT = REPOSITORY / "configs/hops_ouro"


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    out = tmp_path_factory.mktemp("eval")
    arguments = ["eval", "--model", str(CHECKPOINT), "--benchmark", "hops", "--limit", "400", "--stop", "}"]
    fixed = cli.main([*arguments, "--depth", "1,2,3,4", "--out", str(out / "fixed")])
    sampled = cli.main([*arguments, "--sample-gate", "--temperature", "1", "--out", str(out / "sampled")])
    assert fixed == sampled == 0
    found = [json.loads((out / name / "eval.json").read_text())["rows"] for name in ("fixed", "sampled")]
    return {row["name"]: row for row in sum(found, [])}


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_t_loops_solve_what_t_hops_lead_to(rows, depth):
    row = rows[f"fixed {depth}"]
    assert row["mean_length"] == 1.0, "an answer is one token"
    for part in row["by_difficulty"]:
        assert part["n"] == 100 and part["mean_loops"] == depth
        reached = part["difficulty"] <= depth
        assert part["accuracy"] >= SOLVED if reached else part["accuracy"] <= UNSOLVED, part


def test_the_gate_starts_without_the_oracle(rows):
    row = rows["sample"]
    assert 0.4 <= row["accuracy"] <= 0.7
    assert abs(row["depth_correlation"]) < NEUTRAL


def test_depths_that_are_sampled_climb_the_same_stairs():
    """There the prompt runs all loops, and a loop of the answer reads no deeper ones."""
    model, tokenizer = load_policy(str(CHECKPOINT), torch.float32)
    prompts = load_benchmark("hops", tokenizer=tokenizer, limit=800)
    params = SamplingParams(
        max_new_tokens=1, temperature=0.0, exit_rule=ExitRule(kind="sample"), stop_token_ids=stop_token_ids(tokenizer)
    )
    with make_pool(0, str(CHECKPOINT)) as pool:
        pool.publish(model.state_dict(), 0)
        values, rollouts = graded_answers(pool, prompts, params, tokenizer=tokenizer)
    by_pair = defaultdict(list)
    for prompt, value, rollout in zip(prompts, values, rollouts, strict=True):
        by_pair[prompt.columns["difficulty"], rollout.depths[0]].append(value)
    assert len(by_pair) == 16 and all(len(found) > 20 for found in by_pair.values())
    for (hops, depth), found in by_pair.items():
        accuracy = sum(found) / len(found)
        assert accuracy >= SOLVED if hops <= depth else accuracy <= UNSOLVED, (hops, depth, accuracy)


def test_it_is_the_checkpoint_of_its_config():
    assert_is_of_its_config(CHECKPOINT, "configs/hops_warmstart.yaml")
    assert load_config(TrainConfig, [REPOSITORY / "configs/hops.yaml"]).model.path == str(CHECKPOINT)
