"""Replay: one parallel forward that reproduces a sequential adaptive generation exactly.

Position i at loop t attends, for every j <= i, to what j wrote at loop min(t, d_j) (the last-exited rule). The states of loop
t therefore depend on loops <= t alone: at loop t, tokens with d_j < t keep their state, keys and values. Only the rows
still active are put through the layers' projections and MLPs, so most of the work follows the mean depth.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from ouro_rl.types import NO_DEPTH

if TYPE_CHECKING:
    from ouro_rl.model.modeling_ouro import OuroModel


def replay(model: OuroModel, embeds: Tensor, position_ids: Tensor, depths: Tensor) -> tuple[Tensor, Tensor]:
    """Run every token to its recorded depth.

    `embeds` [B, S, hidden], `position_ids` [B, S], `depths` [B, S] with `NO_DEPTH` at padding (on either side).
    Returns the state at each token's depth [B, S, hidden] (zeros at padding) and gate logits [T, B, S] (0 where a token did
    not run that loop)."""
    batch, length, _ = embeds.shape
    deepest = max(int(depths.max()), model.config.total_ut_steps)
    mask = replay_mask(depths != NO_DEPTH)
    rope = model.rotary_emb(position_ids.flatten(), embeds.dtype)
    states = embeds.flatten(0, 1)
    flat_depths = depths.flatten()
    memory: list[tuple[Tensor, Tensor]] = [(None, None)] * len(model.layers)
    gates = []
    for loop in range(1, deepest + 1):
        rows = (flat_depths >= loop).nonzero().squeeze(1)
        if len(rows) == 0:
            gates += [torch.zeros(batch, length, dtype=torch.float32, device=embeds.device)] * (deepest - loop + 1)
            break
        attend = partial(attend_frozen, rows=rows, mask=mask, shape=(batch, length))
        rows_rope = (rope[0][rows], rope[1][rows])
        hidden = states[rows]
        for index, layer in enumerate(model.layers):
            hidden, memory[index] = layer(hidden, rows_rope, attend, *memory[index])
        hidden = model.norm(hidden)
        states = states.index_copy(0, rows, hidden)
        gate = model.gate_logits(hidden)
        gates.append(gate.new_zeros(batch * length).index_copy(0, rows, gate).view(batch, length))
    states = states * (flat_depths != NO_DEPTH).unsqueeze(1)
    return states.view(batch, length, -1), torch.stack(gates)


def replay_mask(valid: Tensor) -> Tensor:
    """Causal attention among valid positions [B, S] -> bool [B, 1, S, S]. Padding attends to itself: no empty softmax."""
    length = valid.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool, device=valid.device).tril()
    itself = torch.eye(length, dtype=torch.bool, device=valid.device)
    return ((causal & valid[:, None, :]) | itself).unsqueeze(1)


def attend_frozen(
    module, q: Tensor, k: Tensor, v: Tensor, old_k: Tensor | None, old_v: Tensor | None, *, rows: Tensor, mask: Tensor, shape
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Attention for the active `rows` of a [B, S] batch. q, k, v [rows, heads, dim]; old_k, old_v [B*S, kv heads, dim] hold what
    the frozen tokens wrote last. Returns the mixed values of the rows and the updated keys and values."""
    positions = shape[0] * shape[1]
    if old_k is None:
        old_k, old_v = (x.new_zeros(positions, *x.shape[1:]) for x in (k, v))
    k, v = old_k.index_copy(0, rows, k), old_v.index_copy(0, rows, v)
    q = q.new_zeros(positions, *q.shape[1:]).index_copy(0, rows, q)
    q_bhsd, k_bhsd, v_bhsd = (x.view(*shape, *x.shape[1:]).transpose(1, 2) for x in (q, k, v))
    grouped = module.num_key_value_groups > 1
    mixed = F.scaled_dot_product_attention(
        q_bhsd, k_bhsd, v_bhsd, attn_mask=mask, scale=module.scaling, enable_gqa=grouped
    )
    return mixed.transpose(1, 2).flatten(0, 1)[rows], (k, v)
