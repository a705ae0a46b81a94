"""The Triton kernels as `ouro_rl.kernels.interface.RowKernels` has them. Importing this needs `triton`.

On CUDA tensors in fp32, fp16 or bf16; on any tensors where Triton interprets. `plan_rows`, `attend` and `attend_gradient` go together.
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
    """For models in which `sharing` heads read one key-value head."""

    asks_the_host = False

    def __init__(self, sharing: int):
        self.sharing = sharing
        self.wide = False
        """Whether exact products of many rows take large tiles: see `self_test.widen`."""

    def product(
        self, weights: Sequence[Tensor], dtype: torch.dtype, *, exact: bool, old: Product | None = None
    ) -> Product:
        """In tiles of fixed sizes if `exact`, else by torch (cuBLAS)."""
        return product_by(partial(linear.linear, wide=self.wide) if exact else F.linear, weights, dtype, old)

    rms_norm = staticmethod(rowwise.rms_norm)
    rms_norm_gradient = staticmethod(rowwise.rms_norm_gradient)
    rotate = staticmethod(rowwise.rotate)
    silu_mul = staticmethod(rowwise.silu_mul)
    silu_mul_gradient = staticmethod(rowwise.silu_mul_gradient)

    def plan_rows(self, table: Tensor, lines: Tensor, contexts: Tensor, *, apart: int = 0) -> attention.PagedTiles:
        """Consecutive rows of one line go together, but for the first `apart`."""
        return attention.tile_rows(table, lines, contexts, self.sharing, apart)

    attend = staticmethod(attention.attend)

    def stack(self, *_: Any, **__: Any) -> None:
        """None: a CUDA graph makes one launch of a pass."""

    def attend_gradient(
        self, grad: Tensor, q: Tensor, keys: Tensor, values: Tensor, rows: attention.PagedTiles, scaling: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        return attention_gradient.attend_gradient(grad, q, keys, values, rows.parts, scaling)
