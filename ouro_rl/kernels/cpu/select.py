"""Loads the C kernels for the CPU, which rollout workers and the trainer's replay share: same code, same bits."""

from __future__ import annotations

import functools

import torch

from ouro_rl.kernels.cpu.build import library
from ouro_rl.kernels.cpu.kernels import Kernels, onednn_product
from ouro_rl.kernels.cpu.packing import pack
from ouro_rl.kernels.interface import SWITCH
from ouro_rl.kernels.processor import has_amx

__all__ = ["SWITCH", "Kernels", "choose", "has_amx", "load", "onednn_product", "pack"]


@functools.cache
def load() -> tuple[Kernels | None, str]:
    """(the kernels or None, a one-line reason)."""
    found, description = library()
    if found is None:
        return None, description
    try:
        return Kernels(found), description
    except AttributeError as error:
        return None, f"plain torch (the C kernels are incomplete: {error})"


def choose(device: torch.device, dtype: torch.dtype) -> tuple[Kernels | None, str]:
    """Like `load`, for tensors of this device and precision."""
    kernels, description = load()
    if kernels is None:
        return None, description
    if device.type != "cpu" or dtype not in (torch.float32, torch.bfloat16):
        return None, f"plain torch (no C kernels for {dtype} on {device.type})"
    if dtype == torch.bfloat16 and has_amx():
        return kernels, f"{description}, products by oneDNN"
    return kernels, description
