"""Weights as a GPU's products read them: the tensor itself, or a copy at a fixed address."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ouro_rl.kernels.interface import Product


def product_by(
    multiply: Callable[[Tensor, Tensor], Tensor], weights: Sequence[Tensor], dtype: torch.dtype, old: Product | None
) -> Product:
    """`multiply` (x [n, K], matrix [N, K]) by the matrices [N_i, K], concatenated along N, in this precision.

    A single matrix of this precision is read in place. Anything else is copied, which costs memory; the copy of `old`
    is overwritten when the weights have changed, so that a CUDA graph captured with `old` reads the new weights."""
    first = weights[0].detach()
    if len(weights) == 1 and first.dtype == dtype and first.is_contiguous():
        return Product(multiply=lambda x: multiply(x, first))
    matrix = _room(weights, dtype, old)
    with torch.no_grad():
        for part, weight in zip(matrix.split([len(weight) for weight in weights]), weights, strict=True):
            part.copy_(weight)
    return Product(multiply=lambda x: multiply(x, matrix), copy=matrix)


def _room(weights: Sequence[Tensor], dtype: torch.dtype, old: Product | None) -> Tensor:
    shape, device = (sum(map(len, weights)), weights[0].shape[1]), weights[0].device
    room = None if old is None else old.copy
    if room is not None and (room.shape, room.device) == (shape, device):
        return room
    with torch.inference_mode(False):  # an inference tensor could not be written outside of inference mode
        return torch.empty(shape, dtype=dtype, device=device)
