"""Weights on their way from the trainer to the workers: the gate arrives in fp32, on every path."""

import pytest
import torch

from ouro_rl.core.engine_config import EngineConfig
from ouro_rl.model.modeling_ouro import GATE_PARAMETERS
from rollout_workers.packed import fingerprint_of
from rollout_workers.weight_sync import fingerprint, load_state, pack, tensors_of
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
    state = model.state_dict() if way == "in process" else tensors_of(pack(model.state_dict(), torch.bfloat16))
    worker = worker_of(model)
    worker.load_weights(state, 1)
    own = worker.engine.model
    assert own.dtype == torch.bfloat16 and own.lm_head.weight.dtype == torch.bfloat16
    for ours, theirs in zip(gate_of(own), gate_of(model), strict=True):
        assert torch.equal(ours, theirs) and not torch.equal(theirs, theirs.bfloat16().float())


def test_only_the_gate_is_sent_in_fp32():
    sent = tensors_of(pack(random_model().state_dict(), torch.bfloat16))
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
    assert fingerprint(worker.state_dict()) != fingerprint(trainer.state_dict()), "dtypes are part of it"


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_packed_weights_arrive_with_their_fingerprint(dtype):
    """Also from an array for reading only, as Ray gives it."""
    model = random_model(seed=2)
    worker = RolloutWorker(model.config.to_dict(), EngineConfig(dtype=dtype, max_batch=2))
    sent = list(pack(model.state_dict(), getattr(torch, dtype)))
    packed = {name: packed for part in sent for name, packed in part.items()}
    for one in packed.values():
        one.data.flags.writeable = False
    expected = fingerprint_of({name: one.digest() for name, one in packed.items()})
    assert worker.load_packed(sent, 4) == expected
    assert worker.fingerprint() == (4, expected)
    with torch.no_grad():
        worker.engine.model.lm_head.weight[3, 5] += 1
    assert worker.fingerprint()[1] != expected


def test_weights_are_sent_in_parts_and_not_copied_before():
    state = random_model(seed=2).state_dict()
    whole = list(pack(state, torch.float32))
    parts = list(pack(state, torch.float32, part_bytes=5000))
    assert len(whole) == 1 and len(parts) > 3
    assert [name for part in parts for name in part] == list(state)
    sizes = [[packed.data.nbytes for packed in part.values()] for part in parts]
    assert all(sum(part) <= 5000 or len(part) == 1 for part in sizes)
    for name, tensor in tensors_of(parts).items():
        assert tensor.data_ptr() == state[name].data_ptr(), name
    assert list(tensors_of(pack({}, torch.float32))) == []


@pytest.mark.parametrize("size", [1, 4095, 4096, 4097, 3 * 4096])
def test_a_fingerprint_depends_on_every_byte(size):
    data = torch.randint(256, (size,), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    first = fingerprint({"a": data})
    for place in {0, size // 2, size - 1}:
        changed = data.clone()
        changed[place] += 1
        assert fingerprint({"a": changed}) != first, place
    assert fingerprint({"b": data}) != first and fingerprint({"a": data.view(1, -1)}) != first
    moved = torch.cat([data[size // 2 :], data[: size // 2]])
    assert size <= 4096 or fingerprint({"a": moved}) != first
