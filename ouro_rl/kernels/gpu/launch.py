"""How kernels are launched, so that a row's bits do not depend on where its numbers lie."""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from torch import Tensor

ALIGNMENT = 16
"""Bytes. Triton compiles a kernel once more for addresses that are no multiple of it, and may add in another order there."""


def ready(x: Tensor, *, dense: bool = True) -> Tensor:
    """`x` (contiguous, if it is to be dense) where a kernel expects it; copied where it lies elsewhere."""
    x = x.contiguous() if dense else x
    return x.clone() if x.data_ptr() % ALIGNMENT else x


def launch(kernel: Any, grid: tuple[int, ...], first: Tensor, *arguments: Any, **sizes: Any) -> None:
    """`kernel` on the device of `first`, which need not be the current one. Nothing for an empty grid."""
    if 0 in grid:
        return
    with torch.cuda.device(first.device) if first.is_cuda else contextlib.nullcontext():
        kernel[grid](first, *arguments, **sizes)
