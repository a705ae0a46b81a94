"""Replay: one parallel forward pass that exactly reproduces a sequential generation with per-token depths.

Under each KV rule (`ouro_rl.core.kv_rule`) the states of loop t depend only on loops <= t. `last_exited`: at loop t,
tokens with d_j < t keep their last state, keys and values, and others attend to those. `full`: all tokens run all
loops, and the state at a token's depth is selected. `skip`: at loop t only tokens with d_j >= t are attended to.

States, keys and values are packed: one row per token, without padding, and a shared prefix only once. Only the rows
that run a loop pass through the layers' projections and MLPs, so most of the work is proportional to the mean depth.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from ouro_rl.core.kv_rule import KVRule
from ouro_rl.core.sampling_params import NO_DEPTH
from ouro_rl.kernels.ops import KernelOps, Rope
from ouro_rl.model.layers import LoopedParts, in_tiles
from ouro_rl.model.packed_rows import Layout, Memory, attend_frozen, lay_out, pack, paged_rows
from ouro_rl.model.replay_probes import Probed, Prober


def replay(
    parts: LoopedParts,
    embeds: Tensor,
    position_ids: Tensor,
    depths: Tensor,
    owners: Tensor | None = None,
    *,
    max_loops: int,
    rule: KVRule = KVRule.LAST_EXITED,
    probes: Tensor | None = None,
) -> tuple[Tensor, Tensor, Probed | None]:
    """Run every token to its recorded depth, which is at most `max_loops`.

    `embeds` [B, S, hidden], `position_ids` [B, S], `depths` [B, S] with `NO_DEPTH` at padding (on either side).
    `owners` int64 [B, S]: the flat index at which each position is computed (its own, unless rows have a shared prefix,
    with the same tokens at the same depths). `probes` bool [B, S]: the tokens whose further loops are computed too,
    without changing anything else. Returns the state at each token's depth [B, S, hidden] (zeros at padding), gate
    logits [max_loops, B, S] (0 where a token did not run that loop), and what the probes found. Raises ValueError for a
    depth above `max_loops`, and for a probe of padding."""
    batch, length, _ = embeds.shape
    if depths.numel() and int(depths.max()) > max_loops:
        raise ValueError(f"a depth of {int(depths.max())} cannot be replayed with max_loops {max_loops}")
    valid = depths != NO_DEPTH
    if probes is not None and (probes & ~valid).any():
        raise ValueError("padding cannot be probed: it has no depth")
    packing = pack(valid, owners)
    leaves = depths.flatten()[packing.places]
    runs = torch.full_like(leaves, max_loops) if rule.runs_all_loops else leaves
    ops = parts.ops
    kernels = ops.kernels if isinstance(ops, KernelOps) else None
    layout = lay_out(valid, packing, masked=kernels is None)
    rope = parts.rotary_emb(position_ids.flatten()[packing.places], embeds.dtype, ops)
    states = embeds.flatten(0, 1)[packing.places]
    chosen = torch.zeros_like(states)
    memory: Memory = [(None, None)] * len(parts.layers)
    gates = embeds.new_zeros(max_loops, len(states), dtype=torch.float32)
    prober = None if probes is None else Prober(parts, probes, packing, rope, rule)
    for loop in range(1, max_loops + 1):
        ran = runs >= loop
        rows = ran.nonzero().squeeze(1)
        if len(rows) == 0 and prober is None:
            break
        if rule.leaves_gaps:
            layout = lay_out(depths >= loop, packing, masked=kernels is None)
        if len(rows):
            hidden, gate, memory = run_loop(parts, states, rows, rope, memory, layout)
            states = states.index_copy(0, rows, hidden)
            if rule.runs_all_loops:
                leaving = (leaves[rows] == loop).nonzero().squeeze(1)
                chosen = chosen.index_copy(0, rows[leaving], hidden[leaving])
            gates = gates.index_put((torch.tensor(loop - 1), rows), gate)
        if prober is not None:
            prober.follow(states, gates[loop - 1], ran, memory, layout)
    if not rule.runs_all_loops:  # a token keeps the state it exited with
        chosen = states
    return (
        packing.unpack(chosen).view(embeds.shape),
        packing.unpack(gates.T).T.reshape(max_loops, batch, length),
        None if prober is None else prober.result(),
    )


def run_loop(
    parts: LoopedParts, states: Tensor, rows: Tensor, rope: Rope, memory: Memory, layout: Layout
) -> tuple[Tensor, Tensor, Memory]:
    """One loop of the packed `rows` [m] of n -> their states [m, hidden] and gate logits [m], and the memory of all n.

    `states` [n, hidden] are those after the loop before."""
    ops = parts.ops
    kernels = ops.kernels if isinstance(ops, KernelOps) else None
    attend = partial(attend_frozen, rows=rows, layout=layout, paged=paged_rows(kernels, rows, layout), kernels=kernels)
    tiled = in_tiles(rows, ops)  # the padding of the last tile is computed and dropped
    rows_rope = (rope[0][tiled], rope[1][tiled])
    hidden, kept = states[tiled], []
    for layer, (keys, values) in zip(parts.layers, memory, strict=True):
        hidden, written = layer(hidden, rows_rope, attend, keys, values, ops=ops)
        kept.append(written)
    hidden = parts.norm(hidden, ops)
    return hidden[: len(rows)], parts.gate_logits(hidden, ops)[: len(rows)], kept
