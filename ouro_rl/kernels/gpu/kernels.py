"""The Triton kernels as `ouro_rl.kernels.interface.RowKernels`. Importing this module requires `triton`.

For CUDA tensors in fp32, fp16 or bf16, or for any tensors in Triton's interpreter.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ouro_rl.kernels.gpu import attention, attention_gradient, linear, rowwise
from ouro_rl.kernels.gpu.weights import product_by
from ouro_rl.kernels.interface import Product


class TritonKernels:
    """Kernels for models in which `sharing` query heads share one KV head."""

    needs_host_sync = False

    def __init__(self, sharing: int):
        self.sharing = sharing
        self.wide = False
        """Whether batch-invariant products of many rows use large tiles; see `self_test.widen`."""

    def product(
        self, weights: Sequence[Tensor], dtype: torch.dtype, *, batch_invariant: bool, old: Product | None = None
    ) -> Product:
        """See `RowKernels`. In tiles of fixed sizes if `batch_invariant`, otherwise by torch (cuBLAS)."""
        return product_by(partial(linear.linear, wide=self.wide) if batch_invariant else F.linear, weights, dtype, old)

    rms_norm = staticmethod(rowwise.rms_norm)
    rms_norm_gradient = staticmethod(rowwise.rms_norm_gradient)
    rotate = staticmethod(rowwise.rotate)
    silu_mul = staticmethod(rowwise.silu_mul)
    silu_mul_gradient = staticmethod(rowwise.silu_mul_gradient)

    def plan_rows(
        self, table: Tensor, table_rows: Tensor, contexts: Tensor, *, unshared: int = 0
    ) -> attention.PagedTiles:
        """See `RowKernels`. Consecutive rows of one block-table row share tiles, except for the first `unshared`."""
        return attention.tile_rows(table, table_rows, contexts, self.sharing, unshared)

    attend = staticmethod(attention.attend)

    def stack(self, *_: Any, **__: Any) -> None:
        """None: a CUDA graph already makes a forward pass a single launch."""

    def attend_gradient(
        self, grad: Tensor, q: Tensor, keys: Tensor, values: Tensor, rows: attention.PagedTiles, scaling: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        return attention_gradient.attend_gradient(grad, q, keys, values, rows.parts, scaling)
