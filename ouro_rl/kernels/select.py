"""Selects what computes a model's rows: kernels for its device, or plain torch, with the reason."""

from __future__ import annotations

import torch
from transformers import PreTrainedConfig
from transformers.activations import ACT2FN

from ouro_rl.kernels.cpu import select as cpu_kernels
from ouro_rl.kernels.gpu import select as gpu_kernels
from ouro_rl.kernels.interface import RowKernels
from ouro_rl.kernels.ops import TORCH_OPS, KernelOps, Ops, TorchOps


def torch_ops(config: PreTrainedConfig) -> TorchOps:
    """Plain torch operations with the activation of this config."""
    return TORCH_OPS if config.hidden_act == "silu" else TorchOps(ACT2FN[config.hidden_act])


def choose_ops(
    config: PreTrainedConfig, device: torch.device, dtype: torch.dtype, *, batch_invariant: bool
) -> tuple[Ops, str]:
    """The operations for rows [n, hidden] of a model on this device in this precision, and a one-line reason.

    `batch_invariant`: batch-invariant products (see `KernelOps`)."""
    plain = torch_ops(config)
    if config.hidden_act != "silu":
        return plain, f"plain torch (no kernel for the activation {config.hidden_act})"
    kernels: RowKernels | None
    if device.type != "cuda":
        kernels, why = cpu_kernels.choose(device, dtype)
    else:
        kernels, why = gpu_kernels.choose(
            device,
            dtype,
            heads=config.num_attention_heads,
            kv_heads=config.num_key_value_heads,
            head_dim=config.head_dim,
        )
        if kernels is not None and not batch_invariant:
            why = f"{why}, products by cuBLAS"
    return (plain if kernels is None else KernelOps(kernels, batch_invariant=batch_invariant)), why
