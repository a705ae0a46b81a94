"""Replay: one parallel forward that reproduces a sequential adaptive generation exactly.

Position i at loop t attends, for every j <= i, to what j wrote at loop min(t, d_j) (the last-exited rule). The states of loop
t therefore depend on loops <= t alone: at loop t, tokens with d_j < t keep their state, keys and values. Only the rows
still active are put through the layers' projections and MLPs, so most of the work follows the mean depth.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from ouro_rl import native_attention
from ouro_rl.model.layers import in_tiles
from ouro_rl.types import NO_DEPTH

if TYPE_CHECKING:
    from ouro_rl.model.modeling_ouro import OuroModel


def replay(
    model: OuroModel, embeds: Tensor, position_ids: Tensor, depths: Tensor, owners: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Run every token to its recorded depth.

    `embeds` [B, S, hidden], `position_ids` [B, S], `depths` [B, S] with `NO_DEPTH` at padding (on either side). `owners` int64 [B, S]:
    the flat place whose computation stands for this one (its own, unless rows begin with the same tokens at the same depths).
    Returns the state at each token's depth [B, S, hidden] (zeros at padding) and gate logits [T, B, S] (0 where a token did
    not run that loop)."""
    batch, length, _ = embeds.shape
    deepest = max(int(depths.max()), model.config.total_ut_steps)
    valid = depths != NO_DEPTH
    places = torch.arange(batch * length, device=embeds.device)
    owners = places if owners is None else owners.flatten()
    layout = Layout(
        mask=replay_mask(valid), pages=owners[row_pages(valid)], positions=position_ids.flatten(), owners=owners
    )
    rope = model.rotary_emb(layout.positions, embeds.dtype)
    states = embeds.flatten(0, 1)
    own_depths = torch.where(owners == places, depths.flatten(), NO_DEPTH)
    memory: list[tuple[Tensor | None, Tensor | None]] = [(None, None)] * len(model.layers)
    gates = embeds.new_zeros(deepest, batch * length, dtype=torch.float32)
    for loop in range(1, deepest + 1):
        rows = (own_depths >= loop).nonzero().squeeze(1)
        if len(rows) == 0:
            break
        attend = partial(attend_frozen, rows=rows, layout=layout)
        tiled = in_tiles(rows)  # what fills the last tile is computed and dropped
        rows_rope = (rope[0][tiled], rope[1][tiled])
        hidden = states[tiled]
        for index, layer in enumerate(model.layers):
            hidden, memory[index] = layer(hidden, rows_rope, attend, *memory[index])
        hidden = model.norm(hidden)
        gate = model.gate_logits(hidden)[: len(rows)]
        states = states.index_copy(0, rows, hidden[: len(rows)])
        gates = gates.index_put((torch.tensor(loop - 1), rows), gate)
    states = states[owners] * valid.flatten().unsqueeze(1)
    return states.view(batch, length, -1), gates[:, owners].view(deepest, batch, length)


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Where the tokens of a [B, S] batch lie, in every layer and loop."""

    mask: Tensor
    """bool [B, 1, S, S]: who reads whom."""
    pages: Tensor
    """int64 [B, S]: the flat places where each sequence's tokens are computed, in order, without its padding."""
    owners: Tensor
    """int64 [B * S]: where each place is computed."""
    positions: Tensor
    """int64 [B * S]: place of a token in its sequence."""


def replay_mask(valid: Tensor) -> Tensor:
    """Causal attention among valid positions [B, S] -> bool [B, 1, S, S]. Padding attends to itself: no empty softmax."""
    length = valid.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool, device=valid.device).tril()
    itself = torch.eye(length, dtype=torch.bool, device=valid.device)
    return ((causal & valid[:, None, :]) | itself).unsqueeze(1)


def row_pages(valid: Tensor) -> Tensor:
    """Flat indices of the valid tokens of each row, first things first: bool [B, S] -> int64 [B, S] (then of the padding)."""
    order = (~valid).to(torch.int8).argsort(dim=1, stable=True)
    return order + torch.arange(len(valid), device=valid.device).unsqueeze(1) * valid.shape[1]


def attend_frozen(
    module, q: Tensor, k: Tensor, v: Tensor, old_k: Tensor | None, old_v: Tensor | None, *, rows: Tensor, layout: Layout
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Attention for the active `rows` [n] of a [B, S] batch. q, k, v [n or more, heads, dim]; old_k, old_v [B*S, kv heads, dim] hold
    what the frozen tokens wrote last. Returns the mixed values (zeros behind the n rows) and the updated keys and values."""
    filling = len(q) - len(rows)
    q, k, v = (x[: len(rows)] for x in (q, k, v))
    if old_k is None:
        old_k, old_v = (x.new_zeros(len(layout.positions), *x.shape[1:]) for x in (k, v))
    k, v = old_k.index_copy(0, rows, k), old_v.index_copy(0, rows, v)
    kernel, _ = native_attention.choose(k)
    if kernel is None:
        mixed = dense_attention(q, k, v, rows, layout, module.scaling)
    else:
        mixed = RowAttention.apply(q, k, v, rows, layout, module.scaling, kernel)
    return F.pad(mixed, (0, 0, 0, 0, 0, filling)), (k, v)


def dense_attention(q: Tensor, k: Tensor, v: Tensor, rows: Tensor, layout: Layout, scaling: float) -> Tensor:
    """Rows q [n, heads, dim] of a [B, S] batch over all keys and values [B*S, kv heads, dim], by torch's own attention."""
    shape = layout.pages.shape
    q = q.new_zeros(len(k), *q.shape[1:]).index_copy(0, rows, q)
    k, v = k[layout.owners], v[layout.owners]
    q_bhsd, k_bhsd, v_bhsd = (x.view(*shape, *x.shape[1:]).transpose(1, 2) for x in (q, k, v))
    grouped = q.shape[1] != k.shape[1]
    mixed = F.scaled_dot_product_attention(q_bhsd, k_bhsd, v_bhsd, attn_mask=layout.mask, scale=scaling, enable_gqa=grouped)
    return mixed.transpose(1, 2).flatten(0, 1)[rows]


class RowAttention(torch.autograd.Function):
    """Forward by the very kernel that the rollout workers use, so that log-probs agree; backward through `dense_attention`."""

    @staticmethod
    def forward(ctx, q, k, v, rows, layout: Layout, scaling: float, kernel):
        ctx.save_for_backward(q, k, v, rows)
        ctx.layout, ctx.scaling = layout, scaling
        lines = torch.div(rows, layout.pages.shape[1], rounding_mode="floor")
        contexts = layout.positions[rows] + 1
        return native_attention.attend_rows(kernel, q, k, v, layout.pages, lines, contexts, scaling)

    @staticmethod
    def backward(ctx, grad):
        *inputs, rows = ctx.saved_tensors
        with torch.enable_grad():
            inputs = [x.detach().requires_grad_() for x in inputs]
            mixed = dense_attention(*inputs, rows, ctx.layout, ctx.scaling)
        return (*torch.autograd.grad(mixed, inputs, grad), None, None, None, None)
