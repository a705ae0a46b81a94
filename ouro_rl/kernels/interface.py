"""The interface of the row kernels, which `ouro_rl.kernels.cpu` and `ouro_rl.kernels.gpu` implement.

All kernels are batch-invariant: a row's result is bitwise the same in any batch. So a rollout worker and the trainer's
replay, which batch differently, get the same bits from the same inputs on the same kind of device. Sums are in fp32.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

SWITCH = "OURO_RL_KERNELS"
"""Environment variable; `torch` disables the kernels and uses plain torch."""


@dataclass(frozen=True, kw_only=True)
class Product:
    """A matrix product x [n, K] -> [n, N], which may keep copies of its weights."""

    multiply: Callable[[Tensor], Tensor]
    copy: Tensor | None = None
    """The copy of the weights that it reads, if any. Updated in place, since CUDA graphs contain its address."""
    packed: Any = None
    """The packed weights that a fused stack reads; None if this product cannot be part of a stack."""

    def __call__(self, x: Tensor) -> Tensor:
        return self.multiply(x)


@dataclass(frozen=True, kw_only=True)
class LayerWeights:
    """The products and the norm weights of one layer, norms in the order of the forward pass."""

    qkv: Product
    out: Product
    gate_up: Product
    down: Product
    norms: tuple[Tensor, ...]
    """Four."""


class Stack(Protocol):
    """All layers and the final norm in one call, bitwise equal to separate calls."""

    def __call__(
        self,
        states: Tensor,
        rope: tuple[Tensor, Tensor],
        pages: Tensor,
        rows: Any,
        keys: Sequence[Tensor],
        values: Sequence[Tensor],
    ) -> Tensor:
        """states [n, hidden] -> [n, hidden].

        `rope`: cos and sin [n, dim / 2]. Row r writes page pages[r] of each layer's `keys` and `values` [pages, kv
        heads, dim], then attends as planned by `plan_rows` (`rows`)."""


class RowKernels(Protocol):
    needs_host_sync: bool
    """Whether `plan_rows` always reads tensor values on the host; if so, it cannot be captured in a CUDA graph."""

    def product(
        self, weights: Sequence[Tensor], dtype: torch.dtype, *, batch_invariant: bool, old: Product | None
    ) -> Product:
        """The product by the matrices [N_i, K], concatenated along N, in this precision.

        `old`: the product returned for the same matrices before they changed. `batch_invariant`: batch-invariant."""

    def rms_norm(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        """x [..., width] / rms * weight [width].

        The weight is first rounded to the precision of x; in half precision the normed row is rounded before the
        multiplication by the weight, as in the published model."""

    def rms_norm_gradient(self, grad: Tensor, x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
        """Gradients of x and of the weight (fp32 [width]) from the gradient of `rms_norm`'s output."""

    def rotate(self, x: Tensor, cosines: Tensor, sines: Tensor, *, back: bool = False) -> Tensor:
        """Rotary embedding of x [rows, heads, dim]; cos and sin fp32 [rows, dim / 2]. `back`: the inverse rotation."""

    def silu_mul(self, gate: Tensor, up: Tensor) -> Tensor:
        """silu(gate) * up, all [rows, width]."""

    def silu_mul_gradient(self, grad: Tensor, gate: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
        """Gradients of gate and up from the gradient of `silu_mul`'s output."""

    def plan_rows(self, table: Tensor, table_rows: Tensor, contexts: Tensor, *, unshared: int = 0) -> Any:
        """Plan an attention over n rows, for all layers: row r reads the first contexts[r] pages of
        table[table_rows[r]].

        `table`: block table int64 [..., width], indexed by `table_rows` over its flattened leading axes; `table_rows`
        and `contexts` int64 [n]. Each of the first `unshared` rows is known to be the only reader of its
        block-table row."""

    def attend(self, q: Tensor, keys: Tensor, values: Tensor, rows: Any, scaling: float) -> Tensor:
        """Attention of q [n or more, heads, dim] over keys and values [pages, kv heads, dim]; others give zeros."""

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
        """A fused stack of these layers (`heads` query heads) and the final norm, for rows of this precision.

        None if the kernels have no fused stack, or none with these products."""

    def attend_gradient(
        self, grad: Tensor, q: Tensor, keys: Tensor, values: Tensor, rows: Any, scaling: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients of q [n, heads, dim], keys and values [pages, kv heads, dim] from that of `attend`'s output.

        Contributions of several block-table rows to one page are summed in a fixed order."""
