"""The C kernels against plain torch in fp64, and each row bitwise against itself in other batches."""

import copy
import math
import pickle

import pytest
import torch
import torch.nn.functional as F

from ouro_rl.core.engine_config import EngineConfig
from ouro_rl.core.sampling_params import SamplingParams
from ouro_rl.kernels.cpu import select as cpu_kernels
from ouro_rl.kernels.cpu.build import library
from ouro_rl.kernels.cpu.kernels import onednn_product
from ouro_rl.kernels.ops import TORCH_OPS, KernelOps
from ouro_rl.kernels.processor import has_bf16_products
from ouro_rl.model.configuration_ouro import OuroConfig
from ouro_rl.model.modeling_ouro import OuroForCausalLM
from rollout_workers.engine.attention import KernelAttention, Rows
from rollout_workers.engine.engine import RolloutEngine
from rollout_workers.engine.kv_cache import KVCache
from tests.references.tiny_models import rounding
from tests.rollout_workers.engine.test_engine import assert_same, calm_model, make_requests

KERNELS, WHY = cpu_kernels.load()
pytestmark = pytest.mark.skipif(KERNELS is None, reason=WHY)
DTYPES = [torch.float32, torch.bfloat16]


def near(got: torch.Tensor, expected: torch.Tensor, dtype: torch.dtype) -> None:
    """Equal within the rounding of the precision (twice, for intermediate rounding)."""
    scale = expected.abs().max().item()
    assert (got.double() - expected).abs().max().item() <= scale * (2e-6 if dtype == torch.float32 else 2**-7)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "rows, outputs, inputs", [(1, 1, 1), (3, 33, 7), (70, 96, 48), (400, 40, 768), (13, 300, 2100), (0, 5, 3)]
)
def test_linear(dtype, rows, outputs, inputs, threads):
    torch.manual_seed(rows)
    x, weight = torch.randn(rows, inputs).to(dtype), torch.randn(outputs, inputs).to(dtype)
    packed = cpu_kernels.pack(weight)
    out = KERNELS.linear(x, packed)
    assert out.shape == (rows, outputs) and out.dtype == dtype
    if rows:
        near(out, x.double() @ weight.double().T, dtype)
    for start, stop in [(0, 1), (rows // 2, rows), (rows - 1, rows), (1, 14)]:
        assert torch.equal(KERNELS.linear(x[start:stop], packed), out[start:stop])
    threads(3)
    assert torch.equal(KERNELS.linear(x, packed), out)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", [96, 6, 90, 102])
def test_rowwise_functions(dtype, width, threads):
    torch.manual_seed(0)
    x, weight = (torch.randn(70, width) * 3).to(dtype), torch.rand(width)
    normed = KERNELS.rms_norm(x, weight, 1e-6)
    near(normed, F.rms_norm(x.double(), (width,), weight.double(), 1e-6), dtype)
    heads, angles = x.view(70, 3, width // 3), torch.randn(70, width // 6)
    turned = KERNELS.rotate(heads, angles.cos(), angles.sin())
    complex_heads = torch.complex(*(half.double() for half in heads.chunk(2, dim=-1))) * torch.polar(
        torch.ones_like(angles).double(), angles.double()
    ).unsqueeze(1)
    near(turned, torch.cat([complex_heads.real, complex_heads.imag], -1), dtype)
    near(KERNELS.rotate(turned, angles.cos(), angles.sin(), back=True), heads.double(), dtype)
    gate, up = (torch.randn(70, width) * 20).to(dtype).split(width // 2, dim=1)
    mixed = KERNELS.silu_mul(gate, up)
    near(mixed, F.silu(gate.double()) * up.double(), dtype)
    threads(3)
    assert torch.equal(KERNELS.rms_norm(x[33:35], weight, 1e-6), normed[33:35])
    assert torch.equal(KERNELS.rotate(heads[33:35], angles[33:35].cos(), angles[33:35].sin()), turned[33:35])
    assert torch.equal(KERNELS.silu_mul(gate[33:35], up[33:35]), mixed[33:35])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", [96, 6, 90])
def test_rowwise_gradients(dtype, width, threads):
    torch.manual_seed(0)
    x, weight = (torch.randn(150, width) * 3).to(dtype), torch.rand(width)
    gate, up = (torch.randn(150, width) * 4).to(dtype).split(width // 2, dim=1)
    grads = [torch.randn(150, size).to(dtype) for size in (width, width // 2)]
    leaves = [tensor.double().requires_grad_() for tensor in (x, weight, gate, up)]
    outputs = [F.rms_norm(leaves[0], (width,), leaves[1], 1e-6), F.silu(leaves[2]) * leaves[3]]
    expected = torch.autograd.grad(outputs, leaves, [grad.double() for grad in grads])
    found = []
    for count in (1, 3):
        threads(count)
        found.append(
            [*KERNELS.rms_norm_gradient(grads[0], x, weight, 1e-6), *KERNELS.silu_mul_gradient(grads[1], gate, up)]
        )
    for one, three, theirs in zip(*found, expected, strict=True):
        near(one, theirs, dtype)
        assert torch.equal(one, three)


def test_silu_of_extreme_values():
    gate = torch.tensor(
        [-3e38, -1e30, -100.0, -88.0, -0.0, 0.0, 1e-30, 88.0, 100.0, 1e30, 3e38, 1.0, -1.0, 20.0, -20.0, 5.0]
    )
    got = KERNELS.silu_mul(gate.view(1, 16), torch.ones(1, 16))
    torch.testing.assert_close(got, F.silu(gate.view(1, 16)), atol=1e-6, rtol=1e-6)
    assert KERNELS.silu_mul(gate.view(1, 16) * math.nan, torch.ones(1, 16)).isnan().all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "dim, heads, kv_heads", [(32, 4, 2), (96, 6, 1), (64, 3, 3), (128, 2, 1), (2, 4, 1), (22, 3, 3), (300, 2, 1)]
)
def test_attention_over_pages(dtype, dim, heads, kv_heads, threads):
    """Rows that share pages (a prompt's samples, a prompt's positions) and rows that do not."""
    torch.manual_seed(dim)
    shape = {"num_attention_heads": heads, "num_key_value_heads": kv_heads}
    config = OuroConfig(hidden_size=heads * dim, head_dim=dim, num_hidden_layers=1, **shape)
    cache = KVCache(config, slots=8, dtype=dtype, device=torch.device("cpu"), pages=4096)
    cache.reshape(320, loops=4, rule=cache.rule)
    table = torch.randint(1, 4096, cache.table.shape)
    table[5:, :, :150] = table[4, :, :150]
    cache.table.copy_(table)
    slots = torch.arange(8).repeat(20)
    contexts = torch.tensor([1, 31, 32, 100, 300, 160, 151, 70]).repeat(20)
    rows = Rows(slots=slots, loops=torch.randint(1, 5, (160,)), positions=contexts - 1, contexts=contexts, samples=160)
    keys, values = (torch.randn(2, *cache.keys[0].shape) * 2).to(dtype)
    q = (torch.randn(164, heads, dim) * 2).to(dtype)
    expected = torch.zeros(164, heads, dim, dtype=torch.float64)
    for row, (slot, loop, context) in enumerate(zip(slots, rows.loops, contexts, strict=True)):
        pages = cache.table[slot, loop - 1, :context]
        k, v = (pool[pages].double().repeat_interleave(heads // kv_heads, 1) for pool in (keys, values))
        weights = (torch.einsum("hd,jhd->hj", q[row].double(), k) * dim**-0.5).softmax(1)
        expected[row] = torch.einsum("hj,jhd->hd", weights, v)
    got = KernelAttention(cache, KERNELS).plan(rows)(q, keys, values, dim**-0.5)
    near(got, expected, dtype)
    assert not got[160:].any()
    for row in (0, 4, 5, 6, 7, 77, 159):
        one = Rows(
            slots=slots[row : row + 1],
            loops=rows.loops[row : row + 1],
            positions=rows.positions[row : row + 1],
            contexts=contexts[row : row + 1],
            samples=1,
        )
        alone = KernelAttention(cache, KERNELS).plan(one)(q[row : row + 1], keys, values, dim**-0.5)
        assert torch.equal(alone[0], got[row]), "not batch-invariant"
    threads(3)
    assert torch.equal(KernelAttention(cache, KERNELS).plan(rows)(q, keys, values, dim**-0.5), got)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "dim, heads, kv_heads", [(32, 4, 2), (64, 3, 3), (96, 2, 1), (2, 4, 1), (22, 3, 3), (300, 2, 1)]
)
def test_attention_gradients(dtype, dim, heads, kv_heads, threads):
    torch.manual_seed(dim)
    table = torch.randint(0, 60, (6, 40))
    table[1:4] = table[0]
    table[4, :20] = table[0, :20]
    table_rows = torch.arange(6).repeat(5)
    contexts = torch.randint(1, 41, (30,))
    q, grad = (torch.randn(30, heads, dim).to(dtype) for _ in range(2))
    keys, values = (torch.randn(60, kv_heads, dim).to(dtype) for _ in range(2))
    leaves = [x.double().requires_grad_() for x in (q, keys, values)]
    mixed = []
    for row in range(30):
        pages = table[table_rows[row], : contexts[row]]
        k, v = (x[pages].repeat_interleave(heads // kv_heads, 1) for x in leaves[1:])
        weights = (torch.einsum("hd,jhd->hj", leaves[0][row], k) * dim**-0.5).softmax(1)
        mixed.append(torch.einsum("hj,jhd->hd", weights, v))
    expected = torch.autograd.grad(torch.stack(mixed), leaves, grad.double())
    rows = KERNELS.plan_rows(table, table_rows, contexts)
    assert rows.count < 30, "no rows share a block: the test would miss that code path"
    got = KERNELS.attend_gradient(grad, q, keys, values, rows, dim**-0.5)
    for ours, theirs in zip(got, expected, strict=True):
        near(ours, theirs, dtype)
    threads(3)
    again = KERNELS.attend_gradient(grad, q, keys, values, rows, dim**-0.5)
    assert all(torch.equal(a, b) for a, b in zip(got, again, strict=True))


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_head_of_any_size_reads_nothing_next_to_it(dtype):
    """The memory there may hold NaN."""
    q, keys, values, grad = (torch.randn(n, 3, 22).to(dtype) for n in (7, 30, 30, 7))
    for tensor in (q, keys, values, grad):
        tensor[:, 1:] = math.nan
    rows = KERNELS.plan_rows(torch.randint(30, (7, 19)), torch.arange(7), torch.randint(1, 20, (7,)))
    found = KERNELS.attend(q, keys, values, rows, 0.2), *KERNELS.attend_gradient(grad, q, keys, values, rows, 0.2)
    for tensor in found:
        assert tensor[:, 0].isfinite().all() and tensor[:, 1].isnan().any()


@pytest.mark.skipif(not has_bf16_products(), reason="oneDNN emulates bf16 here, and is not used")
def test_onednn_products_in_tiles_are_batch_invariant():
    """The products of CPUs with AMX; oneDNN has those of AVX512-BF16 as well."""
    torch.manual_seed(0)
    x, weight = torch.randn(150, 96).bfloat16(), torch.randn(40, 96).bfloat16()
    with torch.inference_mode():
        product = onednn_product(weight, tile=64)
        out = product(x)
        near(out, x.double() @ weight.double().T, torch.bfloat16)
        assert torch.equal(product(x[70:75]), out[70:75])
        near(onednn_product(weight, tile=None)(x), x.double() @ weight.double().T, torch.bfloat16)
        assert onednn_product(weight, tile=64)(x[:0]).shape == (0, 40)


def small(dtype: torch.dtype = torch.float32) -> OuroForCausalLM:
    torch.manual_seed(1)
    sizes = dict(hidden_size=64, intermediate_size=96, head_dim=32, vocab_size=41, total_ut_steps=3)
    config = OuroConfig(**sizes, num_attention_heads=2, num_key_value_heads=1, num_hidden_layers=2)
    return OuroForCausalLM(config).to(dtype)


def test_operations_by_kernels_have_the_gradients_of_torch():
    """Each operation of a layer: values, and gradients of inputs and weights, in fp32."""
    model = small()
    layer, ops = model.model.layers[0], KernelOps(KERNELS, batch_invariant=True)
    torch.manual_seed(0)
    attention = layer.self_attn
    positions = torch.arange(10)
    results = []
    for way in (ops, TORCH_OPS):
        model.zero_grad()
        x = torch.randn(10, 64, generator=torch.Generator().manual_seed(0), requires_grad=True)
        rope = model.model.rotary_emb(positions, torch.float32, way)
        q, k, v = attention.project(layer.input_layernorm(x, way), rope, way)
        out = (
            layer.mlp(x, way).sum() + (q.flatten(1).tanh().sum(1) * k.flatten(1).tanh().sum(1)).sum() + v.square().sum()
        )
        out = out + way.product(x, model.lm_head.weight).square().mean()
        out.backward()
        results.append([out.detach(), x.grad, *(p.grad for p in model.parameters() if p.grad is not None)])
    assert len(results[0]) == len(results[1]) > 8
    for kernel, plain in zip(*results, strict=True):
        torch.testing.assert_close(kernel, plain, atol=2e-4, rtol=1e-4)


def test_weights_are_packed_again_when_they_change():
    model, x = small(), torch.randn(5, 64)
    ops, head = KernelOps(KERNELS, batch_invariant=True), model.lm_head
    with torch.no_grad():
        before = ops.product(x, head.weight)
        assert torch.equal(ops.product(x, head.weight), before)
        head.weight.mul_(2)
        torch.testing.assert_close(ops.product(x, head.weight), 2 * before)
    with torch.inference_mode():
        head.weight.copy_(head.weight / 2)
        torch.testing.assert_close(ops.product(x, head.weight), before)
    head.weight.data = torch.zeros_like(head.weight)
    with torch.no_grad():
        assert not ops.product(x, head.weight).any()


def test_weights_are_packed_again_after_a_fused_optimizer():
    """Fused optimizers change weights without a new `_version`."""
    model, x = small(), torch.randn(5, 64)
    ops, head = KernelOps(KERNELS, batch_invariant=True), model.lm_head
    before = ops.product(x, head.weight)
    before.square().mean().backward()
    torch.optim.AdamW([head.weight], lr=0.1, fused=True).step()
    after = ops.product(x, head.weight)
    assert not torch.equal(after, before)
    torch.testing.assert_close(after, F.linear(x, head.weight))


def test_packed_weights_are_freed_with_their_weights():
    """And a tensor that reuses a freed tensor's id is not mistaken for it."""
    ops, x = KernelOps(KERNELS, batch_invariant=True), torch.randn(5, 64)
    with torch.no_grad():
        for _ in range(5):
            weight, other = (torch.nn.Parameter(torch.randn(32, 64)) for _ in range(2))
            torch.testing.assert_close(ops.product(x, weight), x @ weight.T, atol=1e-5, rtol=1e-5)
            assert len(ops._kept) == 1
            ops._kept[torch.float32, id(other)] = ops._kept[torch.float32, id(weight)]
            torch.testing.assert_close(ops.product(x, other), x @ other.T, atol=1e-5, rtol=1e-5)
            del weight, other
            assert not ops._kept


def test_a_model_that_has_packed_weights_can_be_copied():
    model, ids = small(), torch.arange(12).view(2, 6)
    expected = model(input_ids=ids, depths=torch.full((2, 6), 2)).logits
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(other(input_ids=ids, depths=torch.full((2, 6), 2)).logits, expected)
        with torch.no_grad():
            other.lm_head.weight.zero_()
        assert not other(input_ids=ids, depths=torch.full((2, 6), 2)).logits.any()
    assert torch.equal(model(input_ids=ids, depths=torch.full((2, 6), 2)).logits, expected)


def test_gradient_of_the_activation_is_rounded_once():
    """In bf16, the gradient of silu is as close to fp64 as torch's own."""
    torch.manual_seed(0)
    ops = KernelOps(KERNELS, batch_invariant=True)
    gate, up, grad = (torch.randn(64, 96) * 3 for _ in range(3))
    halves = [x.bfloat16().requires_grad_() for x in (gate, up)]
    ops.activate(*halves).backward(grad.bfloat16())
    wide = [x.detach().double().requires_grad_() for x in halves]
    (F.silu(wide[0]) * wide[1]).backward(grad.bfloat16().double())
    for half, exact in zip(halves, wide, strict=True):
        error = (half.grad.double() - exact.grad).abs() / exact.grad.abs().clamp(min=1e-3)
        assert error.max() < 2.2 * 2**-8


def test_without_a_compiler_plain_torch_is_used(monkeypatch):
    requests, params = make_requests([5, 40]), SamplingParams(max_new_tokens=12)
    try:
        with monkeypatch.context() as bare:
            bare.setattr("shutil.which", lambda name: None)
            bare.delenv(cpu_kernels.SWITCH, raising=False)
            library.cache_clear(), cpu_kernels.load.cache_clear()
            model = calm_model(12, hidden=64)
            engine = RolloutEngine(model, EngineConfig(max_batch=4))
            assert "no C compiler" in engine.forward.description
            plain = engine.generate(requests, params)
    finally:
        library.cache_clear(), cpu_kernels.load.cache_clear()  # later tests select the kernels again
    again = RolloutEngine(calm_model(12, hidden=64), EngineConfig(max_batch=4)).generate(requests, params)
    assert_same(plain, again, rounding(model))
