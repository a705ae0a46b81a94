"""Weights on their way from the trainer to the workers: the gate arrives in fp32, on every path."""

import pytest
import torch

from ouro_rl.core.engine_config import EngineConfig
from ouro_rl.model.modeling_ouro import GATE_PARAMETERS
from rollout_workers.weight_sync import fingerprint, load_state, packed
from rollout_workers.worker import RolloutWorker
from tests.references.tiny_models import random_model


def worker_of(model) -> RolloutWorker:
    return RolloutWorker(model.config.to_dict(), EngineConfig(dtype="bfloat16", max_batch=2))


def gate_of(model) -> list[torch.Tensor]:
    return [tensor for name, tensor in model.state_dict().items() if name.endswith(GATE_PARAMETERS)]


@pytest.mark.parametrize("way", ["in process", "packed for actors"])
def test_a_bf16_worker_has_the_gate_of_the_trainer(way):
    model = random_model(seed=2)
    torch.nn.init.constant_(model.model.early_exit_gate.bias, -0.3)  # no bf16 number
    state = model.state_dict() if way == "in process" else packed(model.state_dict(), torch.bfloat16)
    worker = worker_of(model)
    worker.load_weights(state, 1)
    own = worker.engine.model
    assert own.dtype == torch.bfloat16 and own.lm_head.weight.dtype == torch.bfloat16
    for ours, theirs in zip(gate_of(own), gate_of(model), strict=True):
        assert torch.equal(ours, theirs) and not torch.equal(theirs, theirs.bfloat16().float())


def test_only_the_gate_is_sent_in_fp32():
    sent = packed(random_model().state_dict(), torch.bfloat16)
    assert {name for name, tensor in sent.items() if tensor.dtype == torch.float32} == {
        "model.early_exit_gate.weight", "model.early_exit_gate.bias"
    }  # fmt: skip


def test_published_bf16_weights_load_exactly():
    model = random_model(seed=2)
    published = {name: tensor.bfloat16() for name, tensor in model.state_dict().items()}
    worker = worker_of(model)
    worker.load_weights(published, 1)
    for name, tensor in worker.engine.model.state_dict().items():
        assert torch.equal(tensor.bfloat16(), published[name]), name


def test_a_small_update_of_the_gate_reaches_the_worker_and_its_fingerprint():
    """Adam's first update moves a weight by the learning rate: 1e-5 at the published setting."""
    model = random_model(seed=2)
    worker = worker_of(model)
    worker.load_weights(model.state_dict(), 1)
    (_, before), states = worker.fingerprint(), torch.randn(3, 32).bfloat16()
    ops, _ = worker.engine.model.model.row_ops(torch.bfloat16)
    logits = worker.engine.model.model.gate_logits(states, ops)
    with torch.no_grad():
        model.model.early_exit_gate.weight.add_(1e-5)
    worker.load_weights(model.state_dict(), 2)
    assert worker.fingerprint() != (2, before)
    assert (worker.engine.model.model.gate_logits(states, ops) != logits).all()


def test_trainer_and_bf16_worker_compute_the_same_gate_logits(compute):
    """In C kernels and in plain torch: fp32 weights that compute in bf16, and the worker's bf16 copy."""
    trainer, worker = random_model(seed=4), random_model(seed=5).bfloat16()
    load_state(worker, trainer.state_dict())
    states = torch.randn(16, 32, generator=torch.Generator().manual_seed(0)).bfloat16()
    ours, theirs = (
        model.model.gate_logits(states, model.model.row_ops(torch.bfloat16)[0]) for model in (trainer, worker)
    )
    assert ours.dtype == torch.float32 and torch.equal(ours, theirs)
    assert fingerprint(worker) != fingerprint(trainer), "dtypes are part of it"
