"""Training with each part of the objective: the log-prob gap is 0, and what must not move does not."""

import json

import pytest
import torch
from safetensors.torch import load_file

from ouro_rl.launch import run_training
from tests.references.tiny_training import config_of, metrics_of

# fmt: off
PARTS = {
    "kappa": {"gate__kappa": 0.5, "gate__price": 0.01, "gate__depth_floor": 2},
    "batch baseline": {"gate__baseline": "batch", "gate__price_on": "all", "gate__solved_reward": -1.0},
    "reaches body": {"gate__reaches_body": True, "gate__variety_bonus": 0.1},
    "exploration": {"rollout__exploration": 0.05, "rollout__gate_temperature": 1.5},
    "naive": {"gate__price_in": "reward"},
    "gfpo": {"gate__keep_best": 2},
    "loops per answer": {"gate__target_depth": None, "gate__target_loops": 14.0, "gate__price_after": 1},
    "reused batches": {"trainer__updates_per_batch": 2, "trainer__importance": "sequence", "trainer__steps": 4},
    "gate only": {"gate__train": "only"},
    "anytime": {"rollout__anytime": [1, 3], "gate__kappa": 0.5, "gate__variety_bonus": 0.1},
    "annealed gate": {
        "rollout__gate_temperature": 2.0, "rollout__gate_temperature_end": 0.8, "rollout__gate_temperature_updates": 3,
        "rollout__exploration": 0.02, "trainer__updates_per_batch": 2, "trainer__steps": 4,
    },
    "refill": {"trainer__refill": 2},
}
# fmt: on


@pytest.mark.parametrize("part", PARTS)
def test_every_part_trains_with_a_gap_of_0(checkpoint, tmp_path, part):
    config = config_of(checkpoint, tmp_path / "run", eval__source=None, **PARTS[part])
    assert run_training(config, resume=False) == 0
    rows = metrics_of(tmp_path / "run")
    assert len(rows) == config.trainer.updates
    assert max(row["logp_gap/max"] for row in rows if "logp_gap/max" in row) <= 1e-5
    for row in rows:
        assert row["gate/grad_norm"] > 0 and (row["grad_norm"] > 0) == (part != "gate only")
        assert row["compute/loops_per_answer"] > 0 and row["compute/flops"] > 0
        assert row["gate/information"] >= 0 and row["depth/std_between_tokens"] > 0
    rollouts = (tmp_path / "run" / "rollouts" / "step-000001.jsonl").read_text().rstrip("\n").split("\n")
    assert {json.loads(line)["exploration"] for line in rollouts} == {config.rollout.exploration}


def rollouts_of(run, step):
    return [json.loads(line) for line in (run / "rollouts" / f"step-{step:06d}.jsonl").read_text().splitlines()]


def test_the_temperature_of_the_gate_is_recorded_with_every_batch(checkpoint, tmp_path):
    """Two updates use each batch, at its temperature: the second reports no gap, and its ratios start from 1."""
    config = config_of(
        checkpoint, tmp_path / "run", eval__source=None, trainer__lr=0.0, gate__lr=0.0, **PARTS["annealed gate"]
    )
    assert run_training(config, resume=False) == 0
    rows = metrics_of(tmp_path / "run")
    assert [row["gate/temperature"] for row in rows] == pytest.approx([2.0, 2.0, 1.2, 1.2])
    for step, temperature in ((1, 2.0), (3, 1.2)):
        recorded = {row["gate_temperature"] for row in rollouts_of(tmp_path / "run", step)}
        assert list(recorded) == pytest.approx([temperature])
    # Without a learning rate the policy is the same in all updates, at the temperature of the batch.
    assert all(abs(row["kl/sampler"]) < 1e-9 for row in rows)


def test_anytime_samples_run_at_their_depths(checkpoint, tmp_path):
    config = config_of(checkpoint, tmp_path / "run", eval__source=None, trainer__steps=1, rollout__anytime=[1, 3])
    assert run_training(config, resume=False) == 0
    rollouts = rollouts_of(tmp_path / "run", 1)
    assert [row["fixed_depth"] for row in rollouts] == [None, None, 1, 3] * 4
    for row in rollouts:
        assert row["fixed_depth"] is None or set(row["depths"]) == {row["fixed_depth"]}
    of_gate = [sum(row["depths"]) for row in rollouts if row["fixed_depth"] is None]
    (metrics,) = metrics_of(tmp_path / "run")
    assert metrics["compute/loops_per_answer"] == pytest.approx(sum(of_gate) / len(of_gate))
    assert {"anytime/reward_1", "anytime/reward_3"} <= metrics.keys()


def weights(folder):
    return load_file(folder / "model.safetensors")


def test_only_the_gate_moves_when_it_is_trained_alone(checkpoint, tmp_path):
    config = config_of(checkpoint, tmp_path / "run", eval__source=None, gate__train="only", trainer__steps=2)
    assert run_training(config, resume=False) == 0
    before, after = weights(checkpoint), weights(tmp_path / "run" / "checkpoints" / "step-2")
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == {"model.early_exit_gate.weight", "model.early_exit_gate.bias"}


def test_without_a_learning_rate_no_bit_of_the_weights_changes(checkpoint, tmp_path):
    config = config_of(
        checkpoint, tmp_path / "run", eval__source=None, trainer__lr=0.0, gate__lr=0.0, trainer__steps=2,
        gate__kappa=0.5, gate__variety_bonus=0.1,
    )  # fmt: skip
    assert run_training(config, resume=False) == 0
    before, after = weights(checkpoint), weights(tmp_path / "run" / "checkpoints" / "step-2")
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)


def test_the_price_moves_the_gate_and_not_the_body(checkpoint, tmp_path):
    """Rewards are all equal and everyone pays: without `reaches_body` nothing but the gate has a gradient."""
    for reaches in (False, True):
        run = tmp_path / f"run-{reaches}"
        config = config_of(
            checkpoint, run, eval__source=None, trainer__steps=2, gate__target_depth=None, gate__price=0.1,
            gate__reaches_body=reaches, gate__solved_reward=-1.0, gate__price_on="all", reward="equal",
        )  # fmt: skip
        assert run_training(config, resume=False) == 0
        norms = [row["grad_norm"] for row in metrics_of(run)]
        assert all(norm > 0 for norm in norms) if reaches else norms == [0.0, 0.0]
        assert all(row["gate/grad_norm"] > 0 for row in metrics_of(run))
