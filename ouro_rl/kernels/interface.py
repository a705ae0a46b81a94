"""What kernels for single rows offer, whoever computes them: `ouro_rl.kernels.cpu.select` on the CPU, `ouro_rl.kernels.gpu.select` on CUDA devices.

All compute every row by itself: a row's result is the same to the bit whatever its company, and a rollout worker (any batch) and the
trainer's replay (another batch) get the same bits from the same inputs on the same kind of device. Sums are in fp32.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

SWITCH = "OURO_RL_KERNELS"
"""Environment variable: `torch` keeps to plain torch."""


@dataclass(frozen=True, kw_only=True)
class Product:
    """x [n, K] -> [n, N] by matrices of which it may keep copies."""

    multiply: Callable[[Tensor], Tensor]
    copy: Tensor | None = None
    """What it reads in place of the matrices, if that is to be overwritten where it lies: a CUDA graph knows its address."""
    packed: Any = None
    """What a stack of these kernels reads in place of the matrices; None where no stack can have this product in it."""

    def __call__(self, x: Tensor) -> Tensor:
        return self.multiply(x)


@dataclass(frozen=True, kw_only=True)
class LayerWeights:
    """Of one layer: the products by its matrices, and its norms' weights in the order in which a row meets them."""

    qkv: Product
    out: Product
    gate_up: Product
    down: Product
    norms: tuple[Tensor, ...]
    """Four."""


class Stack(Protocol):
    """All layers and the norm behind them, in one call that gives the bits of the single ones."""

    def __call__(
        self,
        states: Tensor,
        rope: tuple[Tensor, Tensor],
        pages: Tensor,
        rows: Any,
        keys: Sequence[Tensor],
        values: Sequence[Tensor],
    ) -> Tensor:
        """states [n, hidden] -> [n, hidden]. Row r is turned by the angles cos and sin [n, dim / 2], writes page pages[r] of each layer's
        keys and values [pages, kv heads, dim], and then reads what `plan_rows` has said of it."""


class RowKernels(Protocol):
    asks_the_host: bool
    """Whether `plan_rows` looks at numbers of the device even where all rows are apart: then no CUDA graph can have it in it."""

    def product(self, weights: Sequence[Tensor], dtype: torch.dtype, *, exact: bool, old: Product | None) -> Product:
        """By these matrices [N_i, K], one below the other, in this precision. `old`: what this gave for the same ones before they
        changed. With `exact` no row of a product depends on its company."""

    def rms_norm(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        """x [..., width] / rms * weight [width]; the weight of any precision is rounded to that of x first, and in half precision the
        normed row is rounded before it is weighted, as the published model does."""

    def rms_norm_gradient(self, grad: Tensor, x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
        """Gradients of x and of the weight (fp32 [width]) from that of what `rms_norm` gave."""

    def rotate(self, x: Tensor, cosines: Tensor, sines: Tensor, *, back: bool = False) -> Tensor:
        """Rotary embedding of x [rows, heads, dim]; angles fp32 [rows, dim / 2]. `back`: by their negatives."""

    def silu_mul(self, gate: Tensor, up: Tensor) -> Tensor:
        """silu(gate) * up, [rows, width] both."""

    def silu_mul_gradient(self, grad: Tensor, gate: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
        """Gradients of gate and up from that of what `silu_mul` gave."""

    def plan_rows(self, table: Tensor, lines: Tensor, contexts: Tensor, *, apart: int = 0) -> Any:
        """What an attention over n rows has in common in all layers: row r reads the first contexts[r] of the pages that
        table[lines[r]] names. `table` int64 [..., width], whose leading axes together are the lines; `lines` and `contexts` int64 [n].
        The first `apart` rows are known to be the only ones of their lines."""

    def attend(self, q: Tensor, keys: Tensor, values: Tensor, rows: Any, scaling: float) -> Tensor:
        """Row r of q [n or more, heads, dim] over its pages of keys and values [pages, kv heads, dim]. Rows beyond n give zeros."""

    def stack(
        self,
        layers: Sequence[LayerWeights],
        norm: Tensor,
        eps: float,
        dtype: torch.dtype,
        *,
        heads: int,
        scaling: float,
    ) -> Stack | None:
        """These layers of `heads` query heads, and the norm behind them, on rows of this precision. None where there is no such thing,
        or not with these products."""

    def attend_gradient(
        self, grad: Tensor, q: Tensor, keys: Tensor, values: Tensor, rows: Any, scaling: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients of q [n, heads, dim], keys and values [pages, kv heads, dim] from that of what `attend` gave. What rows of several
        lines say of one page is added up, always in the same order."""
