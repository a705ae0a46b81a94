"""What holds for every option of gate, trainer and rollouts, with the real engine and trainer: the log-prob gap is 0, a
learning rate of 0 changes no bit, and the gradient depends on the rollouts alone, not on how they are laid out."""

import itertools
import json
import os
import pickle
import random
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from ouro_rl.config.gate import GateConfig
from ouro_rl.config.rollout import RolloutConfig
from ouro_rl.config.trainer import TrainerConfig
from ouro_rl.model import replay as replay_module
from ouro_rl.training import trainer as trainer_module
from tests.references.patience import HANG_S
from tests.references.tiny_models import batch_tolerance
from tests.references.tiny_trainer import LOOPS, PROMPTS, pool_of, sampler_of, tiny_config, tiny_model, train

TOLERANCE = 1e-6
GROUP = 4
PROBED = {"gate__probe_share": 0.7}
REUSED = {"trainer__updates_per_batch": 2, "trainer__importance_cap": 1.5}
NO_GATE = {"gate__mode": "off"}
# fmt: off
OPTIONS = {
    "defaults": {},
    "price on all": {
        "gate__price_on": "all", "gate__baseline": "batch", "gate__solved_reward": 0.2, "gate__depth_floor": 2,
        "gate__loss_weight": 0.5,
    },
    "kappa": {"gate__kappa": 0.5, "gate__variety_bonus": 0.1, "gate__reaches_body": True},
    "gate only": {"gate__train": "only", "gate__max_grad_norm": 0.1, "trainer__scale_rewards": "none"},
    "controller": {
        "gate__target_loops": 12.0, "gate__target_step": 0.5, "gate__price_after": 1, "gate__price_warmup": 2,
        "gate__price_rate": 0.1, "gate__price_gain": 0.1, "gate__price_max": 0.3, "gate__price_window": 2,
    },
    "depth target": {"gate__target_depth": 1.5, "gate__price_after": "settled"},
    "naive": {"gate__price_in": "reward", "trainer__loss_type": "grpo"},
    "gfpo": {"gate__keep_best": 2, "trainer__loss_type": "dr_grpo"},
    "rao-blackwell": {
        **PROBED, **REUSED, "gate__credit": "rao_blackwell", "gate__cost": "expected", "gate__eta": 0.3,
        "trainer__credit": "rao_blackwell",
    },
    "stage 2": {**PROBED, "gate__mode": "stage2", "trainer__credit": "rltt_uniform"},
    "rltt": {**PROBED, **NO_GATE, "trainer__credit": "rltt_exit", "rollout__exit_rule": {"kind": "fixed", "value": 3}},
    "iid": {**NO_GATE, "rollout__exit_rule": {"kind": "iid", "probabilities": [0.5, 0.2, 0.3]}},
    "confidence": {**NO_GATE, "rollout__exit_rule": {"kind": "confidence", "value": 0.1}},
    "Q-exit": {**NO_GATE, "rollout__exit_rule": {"kind": "threshold", "value": 0.5}},
    "clipped": {
        **REUSED, "gate__clip_low": 0.01, "gate__clip_high": 0.01, "trainer__clip_low": 0.01,
        "trainer__clip_high": 0.01, "trainer__importance": "sequence", "trainer__max_grad_norm": 0.1,
    },
    "batch scale": {"trainer__scale_rewards": "batch", "trainer__mask_truncated": True, "trainer__weight_decay": 0.1},
    "schedule": {
        "trainer__lr_scheduler": "constant_with_warmup", "trainer__lr_warmup": 2, "trainer__adam_beta2": 0.9,
        "trainer__refill": 2, "trainer__loss_type": "bnpo",
    },
    "anytime": {"rollout__anytime": [1, 3], "gate__kappa": 0.5, "gate__variety_bonus": 0.1},
    "anytime, probed": {
        **PROBED, "rollout__anytime": [2, 3], "gate__credit": "rao_blackwell", "gate__cost": "expected",
        "trainer__credit": "rao_blackwell",
    },
    "anytime, off": {
        **NO_GATE, "rollout__anytime": [1], "rollout__kv_rule": "full",
        "rollout__exit_rule": {"kind": "kl", "value": 0.1},
    },
    "annealed": {
        **REUSED, "rollout__gate_temperature": 3.0, "rollout__gate_temperature_end": 0.5,
        "rollout__gate_temperature_updates": 4, "rollout__exploration": 0.05, "trainer__steps": 4,
    },
    "filters": {"rollout__temperature": 0.7, "rollout__top_k": 20, "rollout__top_p": 0.9, "rollout__min_p": 0.01},
    "more loops": {"rollout__min_depth": 2, "rollout__max_depth": 5, "rollout__kv_rule": "skip"},
    "early stop": {
        "rollout__early_stop": {"every": 2, "min_mean_logprob": -3.5}, "rollout__stop_strings": ["1"],
        "rollout__max_batch": 5, "rollout__prefill_rows": 3,
    },
}
# fmt: on
ELSEWHERE = {
    "gate": {"lr", "price"},
    "trainer": {
        "steps",
        "epochs",
        "prompts_per_step",
        "group_size",
        "micro_batch",
        "lr",
        "logp_gap_limit",
        "checkpoint_every",
        "keep_checkpoints",
        "max_staleness",
        "in_flight",
    },
    "rollout": {
        "workers",
        "worker_cpus",
        "worker_gpus",
        "worker_threads",
        "kv_memory_gib",
        "exact",
        "max_new_tokens",
        "logit_processors",
        "stop_token_ids",
        "thinking_budget",
        "thinking_closing",
    },
}  # fmt: skip
"""Keys that every case sets, sizes, and what other tests in this folder are about."""


def test_every_option_is_in_the_table_or_tested_elsewhere():
    used = {key for changes in OPTIONS.values() for key in changes}
    for section, kind in (("gate", GateConfig), ("trainer", TrainerConfig), ("rollout", RolloutConfig)):
        mine = {key.split("__")[1] for key in used if key.startswith(f"{section}__")}
        assert mine | ELSEWHERE[section] == set(kind.model_fields), section


def run(config, seed=0):
    """Two updates (or as many as the config asks for): the model, its weights before, rows of metrics."""
    model = tiny_model(seed)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    pool = pool_of(model, config)
    rows, _ = train(model, config, sampler_of(config, pool), pool.publish)
    assert len(rows) == config.trainer.updates
    return model, before, rows


def moved(model, before):
    return {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}


@pytest.mark.parametrize("option", OPTIONS)
def test_the_log_prob_gap_is_0(option):
    """Also after weights and gate have moved."""
    model, before, rows = run(tiny_config(**OPTIONS[option]))
    fresh = [row["logp_gap/max"] for row in rows if "logp_gap/max" in row]
    assert len(fresh) == 2 or "trainer__updates_per_batch" in OPTIONS[option]
    assert max(fresh) <= batch_tolerance(model)
    assert moved(model, before)


@pytest.mark.parametrize("option", OPTIONS)
def test_without_a_learning_rate_no_bit_of_the_weights_changes(option):
    config = tiny_config(**OPTIONS[option] | {"trainer__lr": 0.0, "gate__lr": 0.0})
    model, before, rows = run(config)
    assert not moved(model, before)
    assert any(row["grad_norm"] > 0 or config.gate.train == "only" for row in rows), "there was a gradient"


UNBOUNDED = 1e9
"""No clipping of the norm: gradients are compared."""
ONE_UPDATE = {
    "trainer__steps": 1, "trainer__lr": 0.0, "gate__lr": 0.0, "trainer__max_grad_norm": UNBOUNDED,
    "gate__max_grad_norm": UNBOUNDED, "trainer__logp_gap_limit": UNBOUNDED, "trainer__updates_per_batch": 1,
}  # fmt: skip


OFTEN_SOLVED = (1.0, 0.0, 2 / 3, 1 / 3, None, 1.0, 0.0, 2 / 3, 1.0, 1.0, 1.0, 1.0, 0.0, 1 / 3, 0.0, 0.0)
"""Rewards of four groups: some are solved and pay, one was not scored; the third is all right, the last all wrong."""


def off_policy_rollouts(config):
    """Rollouts of a policy near the one in training, so that importance ratios count."""
    other = tiny_model()
    with torch.no_grad():
        noise = torch.Generator().manual_seed(1)
        for parameter in other.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=noise))
    scored, _ = sampler_of(config, pool_of(other, config))(PROMPTS[:4], 1)
    assert len({len(item.rollout.completion_ids) for item in scored}) > 2
    return [
        replace(item, reward=reward, rewards={"r": reward}) for item, reward in zip(scored, OFTEN_SOLVED, strict=True)
    ]


def gradient_of(config, scored):
    """Gradients, and the losses of both heads, of one update on these rollouts."""
    (row,), (gradients,) = train(tiny_model(), config, lambda *_: (list(scored), {"tokens/s": 1.0}))
    return gradients, {name: row[name] for name in ("loss/token", "loss/gate")}


def assert_same(got, expected):
    (gradients, losses), (wanted, whole) = got, expected
    assert gradients.keys() == wanted.keys()
    for name, tensor in wanted.items():
        error = (gradients[name] - tensor).abs().max().item()
        assert error <= TOLERANCE * max(1.0, tensor.abs().max().item()), name
    assert losses == pytest.approx(whole, abs=TOLERANCE)


def shuffled(scored, seed):
    """The groups in another order, and so the samples of every group."""
    rng = random.Random(seed)
    groups = [list(scored[first : first + GROUP]) for first in range(0, len(scored), GROUP)]
    rng.shuffle(groups)
    for group in groups:
        rng.shuffle(group)
    return [item for group in groups for item in group]


OBJECTIVES = (
    "defaults", "price on all", "kappa", "gate only", "controller", "depth target", "naive", "rao-blackwell", "stage 2",
    "rltt", "iid", "confidence", "Q-exit", "clipped", "batch scale", "anytime", "annealed", "filters", "more loops",
)  # fmt: skip


def padded(batch):
    """The same batch with two more columns of padding before the prompts, and three after the completions."""
    wider = dict(batch)
    length = batch["completion_ids"].shape[1]
    for name, tensor in batch.items():
        if name in ("prompt_ids", "prompt_mask"):
            wider[name] = torch.cat([torch.zeros_like(tensor[:, :1]).expand(-1, 2), tensor], 1)
        elif tensor.dim() > 1 and name not in ("stay_costs", "hazards"):
            assert tensor.shape[1] == length, name
            wider[name] = torch.cat([tensor, torch.zeros_like(tensor[:, :1]).expand(-1, 3, *tensor.shape[2:])], 1)
    return wider


@pytest.mark.parametrize("option", OBJECTIVES)
def test_the_gradient_depends_on_the_rollouts_alone(option, monkeypatch):
    """Not on their order, the micro batch, or padding. (Not GFPO: its best are the first of equals; not the loss type
    `bnpo`, which is a mean over each micro batch.)"""
    changes = OPTIONS[option] | ONE_UPDATE
    config = tiny_config(**changes)
    scored = off_policy_rollouts(config)
    expected = gradient_of(config, scored)
    assert max(gradient.abs().max().item() for gradient in expected[0].values()) > 1e-3, "there is a gradient"
    assert_same(gradient_of(tiny_config(**changes | {"trainer__micro_batch": 16}), scored), expected)
    original = trainer_module.collate
    monkeypatch.setattr(trainer_module, "collate", lambda *given: padded(original(*given)))
    assert_same(gradient_of(tiny_config(**changes | {"trainer__micro_batch": 2}), shuffled(scored, 1)), expected)


@pytest.mark.parametrize("option, through", [("gate only", False), ("defaults", True)])
def test_where_the_gate_is_trained_alone_no_backward_pass_runs_through_the_layers(option, through, monkeypatch):
    """States, keys and values of every loop have no gradient to keep; the gate's logits do."""
    config = tiny_config(**OPTIONS[option] | ONE_UPDATE)
    scored, seen, original = off_policy_rollouts(config), [], replay_module.run_loop

    def run_loop(*given):
        states, gates, memory = original(*given)
        stack = {tensor.grad_fn is not None for tensor in (states, *itertools.chain(*memory))}
        seen.append((stack, gates.grad_fn is not None))
        return states, gates, memory

    monkeypatch.setattr(replay_module, "run_loop", run_loop)
    gradients, _ = gradient_of(config, scored)
    assert len(seen) >= LOOPS and all(each == ({through}, True) for each in seen)
    assert (gradients.keys() == {f"model.early_exit_gate.{name}" for name in ("weight", "bias")}) != through


@pytest.mark.slow
@pytest.mark.parametrize("option", ["kappa", "rao-blackwell"])
def test_two_processes_have_the_gradient_of_one(option, tmp_path):
    changes = OPTIONS[option] | ONE_UPDATE
    config = tiny_config(**changes)
    scored = off_policy_rollouts(config)
    rollouts = tmp_path / "rollouts.pickle"
    rollouts.write_bytes(pickle.dumps(scored))
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    module = [
        "-m",
        "tests.references.tiny_trainer",
        rollouts,
        tmp_path,
        json.dumps(changes | {"trainer__micro_batch": 4}),
    ]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [*launch, *map(str, module)], env=environment, capture_output=True, text=True, timeout=2 * HANG_S, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    (expected, losses) = gradient_of(config, scored)
    for rank in range(2):
        assert_same((torch.load(tmp_path / f"{rank}.pt"), losses), (expected, losses))
