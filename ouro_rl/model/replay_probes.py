"""Probe rows: the loops that a token did not run, computed during a replay without changing it.

The probe of token i at a loop t > d_i starts from the token's state after loop t - 1, which is a probe's own if
t > d_i + 1. It attends to earlier tokens as every row at loop t does under the KV rule, and to its own key and value of
loop t, which no other row sees. So its state and gate logit are those of a replay in which token i alone had depth t,
with the row kernels to the bit, and all tokens are probed at once. Under the rule `full` every token runs all loops
anyway, and nothing is left to compute.

Probe rows are computed in chunks. If there are several, the backward pass recomputes them one by one, so the memory
beyond a replay's own is that of one chunk and of the states after each loop.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ouro_rl.core.kv_rule import KVRule
from ouro_rl.kernels.interface import RowKernels
from ouro_rl.kernels.ops import KernelOps, Rope
from ouro_rl.model.layers import LoopedParts, in_tiles
from ouro_rl.model.packed_rows import Layout, Memory, Packing, RowAttention

CHUNK_ROWS = 4096
"""Most probe rows that are computed together: enough to keep a GPU busy, and a few GB of activations at 1.4B."""


@dataclass(frozen=True, kw_only=True)
class Probed:
    """All T loops of k probed positions, in the order of their flat indices."""

    states: Tensor
    """[T, k, hidden]: the normed state after each loop; up to a token's depth, that of the replay itself."""
    gate_logits: Tensor
    """fp32 [T, k]."""


class Prober:
    """Follows a replay: `follow` after each loop, then `result`."""

    def __init__(self, parts: LoopedParts, probes: Tensor, packing: Packing, rope: Rope, rule: KVRule):
        """`probes` bool [B, S]: the positions to probe, none of them padding. `rope` is that of the n packed rows."""
        self.one_loop = OneLoop(parts=parts, packing=packing, rope=rope, rule=rule)
        self.rows, self.order = packing.rows[probes.flatten()].unique(return_inverse=True)
        self.states: list[Tensor] = []
        self.gates: list[Tensor] = []

    def follow(self, states: Tensor, gates: Tensor, ran: Tensor, memory: Memory, layout: Layout) -> None:
        """Complete one loop: the rows that did not run it are probed.

        After the loop: `states` [n, hidden], `gates` [n], `memory` and `layout`; `ran` bool [n]: who ran it."""
        state, gate = states[self.rows], gates[self.rows]
        beyond = (~ran[self.rows]).nonzero().squeeze(1)
        if len(beyond):
            probed, logits = self.one_loop(self.rows[beyond], self.states[-1][beyond], memory, layout)
            state, gate = state.index_copy(0, beyond, probed), gate.index_copy(0, beyond, logits)
        self.states.append(state)
        self.gates.append(gate)

    def result(self) -> Probed:
        return Probed(
            states=torch.stack(self.states)[:, self.order], gate_logits=torch.stack(self.gates)[:, self.order]
        )


@dataclass(frozen=True, kw_only=True)
class OneLoop:
    """Computes probe rows, one loop at a time.

    It keeps nothing of what it computes: the graph refers to it where chunks are recomputed, and a graph that refers to
    its own results is freed only by a backward pass, which not every objective has for its probes."""

    parts: LoopedParts
    packing: Packing
    rope: Rope
    """Of the n packed rows."""
    rule: KVRule

    def __call__(self, rows: Tensor, states: Tensor, memory: Memory, layout: Layout) -> tuple[Tensor, Tensor]:
        """One loop of the packed `rows` [m] from their `states` [m, hidden] -> states [m, hidden], gate logits [m]."""
        if len(rows) <= CHUNK_ROWS:
            return self._chunk(rows, states, memory, layout)
        recomputed = partial(checkpoint, self._chunk, use_reentrant=False, preserve_rng_state=False)
        chunks = zip(rows.split(CHUNK_ROWS), states.split(CHUNK_ROWS), strict=True)
        results = [recomputed(rows_of, states_of, memory, layout) for rows_of, states_of in chunks]
        return torch.cat([state for state, _ in results]), torch.cat([gate for _, gate in results])

    def _chunk(self, rows: Tensor, states: Tensor, memory: Memory, layout: Layout) -> tuple[Tensor, Tensor]:
        ops = self.parts.ops
        earlier = layout.contexts[rows] - (0 if self.rule.leaves_gaps else 1)  # with gaps, an exited row sees no itself
        if isinstance(ops, KernelOps):
            attend: Any = partial(attend_own, own=own_pages(rows, earlier, layout, ops.kernels), kernels=ops.kernels)
        else:
            attend = partial(attend_own_densely, rows=rows, layout=layout, packing=self.packing)
        tiled = in_tiles(rows, ops)
        rope = (self.rope[0][tiled], self.rope[1][tiled])
        hidden = in_tiles(states, ops)
        for layer, (keys, values) in zip(self.parts.layers, memory, strict=True):
            hidden, _ = layer(hidden, rope, attend, keys, values, ops=ops)
        hidden = self.parts.norm(hidden, ops)
        return hidden[: len(rows)], self.parts.gate_logits(hidden, ops)[: len(rows)]


@dataclass(frozen=True, kw_only=True)
class OwnPages:
    """The pages of m probe rows: tokens of their sequences, then their own m, which nobody else reads."""

    tokens: Tensor
    """int64: the packed rows whose keys and values are read."""
    plan: Any
    """The attention plan over these and the m probe rows after them."""


def own_pages(rows: Tensor, earlier: Tensor, layout: Layout, kernels: RowKernels) -> OwnPages:
    """The pages of the packed `rows` [m]: the first `earlier` [m] of each one's sequence, then its own."""
    numbers = torch.arange(len(rows), device=rows.device)
    table_rows, index_of_row = layout.table_rows[rows].unique(return_inverse=True)
    pages = layout.pages[table_rows, : int(earlier.max()) + 1]
    read = torch.zeros(len(layout.table_rows), dtype=torch.bool, device=rows.device).index_fill(
        0, pages.flatten(), True
    )
    table = (read.long().cumsum(0) - 1)[pages][index_of_row]
    tokens = read.nonzero().squeeze(1)
    table[numbers, earlier] = len(tokens) + numbers
    return OwnPages(tokens=tokens, plan=kernels.plan_rows(table.contiguous(), numbers, earlier + 1))


def attend_own(
    module, q: Tensor, k: Tensor, v: Tensor, keys: Tensor, values: Tensor, *, own: OwnPages, kernels: RowKernels
) -> tuple[Tensor, None]:
    """Attention of probe rows q [m, heads, dim] over their sequences' keys and values and their own k, v."""
    keys, values = torch.cat([keys[own.tokens], k]), torch.cat([values[own.tokens], v])
    return RowAttention.apply(q, keys, values, own.plan, module.scaling, kernels), None


def attend_own_densely(
    module,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    keys: Tensor,
    values: Tensor,
    *,
    rows: Tensor,
    layout: Layout,
    packing: Packing,
) -> tuple[Tensor, None]:
    """`attend_own` by torch, on the whole sequences that the packed `rows` [m] belong to (q, k, v: m or more)."""
    assert layout.mask is not None
    batch, length = layout.pages.shape
    table_rows, index_of_row = layout.table_rows[rows].unique(return_inverse=True)
    places = (index_of_row, packing.places[rows] % length)

    def grid(x: Tensor) -> Tensor:
        """[m or more, heads, dim] -> [table_rows, S, heads, dim], zeros where no row is probed."""
        return x.new_zeros(len(table_rows), length, *x.shape[1:]).index_put(places, x[: len(rows)])

    tokens = packing.rows.view(batch, length)[table_rows]
    keys, values = torch.cat([keys[tokens], grid(k)], 1), torch.cat([values[tokens], grid(v)], 1)
    itself = torch.eye(length, dtype=torch.bool, device=q.device)
    mask = torch.cat([layout.mask[table_rows] & ~itself, itself.expand(len(table_rows), 1, -1, -1)], -1)
    q_bhsd, k_bhsd, v_bhsd = (x.transpose(1, 2) for x in (grid(q), keys, values))
    mixed = F.scaled_dot_product_attention(
        q_bhsd,
        k_bhsd,
        v_bhsd,
        attn_mask=mask,
        scale=module.scaling,
        enable_gqa=q.shape[1] != k.shape[1],
    )
    mixed = mixed.transpose(1, 2)[places]
    return F.pad(mixed, (0, 0, 0, 0, 0, len(q) - len(rows))), None
