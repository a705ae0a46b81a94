"""All layers of a model in one call to the C library."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ouro_rl.kernels.cpu.ctypes_calls import Layer, PagedRows, is_half, made, numbers_of_product, pointers, threads_for
from ouro_rl.kernels.interface import LayerWeights

if TYPE_CHECKING:
    from ouro_rl.kernels.cpu.packing import PackedWeights


class NativeStack:
    """`ouro_rl.kernels.interface.Stack` by layer_stack.c. Norm weights are fp32, see `kernels.rounded`."""

    def __init__(
        self,
        function: Callable[..., int],
        layers: Sequence[LayerWeights],
        norm: Tensor,
        eps: float,
        *,
        heads: int,
        scaling: float,
    ):
        self.function, self.weights, self.norm, self.eps = function, layers, norm, eps
        self.heads, self.scaling = heads, scaling
        self.layers = (Layer * len(layers))()
        for layer, weights in zip(self.layers, layers, strict=True):
            layer.qkv, layer.out, layer.gate_up, layer.down = pointers(
                *(matrix.panels for matrix in packed_of(weights))
            )
            layer.norm_1, layer.norm_2, layer.norm_3, layer.norm_4 = pointers(*weights.norms)
        matrices = packed_of(layers[0])
        self.middle = matrices[-1].inputs
        self.numbers = sum(matrix.inputs * matrix.outputs for matrix in matrices) // len(matrices)
        """Mean number of weights per matrix."""

    def __call__(
        self,
        states: Tensor,
        rope: tuple[Tensor, Tensor],
        pages: Tensor,
        rows: PagedRows,
        keys: Sequence[Tensor],
        values: Sequence[Tensor],
    ) -> Tensor:
        states = states.clone(memory_format=torch.contiguous_format)
        n, hidden = states.shape
        _, kv_heads, dim = keys[0].shape
        assert n == len(pages) == len(rows.table_rows) and pages.dtype == torch.int64 and states.dtype == keys[0].dtype
        for layer, key_pool, value_pool in zip(self.layers, keys, values, strict=True):
            layer.keys, layer.values = pointers(key_pool, value_pool)
        failed = self.function(
            states.data_ptr(),
            self.layers,
            len(self.layers),
            *pointers(self.norm, pages, *rope),
            ctypes.byref(rows.attention(self.heads, kv_heads, dim, self.scaling)),
            n,
            hidden,
            self.middle,
            self.eps,
            is_half(states),
            threads_for(max(numbers_of_product(n, self.numbers), rows.pages_read * self.heads * dim)),
        )
        return made(states, failed)


def packed_of(weights: LayerWeights) -> list[PackedWeights]:
    """The packed matrices of a layer, in the order of the forward pass."""
    return [product.packed for product in (weights.qkv, weights.out, weights.gate_up, weights.down)]
