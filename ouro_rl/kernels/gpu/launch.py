"""Launching kernels such that results do not depend on the memory alignment of their inputs."""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from torch import Tensor

ALIGNMENT = 16
"""Bytes. For other addresses Triton compiles another version of a kernel, which may sum in another order."""


def ready(x: Tensor, *, dense: bool = True) -> Tensor:
    """`x` aligned as kernels expect it, and contiguous if `dense`; a copy if necessary."""
    x = x.contiguous() if dense else x
    return x.clone() if x.data_ptr() % ALIGNMENT else x


def launch(kernel: Any, grid: tuple[int, ...], first: Tensor, *arguments: Any, **sizes: Any) -> None:
    """Launch `kernel` on the device of `first`, which need not be the current one. An empty grid does nothing."""
    if 0 in grid:
        return
    with torch.cuda.device(first.device) if first.is_cuda else contextlib.nullcontext():
        kernel[grid](first, *arguments, **sizes)
