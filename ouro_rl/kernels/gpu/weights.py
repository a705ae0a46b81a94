"""Weights as a GPU's products read them: as they lie, or in a copy that stays where it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ouro_rl.kernels.interface import Product


def product_by(
    multiply: Callable[[Tensor, Tensor], Tensor], weights: Sequence[Tensor], dtype: torch.dtype, old: Product | None
) -> Product:
    """`multiply` (x [n, K], matrix [N, K]) by the matrices [N_i, K], one below the other, in this precision.

    One matrix of this precision is read where it lies. Anything else is a copy, which costs memory and is written over when the
    weights have changed: a CUDA graph that was captured with `old` reads the new ones then."""
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
    with torch.inference_mode(False):  # else nobody could write to it outside of inference
        return torch.empty(shape, dtype=dtype, device=device)
