"""The compute of a pass: rows through the layers, each at its own loop, writing and reading pages."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ouro_rl.kernels.ops import KernelOps
from ouro_rl.model.fused_stack import LayerStack
from ouro_rl.model.layers import in_tiles
from ouro_rl.model.modeling_ouro import OuroForCausalLM
from rollout_workers.engine.attention import KernelAttention, Rows, choose_attention
from rollout_workers.engine.kv_cache import KVCache


class Forward:
    """`model`'s layers over `cache`. Keeps what passes have in common: packed weights and the rotary angles."""

    def __init__(self, model: OuroForCausalLM, cache: KVCache):
        self.model, self.cache = model, cache
        self.dtype = model.model.embed_tokens.weight.dtype
        self.ops, self.description = model.model.row_ops(self.dtype)
        """Which implementation runs, and why."""
        self.attention = choose_attention(cache, self.ops, model.config.num_attention_heads)
        self.stack = LayerStack(model.model, self.ops, self.dtype) if isinstance(self.ops, KernelOps) else None
        self.rope: tuple[Tensor, Tensor] | None = None

    def __call__(self, rows: Rows, pages: Tensor, states: Tensor) -> Tensor:
        """Run `states` [n, hidden] of `rows`, which write `pages` [n], through all layers and the final norm: [n,
        hidden]."""
        hidden = in_tiles(states, self.ops)
        positions = F.pad(rows.positions, (0, len(hidden) - len(pages)))
        cosines, sines = self.angles()
        rope = (cosines.index_select(0, positions), sines.index_select(0, positions))
        cache = self.cache
        stack = None if self.stack is None else self.stack.current()
        if stack is not None:
            assert isinstance(self.attention, KernelAttention), "a stack is made of kernels"
            return stack(hidden, rope, pages, self.attention.paged(rows), cache.keys, cache.values)
        attend_rows = self.attention.plan(rows)

        def attend(module, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, None]:
            layer = module.layer_idx
            cache.write(layer, pages, k[: len(pages)], v[: len(pages)])
            return attend_rows(q, cache.keys[layer], cache.values[layer], module.scaling), None

        for layer in self.model.model.layers:
            hidden, _ = layer(hidden, rope, attend, ops=self.ops)
        return self.model.model.norm(hidden, self.ops)[: len(states)]

    def angles(self) -> tuple[Tensor, Tensor]:
        """Rotary cosines and sines by position, for as many positions as the cache's table has."""
        width = self.cache.table.shape[2]
        if self.rope is None or len(self.rope[0]) < width:
            positions = torch.arange(width, device=self.cache.table.device)
            self.rope = self.model.model.rotary_emb(positions, self.dtype, self.ops)
        return self.rope
