"""Selects the Triton kernels for CUDA devices, which rollout workers and the trainer's replay share."""

from __future__ import annotations

import os

import torch

from ouro_rl.core.errors import first_line
from ouro_rl.kernels.interface import SWITCH, RowKernels

DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def choose(
    device: torch.device, dtype: torch.dtype, *, heads: int, kv_heads: int, head_dim: int
) -> tuple[RowKernels | None, str]:
    """(the kernels or None, a one-line reason), for tensors of this device and precision. Runs the self-test."""
    if os.environ.get(SWITCH) == "torch":
        return None, f"plain torch ({SWITCH}=torch)"
    if dtype not in DTYPES:
        return None, f"plain torch (no Triton kernels for {dtype})"
    try:
        from ouro_rl.kernels.gpu.kernels import TritonKernels
        from ouro_rl.kernels.gpu.self_test import check, widen

        kernels = TritonKernels(sharing=heads // kv_heads)
        check(kernels, device, dtype, heads=heads, kv_heads=kv_heads, head_dim=head_dim)
        note = widen(kernels, device, dtype)
    except Exception as error:  # Triton raises many kinds: failed import, no compiler, unsuitable driver
        return None, f"plain torch (no Triton: {type(error).__name__}: {first_line(error)})"
    return kernels, f"Triton kernels{note}"
