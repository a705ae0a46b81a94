"""The Triton kernels without a GPU: interpreted (against fp64 and the C kernels, and in a whole model) and compiled."""

import importlib.util
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from ouro_rl.kernels.gpu import attention_gradient
from ouro_rl.kernels.gpu import select as gpu_kernels
from ouro_rl.kernels.ops import TORCH_OPS, KernelOps
from ouro_rl.kernels.select import choose_ops
from ouro_rl.model.configuration_ouro import OuroConfig
from ouro_rl.model.modeling_ouro import OuroForCausalLM
from rollout_workers.engine.attention import KernelAttention, TorchAttention, choose_attention
from tests.references.places import REPOSITORY

needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None,
    reason="triton is not installed (on Linux: pip install triton): the GPU kernels are NOT tested here",
)

ROW_BY_ROW = "Nehalem"
"""Triton's interpreter multiplies with NumPy's OpenBLAS, whose kernels for Haswell and Zen give a row of a product
other last bits at another position, as no GPU does. These do not, and run on every x86-64 processor."""


def run_cases(names, **environment):
    done = subprocess.run(
        [sys.executable, "-m", "tests.references.triton_cases", *names.split()],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_CORETYPE": ROW_BY_ROW, **environment},
        check=False,
    )
    assert done.returncode == 0, done.stderr


@needs_triton
@pytest.mark.parametrize("cases", ["products rows attend plan_of_samples", "self_test exact training", "probes"])
def test_kernels_in_the_interpreter(cases):
    """Runs the functions of these names in tests/references/triton_cases.py and tests/references/triton_models.py."""
    run_cases(cases, TRITON_INTERPRET="1")


@needs_triton
def test_kernels_compile_for_a_gpu(tmp_path):
    """Machine code for compute capability 9.0 (H100, H200); see tests/references/triton_compiled.py."""
    run_cases("compiled one_binary", TRITON_INTERPRET="0", TRITON_CACHE_DIR=str(tmp_path))


def test_selection_gives_its_reason(monkeypatch):
    """On a CUDA device whose kernels are unavailable or do not work: plain torch, and why."""
    monkeypatch.delenv("OURO_RL_KERNELS", raising=False)
    sizes = {"heads": 4, "kv_heads": 2, "head_dim": 32}

    def chosen(dtype=torch.bfloat16):
        return gpu_kernels.choose(torch.device("cpu"), dtype, **sizes)

    with monkeypatch.context() as without:
        without.setitem(sys.modules, "triton", None)  # as if it were not installed
        for name in [name for name in sys.modules if name.startswith("ouro_rl.kernels.gpu.select.")]:
            without.delitem(sys.modules, name)
        kernels, why = chosen()
        assert kernels is None and "plain torch (no Triton: ModuleNotFoundError" in why
    assert chosen(torch.float64) == (None, "plain torch (no Triton kernels for torch.float64)")

    class Broken:
        def __init__(self, sharing):
            assert sharing == 2

        def product(self, *_, **__):
            raise RuntimeError("Failed to find C compiler\nand more")

    monkeypatch.setitem(sys.modules, "ouro_rl.kernels.gpu.kernels", SimpleNamespace(TritonKernels=Broken))
    assert chosen() == (None, "plain torch (no Triton: RuntimeError: Failed to find C compiler)")
    monkeypatch.setattr(Broken, "product", lambda *_, **__: lambda x: x.new_zeros(len(x), 288))
    assert chosen() == (None, "plain torch (no Triton: RuntimeError: wrong results (product))")
    monkeypatch.setenv("OURO_RL_KERNELS", "torch")
    assert chosen() == (None, "plain torch (OURO_RL_KERNELS=torch)")


def test_a_model_uses_the_kernels_of_its_device(monkeypatch):
    """And the attention that belongs to them: in plain torch it reads lengths on the host."""
    config = OuroConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=11,
    )
    fake, cache = SimpleNamespace(needs_host_sync=False), SimpleNamespace(keys=[torch.empty(1, 2, 8)])
    given = {}
    model = OuroForCausalLM(config).model
    assert model.row_ops(torch.float32)[0] is model.row_ops(torch.float32)[0], (
        "it keeps packed weights, so it must be the same object"
    )

    def choose(device, dtype, **sizes):
        given.update(sizes)
        return fake, "Triton kernels"

    monkeypatch.setattr(gpu_kernels, "choose", choose)
    for exact, words in [(True, "Triton kernels"), (False, "Triton kernels, products by cuBLAS")]:
        ops, why = choose_ops(config, torch.device("cuda"), torch.bfloat16, batch_invariant=exact)
        assert isinstance(ops, KernelOps) and ops.kernels is fake and ops.batch_invariant == exact and why == words
    assert given == {"heads": 4, "kv_heads": 2, "head_dim": 8}
    attention = choose_attention(cache, ops, 4)
    assert isinstance(attention, KernelAttention) and not attention.needs_host_sync
    attention = choose_attention(cache, TORCH_OPS, 4)
    assert isinstance(attention, TorchAttention) and attention.needs_host_sync


@pytest.mark.parametrize("chunk", [1 << 24, 700, 1])
@pytest.mark.parametrize("heads, kv_heads", [(4, 2), (3, 3), (2, 1)])
def test_gradients_of_attention(heads, kv_heads, chunk, monkeypatch):
    """Against autograd in fp64, in any number of parts: shared pages, rows in any order, rows that read no pages."""
    monkeypatch.setattr(attention_gradient, "CHUNK_NUMBERS", chunk)
    torch.manual_seed(heads)
    table, scaling = torch.randint(0, 60, (7, 90)), 0.3
    table[1:4], table[4, :20] = table[0].clone(), table[0, :20].clone()
    table_rows, contexts = torch.randint(0, 6, (30,)), torch.randint(1, 41, (30,))
    contexts[table_rows == 5] = 90
    q, keys, values = torch.randn(30, heads, 24), torch.randn(60, kv_heads, 24), torch.randn(60, kv_heads, 24)
    grad, leaves, mixed = torch.randn(30, heads, 24), [x.double().requires_grad_() for x in (q, keys, values)], []
    for row in range(30):
        pages = table[table_rows[row], : contexts[row]]
        k, v = (x[pages].repeat_interleave(heads // kv_heads, 1) for x in leaves[1:])
        weights = (torch.einsum("hd,jhd->hj", leaves[0][row], k) * scaling).softmax(1)
        mixed.append(torch.einsum("hj,jhd->hd", weights, v))
    expected = torch.autograd.grad(torch.stack(mixed), leaves, grad.double())
    parts = attention_gradient.lay_out_parts(table, table_rows, contexts)
    assert len(parts) > 1 and sum(len(part.present) for part in parts) == 30
    got = attention_gradient.attend_gradient(grad, q, keys, values, parts, scaling)
    for ours, theirs in zip(got, expected, strict=True):
        torch.testing.assert_close(ours.double(), theirs, atol=3e-6, rtol=1e-5)
    halves = attention_gradient.attend_gradient(*(x.bfloat16() for x in (grad, q, keys, values)), parts, scaling)
    for ours, theirs in zip(halves, expected, strict=True):
        assert ours.dtype == torch.bfloat16 and (ours - theirs).norm() <= 0.02 * theirs.norm()
    none = attention_gradient.lay_out_parts(table, table_rows, contexts * 0)
    assert not any(x.any() for x in attention_gradient.attend_gradient(grad, q, keys, values, none, scaling))
    assert attention_gradient.lay_out_parts(table, table_rows[:0], contexts[:0]) == []


def test_rows_that_share_no_pages_are_gathered_in_bounded_parts():
    table, count = torch.arange(300).repeat(2000, 1), 2000  # as probe rows have
    parts = attention_gradient.lay_out_parts(table, torch.arange(count), torch.full((count,), 300))
    most = attention_gradient.CHUNK_NUMBERS // attention_gradient.LEAST_ROWS
    assert len(parts) > 1 and all(part.pages.numel() <= most for part in parts)
