"""The Triton attention without a GPU: interpreted against fp64, and compiled for one."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from rollout_workers.attention import TorchAttention, TritonAttention, choose_attention
from rollout_workers.kv_cache import KVCache
from tests.models import random_model

needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None,
    reason="triton is not installed (it comes with torch's CUDA builds): the GPU's attention kernel is NOT tested here",
)


def run_cases(name, **environment):
    done = subprocess.run(
        [sys.executable, "-m", "tests.triton_cases", name], cwd=Path(__file__).parent.parent, capture_output=True,
        text=True, env={**os.environ, "OMP_NUM_THREADS": "1", **environment}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@needs_triton
def test_agrees_with_fp64_in_the_interpreter():
    """Grouped heads, dims that are no power of two, contexts at and across the blocks' edges, fp32, fp16 and bf16; the same bits in
    other company."""
    run_cases("interpret", TRITON_INTERPRET="1")


@needs_triton
def test_serves_the_engine_in_the_interpreter():
    run_cases("engine", TRITON_INTERPRET="1")


@needs_triton
def test_compiles_for_a_gpu(tmp_path):
    """To machine code of compute capability 9.0 (H100, H200), with little shared memory."""
    run_cases("compile", TRITON_INTERPRET="0", TRITON_CACHE_DIR=str(tmp_path))


def test_the_choice_says_what_runs(monkeypatch):
    model = random_model()
    config = model.config
    cache = KVCache(config, slots=2, dtype=torch.float32, device=torch.device("cpu"), pages=4)
    ops, _ = model.model.row_ops(torch.float32)
    chosen, words = choose_attention(cache, ops, config.num_attention_heads)
    assert not isinstance(chosen, TritonAttention) and words is None  # the CPU's own line says all

    monkeypatch.setattr(cache, "table", SimpleNamespace(device=torch.device("cuda")))
    monkeypatch.setitem(sys.modules, "triton", None)  # as if it were not installed
    monkeypatch.delitem(sys.modules, "rollout_workers.triton_attention", raising=False)
    chosen, words = choose_attention(cache, ops, config.num_attention_heads)
    assert isinstance(chosen, TorchAttention) and chosen.asks_the_host and "plain torch (no Triton" in words

    def lacks_a_compiler(*_):
        raise RuntimeError("Failed to find C compiler\nand more")

    monkeypatch.setitem(sys.modules, "rollout_workers.triton_attention", SimpleNamespace(attend_rows=lacks_a_compiler))
    chosen, words = choose_attention(cache, ops, config.num_attention_heads)
    assert isinstance(chosen, TorchAttention)
    assert words == "attention in plain torch (no Triton: RuntimeError: Failed to find C compiler)"

    def gives_nonsense(q, *_):
        return 2 * q

    monkeypatch.setitem(sys.modules, "rollout_workers.triton_attention", SimpleNamespace(attend_rows=gives_nonsense))
    assert "results are wrong" in choose_attention(cache, ops, config.num_attention_heads)[1]

    def works(q, *_):
        return q

    monkeypatch.setitem(sys.modules, "rollout_workers.triton_attention", SimpleNamespace(attend_rows=works))
    chosen, words = choose_attention(cache, ops, config.num_attention_heads)
    assert isinstance(chosen, TritonAttention) and words == "attention by a Triton kernel"
