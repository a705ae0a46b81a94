"""The stages of the warm start: each trains the parameters it should."""

import pytest
import torch

from ouro_rl.model.modeling_ouro import GATE_PARAMETERS
from ouro_rl.model.policy.exit_gate import exit_log_pdf
from ouro_rl.model.tiny_tokenizer import make_tokenizer
from ouro_rl.training.warmstart.run import batches
from ouro_rl.training.warmstart.stages import draw_depths, settling, stage_one, stage_two
from tests.references.tiny_models import random_model
from tests.references.tiny_warmstart import config_of


@pytest.mark.parametrize("stage,moves_gate,moves_body", [
    (stage_one, True, True), (stage_two, True, False), (settling, False, True),
])  # fmt: skip
def test_each_stage_trains_the_right_parameters(tmp_path, stage, moves_gate, moves_body):
    tokenizer = make_tokenizer()
    model = random_model(layers=1, loops=3, vocab=len(tokenizer), gate_scale=1.0)
    config = config_of(tmp_path, one=3, two=3, settling=3)
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    stage(model, config, batches(config, tokenizer, seed=0))
    moved = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
    gate = {name for name in before if name.endswith(GATE_PARAMETERS)}
    assert gate == {"model.early_exit_gate.weight", "model.early_exit_gate.bias"}
    assert moved == (gate if moves_gate else set()) | (set(before) - gate if moves_body else set())


@pytest.mark.parametrize("stage", [stage_one, stage_two])
def test_a_step_takes_one_forward_pass(tmp_path, monkeypatch, stage):
    tokenizer = make_tokenizer()
    model = random_model(layers=1, loops=3, vocab=len(tokenizer), gate_scale=1.0)
    config, calls, forward = config_of(tmp_path, one=2, two=2), [], model.model.forward
    monkeypatch.setattr(model.model, "forward", lambda *args, **kwargs: calls.append(1) or forward(*args, **kwargs))
    stage(model, config, batches(config, tokenizer, seed=0))
    assert len(calls) == 2


def test_sampled_depths_follow_the_exit_distribution():
    torch.manual_seed(0)
    gates = torch.tensor([0.2, -0.7, 3.0]).view(3, 1).expand(3, 20_000)
    shares = torch.bincount(draw_depths(gates), minlength=4)[1:] / 20_000
    assert (shares - exit_log_pdf(gates[:, 0]).exp()).abs().max() < 0.015
