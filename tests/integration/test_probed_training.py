"""Training with probe rows: credit over depth, Stage II labels and RLTT, from config to metrics."""

import math

import pytest
import torch
from safetensors.torch import load_file

from ouro_rl.launch import run_training
from tests.references.tiny_training import config_of, deterministic, metrics_of

CALIBRATION = {"gate/gain", "gate/helps", "gate/brier", "gate/stay_if_helps", "gate/stay_if_not"}
SETTINGS = {
    "rao_blackwell": {"gate__credit": "rao_blackwell", "gate__cost": "expected", "trainer__credit": "rao_blackwell"},
    "stage2": {"gate__mode": "stage2", "gate__target_depth": None},
    "rltt": {"gate__mode": "off", "trainer__credit": "rltt_exit"},
}


def train(checkpoint, folder, **changes):
    config = config_of(checkpoint, folder, eval__source=None, trainer__steps=2, **changes)
    assert run_training(config, resume=False) == 0
    return metrics_of(folder), load_file(folder / "checkpoints" / "step-2" / "model.safetensors")


@pytest.fixture(scope="module")
def plain(checkpoint, tmp_path_factory):
    return train(checkpoint, tmp_path_factory.mktemp("plain") / "run")


def test_probes_that_nothing_reads_change_no_bit(checkpoint, plain, tmp_path):
    rows, weights = train(checkpoint, tmp_path / "run", gate__probe_share=0.5)
    for row, without in zip(rows, plain[0], strict=True):
        assert row.keys() - without.keys() == CALIBRATION
        assert deterministic({name: row[name] for name in without}) == deterministic(without)
        assert 0 < row["gate/helps"] < 1 and 0 < row["gate/brier"] < 1
    assert all(torch.equal(weights[name], tensor) for name, tensor in plain[1].items())


@pytest.mark.parametrize("name", SETTINGS)
def test_objectives_that_read_all_loops_train(checkpoint, plain, tmp_path, name):
    rows, weights = train(checkpoint, tmp_path / "run", gate__probe_share=1.0, **SETTINGS[name])
    assert rows[0]["logp_gap/max"] == plain[0][0]["logp_gap/max"]  # the replay is the same, to the bit
    assert all(math.isfinite(row[key]) for row in rows for key in ("grad_norm", "loss/token", "loss/gate"))
    changed = {key for key, tensor in plain[1].items() if not torch.equal(tensor, weights[key])}
    assert "lm_head.weight" in changed or name == "stage2"  # its head learns as before
    before = load_file(checkpoint / "model.safetensors")["model.early_exit_gate.weight"]
    assert torch.equal(before, weights["model.early_exit_gate.weight"]) == (name == "rltt")


def test_the_loss_does_not_depend_on_the_micro_batch(checkpoint, tmp_path):
    """Samples are probed by their own seeds, in any batch."""
    settings = {**SETTINGS["rao_blackwell"], "gate__probe_share": 0.5}
    rows = [train(checkpoint, tmp_path / str(size), trainer__micro_batch=size, **settings)[0][0] for size in (4, 16)]
    for key in ("loss/token", "loss/gate", "gate/brier", "grad_norm"):
        assert rows[0][key] == pytest.approx(rows[1][key], rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("name", ["rao_blackwell", "stage2"])
def test_updates_in_which_no_sample_is_probed_train(checkpoint, tmp_path, name):  # noqa: F811
    rows, _ = train(checkpoint, tmp_path / "run", gate__probe_share=1e-9, **SETTINGS[name])
    assert not rows[0].keys() & CALIBRATION and all(math.isfinite(row["grad_norm"]) for row in rows)


def test_filters_may_drop_a_token_at_other_loops(checkpoint, tmp_path):  # noqa: F811
    settings = {**SETTINGS["rao_blackwell"], "gate__probe_share": 1.0}
    config = config_of(checkpoint, tmp_path / "run", eval__source=None, trainer__steps=2, rollout__top_k=3, **settings)
    assert run_training(config, resume=False) == 0
    assert all(math.isfinite(row[key]) for row in metrics_of(tmp_path / "run") for key in ("grad_norm", "gate/gain"))
