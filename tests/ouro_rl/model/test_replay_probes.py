"""Probe rows against the slow, obvious reference: for each token and loop, a replay in which that token alone is
deeper."""

import gc
import weakref

import pytest
import torch

from ouro_rl.core.kv_rule import KVRule
from ouro_rl.core.sampling_params import NO_DEPTH
from ouro_rl.kernels.cpu import select as cpu_kernels
from ouro_rl.kernels.ops import TORCH_OPS, KernelOps
from ouro_rl.model import replay_probes
from tests.references.tiny_models import random_model

RULES = list(KVRule)
LOOPS = 4
needs_kernels = pytest.mark.skipif(cpu_kernels.load()[0] is None, reason=cpu_kernels.load()[1])


def padded_batch():
    """Three sequences with a full-depth prompt, padding on both sides, and probes at some completion tokens."""
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(0, 41, (3, 9), generator=generator)
    depths = torch.randint(1, LOOPS + 1, (3, 9), generator=generator)
    depths[:, :3] = LOOPS
    depths[0, :2], depths[1, 7:], depths[2, 8:] = NO_DEPTH, NO_DEPTH, NO_DEPTH
    depths[0, 4], depths[1, 3], depths[2, 6] = 1, 2, LOOPS
    probes = (depths != NO_DEPTH) & (torch.arange(9) >= 2)
    probes[2, 4] = False
    return ids, depths, probes


def loop_by_loop(model, ids, depths, probes, rule, loops=LOOPS):
    """States [T, k, hidden] and gate logits [T, k] of the probed tokens, by one replay for each token and loop."""
    states, gates = [], []
    for loop in range(1, loops + 1):
        for row, place in probes.nonzero().tolist():
            changed = depths.clone()
            changed[row, place] = loop
            output = model.model(ids, depths=changed, num_loops=loops, kv_rule=rule)
            states.append(output.last_hidden_state[row, place])
            gates.append(output.gate_logits[loop - 1, row, place])
    count = int(probes.sum())
    return torch.stack(states).view(loops, count, -1), torch.stack(gates).view(loops, count)


def kernel_model(kv_heads=2):
    model = random_model(seed=8, hidden=64, heads=2, kv_heads=kv_heads)  # heads of 32: the kernels take them
    with torch.no_grad():
        model.model.embed_tokens.weight.mul_(0.2)
    assert isinstance(model.model.row_ops(torch.float32)[0], KernelOps)
    return model


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("shape", [dict(seed=0), dict(seed=1, layers=1, heads=4, kv_heads=2)])
@torch.no_grad()
def test_probes_are_what_a_deeper_token_would_have_computed(shape, rule):
    model = random_model(**shape).double()  # without rounding, only the definition is compared
    ids, depths, probes = padded_batch()
    probed = model.model(ids, depths=depths, probes=probes, kv_rule=rule).probed
    states, gates = loop_by_loop(model, ids, depths, probes, rule)
    assert (probed.states - states).abs().max() <= 1e-12
    torch.testing.assert_close(probed.gate_logits, gates, atol=1e-5, rtol=1e-5)  # gates stay in fp32
    shallow = depths[probes] < LOOPS
    assert shallow.any() and (probed.states[-1] - probed.states[-2])[shallow].abs().max() > 0.1


@needs_kernels
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("kv_heads", [1, 2])
@pytest.mark.parametrize("chunk", [5, 4096])
@torch.no_grad()
def test_with_the_kernels_probes_have_the_same_bits_and_change_no_other_row(monkeypatch, rule, kv_heads, chunk):
    monkeypatch.setattr(replay_probes, "CHUNK_ROWS", chunk)
    model = kernel_model(kv_heads)
    ids, depths, probes = padded_batch()
    without = model.model(ids, depths=depths, kv_rule=rule)
    output = model.model(ids, depths=depths, probes=probes, kv_rule=rule)
    assert without.probed is None
    assert torch.equal(output.last_hidden_state, without.last_hidden_state)
    assert torch.equal(output.gate_logits, without.gate_logits)
    states, gates = loop_by_loop(model, ids, depths, probes, rule)
    assert torch.equal(output.probed.states, states) and torch.equal(output.probed.gate_logits, gates)


def probe_gradients(model, states, gates):
    """Gradients, by name, of a loss that weighs every number of every loop differently."""
    model.zero_grad()
    weights = torch.linspace(-1, 1, states.numel(), dtype=states.dtype).view_as(states)
    ((states * weights).mean() + (gates * gates.detach().cos()).mean()).backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("chunk", [5, 4096])
def test_gradients_of_probes_in_torch(monkeypatch, rule, chunk):
    monkeypatch.setattr(replay_probes, "CHUNK_ROWS", chunk)
    model = random_model(seed=5).double()
    check_gradients(model, rule, 1e-6)  # gates stay in fp32


@needs_kernels
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("chunk,checkpointed", [(5, False), (5, True), (4096, False)])
def test_gradients_of_probes_with_the_kernels(monkeypatch, rule, chunk, checkpointed):
    monkeypatch.setattr(replay_probes, "CHUNK_ROWS", chunk)
    model = kernel_model().train()
    if checkpointed:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    check_gradients(model, rule, 1e-4)


def check_gradients(model, rule, tolerance):
    ids, depths, probes = padded_batch()
    probed = model.model(ids, depths=depths, probes=probes, kv_rule=rule).probed
    got = probe_gradients(model, probed.states, probed.gate_logits)
    wanted = probe_gradients(model, *loop_by_loop(model, ids, depths, probes, rule))
    assert got.keys() == wanted.keys()
    for name, grad in wanted.items():
        assert grad.norm() > 0 and (got[name] - grad).norm() <= tolerance * grad.norm(), name


def test_chunks_keep_the_activations_of_one_chunk_only(monkeypatch):
    """Bytes that autograd keeps for the backward pass, beyond those of a replay without probes."""
    model, (ids, depths, probes) = random_model(seed=5).train(), padded_batch()

    def kept(probes, chunk) -> int:
        monkeypatch.setattr(replay_probes, "CHUNK_ROWS", chunk)
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(lambda x: sizes.append(x.nbytes) or x, lambda x: x):
            model.model(ids, depths=depths, probes=probes)
        return sum(sizes)

    base = kept(None, 4096)
    assert kept(probes, 2) - base < (kept(probes, 4096) - base) / 4


def test_what_is_not_backpropagated_is_freed(monkeypatch):
    """Stage II reads probes without a gradient: the graph must go with the last reference to its results."""
    monkeypatch.setattr(replay_probes, "CHUNK_ROWS", 2)
    model, (ids, depths, probes) = random_model(seed=5).train(), padded_batch()
    saved = weakref.WeakSet()

    class Saved:
        def __init__(self, tensor):
            self.tensor = tensor
            saved.add(self)

    with torch.autograd.graph.saved_tensors_hooks(Saved, lambda it: it.tensor):
        output = model.model(ids, depths=depths, probes=probes)
    assert len(saved) > 0 and output.probed.states.requires_grad
    del output
    gc.collect()
    assert len(saved) == 0


@needs_kernels
def test_both_paths_agree(monkeypatch):
    model = kernel_model()
    ids, depths, probes = padded_batch()
    fast = model.model(ids, depths=depths, probes=probes).probed
    monkeypatch.setattr(model.model, "row_ops", lambda dtype: (TORCH_OPS, "plain"))
    slow = model.model(ids, depths=depths, probes=probes).probed
    torch.testing.assert_close(fast.states, slow.states, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("rule", RULES)
@torch.no_grad()
def test_without_a_deep_prompt_probes_run_after_every_token_has_left(rule):
    model = random_model(seed=2).double()
    ids, depths = torch.randint(0, 41, (2, 3), generator=torch.Generator().manual_seed(0)), torch.ones(2, 3).long()
    probed = model.model(ids, depths=depths, probes=torch.ones(2, 3).bool(), kv_rule=rule).probed
    states, _ = loop_by_loop(model, ids, depths, torch.ones(2, 3).bool(), rule)
    assert (probed.states - states).abs().max() <= 1e-12


@torch.no_grad()
def test_shared_prefixes_are_probed_for_every_sample():
    model = random_model(seed=9).double()
    ids = torch.randint(0, 41, (2, 5), generator=torch.Generator().manual_seed(0))
    ids[1, :2] = ids[0, :2]
    depths = torch.tensor([[4, 2, 1, 3, 1], [4, 2, 2, 1, 4]])
    owners = torch.arange(10).view(2, 5)
    owners[1, :2] = owners[0, :2]
    probes = torch.tensor([[0, 1, 1, 0, 0], [0, 1, 1, 1, 0]]).bool()
    probed = model.model(ids, depths=depths, owners=owners, probes=probes).probed
    states, _ = loop_by_loop(model, ids, depths, probes, KVRule.LAST_EXITED)
    assert (probed.states - states).abs().max() <= 1e-12


@torch.no_grad()
def test_invalid_probes_are_errors_and_no_probes_give_none():
    model, (ids, depths, probes) = random_model(), padded_batch()
    with pytest.raises(ValueError, match="padding cannot be probed"):
        model(ids, depths=depths, probes=torch.ones_like(probes))
    with pytest.raises(ValueError, match="give depths too"):
        model(ids, probes=probes)
    nobody = model.model(ids, depths=depths, probes=torch.zeros_like(probes)).probed
    assert nobody.states.shape == (LOOPS, 0, 32) and nobody.gate_logits.shape == (LOOPS, 0)
