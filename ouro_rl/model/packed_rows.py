"""Attention over packed rows: where the tokens of a padded batch are computed, and which of them each row attends to.

One row per token, without padding, and a shared prefix only once. Rows that do not run a loop keep their last keys and
values, which the others read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ouro_rl.kernels.interface import RowKernels

Memory = Sequence[tuple[Tensor | None, Tensor | None]]
"""For each layer, the last keys and values of all n tokens, [n, kv heads, dim]; None before the first loop."""


@dataclass(frozen=True, kw_only=True)
class Packing:
    """Where the tokens of a [B, S] batch are computed: n rows, in the order of their flat indices."""

    places: Tensor
    """int64 [n]: the flat index of each row."""
    rows: Tensor
    """int64 [B * S]: the row that computes each flat index; arbitrary at padding."""
    valid: Tensor
    """bool [B * S]: False at padding."""

    def unpack(self, packed: Tensor) -> Tensor:
        """[n, ...] -> [B * S, ...], zeros at padding."""
        if len(packed) == 0:
            return packed.new_zeros(len(self.rows), *packed.shape[1:])
        return packed[self.rows] * self.valid.unsqueeze(1)


def pack(valid: Tensor, owners: Tensor | None) -> Packing:
    """The packing of the tokens `valid` (bool [B, S]); `owners` as in `replay`."""
    valid = valid.flatten()
    itself = torch.arange(len(valid), device=valid.device)
    owners = itself if owners is None else owners.flatten()
    computed = valid & (owners == itself)
    row_of_place = computed.long().cumsum(0) - 1
    return Packing(places=computed.nonzero().squeeze(1), rows=row_of_place[owners].clamp(min=0), valid=valid)


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Which tokens of a [B, S] batch are attended to, and where they are stored.

    The same in every layer, and in every loop unless the KV rule leaves gaps."""

    mask: Tensor | None
    """bool [B, 1, S, S]: the attention mask, if torch's attention is used."""
    pages: Tensor
    """int64 [B, S], the block table: the rows of each sequence's tokens that are attended to, in order."""
    table_rows: Tensor
    """int64 [n]: the sequence of each row, which is its row of `pages`."""
    contexts: Tensor
    """int64 [n]: how many entries of that row of `pages` it attends to, its own included."""
    packing: Packing


def lay_out(present: Tensor, packing: Packing, *, masked: bool) -> Layout:
    """The layout if the tokens `present` (bool [B, S]) are attended to; `masked`: with a mask for torch."""
    contexts = present.long().cumsum(1).flatten()
    return Layout(
        mask=replay_mask(present) if masked else None,
        pages=packing.rows[row_pages(present)],
        table_rows=torch.div(packing.places, present.shape[1], rounding_mode="floor"),
        contexts=contexts[packing.places],
        packing=packing,
    )


def paged_rows(kernels: RowKernels | None, rows: Tensor, layout: Layout) -> Any:
    """The attention plan of `rows` [m] for the kernels; None without kernels."""
    if kernels is None:
        return None
    return kernels.plan_rows(layout.pages, layout.table_rows[rows], layout.contexts[rows])


def replay_mask(valid: Tensor) -> Tensor:
    """Causal mask over the valid positions: bool [B, S] -> [B, 1, S, S]. Padding attends to itself: no empty
    softmax."""
    length = valid.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool, device=valid.device).tril()
    itself = torch.eye(length, dtype=torch.bool, device=valid.device)
    return ((causal & valid[:, None, :]) | itself).unsqueeze(1)


def row_pages(valid: Tensor) -> Tensor:
    """Flat indices of each row's valid tokens in order, followed by the others: bool [B, S] -> int64 [B, S]."""
    order = (~valid).to(torch.int8).argsort(dim=1, stable=True)
    return order + torch.arange(len(valid), device=valid.device).unsqueeze(1) * valid.shape[1]


def attend_frozen(
    module,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    old_k: Tensor | None,
    old_v: Tensor | None,
    *,
    rows: Tensor,
    layout: Layout,
    paged: Any,
    kernels: RowKernels | None,
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Attention for the active `rows` [m] of n; the others are frozen.

    q [m or more, heads, dim]; k, v [m or more, kv heads, dim]; old_k, old_v [n, kv heads, dim] hold the last keys and
    values of all tokens. Returns the output (zeros after the m rows) and the updated keys and values."""
    filling = len(q) - len(rows)
    q, k, v = (x[: len(rows)] for x in (q, k, v))
    if old_k is None or old_v is None:
        old_k, old_v = (x.new_zeros(len(layout.table_rows), *x.shape[1:]) for x in (k, v))
    k, v = old_k.index_copy(0, rows, k), old_v.index_copy(0, rows, v)
    if kernels is None:
        mixed = dense_attention(q, k, v, rows, layout, module.scaling)
    else:
        mixed = RowAttention.apply(q, k, v, paged, module.scaling, kernels)
    return F.pad(mixed, (0, 0, 0, 0, 0, filling)), (k, v)


def dense_attention(q: Tensor, k: Tensor, v: Tensor, rows: Tensor, layout: Layout, scaling: float) -> Tensor:
    """Rows q [m, heads, dim] over all keys and values [n, kv heads, dim], by torch on the whole [B, S] batch."""
    shape, packing = layout.pages.shape, layout.packing
    places = packing.places[rows]
    q = q.new_zeros(shape.numel(), *q.shape[1:]).index_copy(0, places, q)
    k, v = k[packing.rows], v[packing.rows]
    q_bhsd, k_bhsd, v_bhsd = (x.view(*shape, *x.shape[1:]).transpose(1, 2) for x in (q, k, v))
    grouped = q.shape[1] != k.shape[1]
    mixed = F.scaled_dot_product_attention(
        q_bhsd, k_bhsd, v_bhsd, attn_mask=layout.mask, scale=scaling, enable_gqa=grouped
    )
    return mixed.transpose(1, 2).flatten(0, 1)[places]


class RowAttention(torch.autograd.Function):
    """Attention by the kernel that the rollout workers use, so that log-probs agree bitwise."""

    @staticmethod
    def forward(ctx, q, k, v, paged: Any, scaling: float, kernels: RowKernels):
        ctx.save_for_backward(q, k, v)
        ctx.paged, ctx.scaling, ctx.kernels = paged, scaling, kernels
        return kernels.attend(q, k, v, paged, scaling)

    @staticmethod
    def backward(ctx, grad):
        return *ctx.kernels.attend_gradient(grad, *ctx.saved_tensors, ctx.paged, ctx.scaling), None, None, None
