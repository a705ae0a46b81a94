"""Triton kernels for CUDA devices, shared by the rollout workers and the trainer's replay, as `ouro_rl.kernels.cpu.select` is on the CPU."""

from __future__ import annotations

import os

import torch

from ouro_rl.kernels.interface import SWITCH, RowKernels

DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def choose(
    device: torch.device, dtype: torch.dtype, *, heads: int, kv_heads: int, head_dim: int
) -> tuple[RowKernels | None, str]:
    """(the kernels or None, one line that says what runs and why), for tensors of this device and type. Compiles and tries them."""
    if os.environ.get(SWITCH) == "torch":
        return None, f"plain torch ({SWITCH}=torch)"
    if dtype not in DTYPES:
        return None, f"plain torch (no Triton kernels for {dtype})"
    try:
        from ouro_rl.kernels.gpu.kernels import TritonKernels
        from ouro_rl.kernels.gpu.self_test import check, widen

        kernels = TritonKernels(sharing=heads // kv_heads)
        check(kernels, device, dtype, heads=heads, kv_heads=kv_heads, head_dim=head_dim)
        of_wide = widen(kernels, device, dtype)
    except (
        Exception
    ) as error:  # of the import, of a compiler that is missing, of a driver that does not fit: Triton has many
        why = str(error).strip().split("\n")[0]
        return None, f"plain torch (no Triton: {type(error).__name__}: {why})"
    return kernels, f"Triton kernels{of_wide}"
