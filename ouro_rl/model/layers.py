"""One transformer layer of Ouro, shared by all its users.

A layer does not know where keys and values are stored: the caller passes `attend`, which takes the projected q, k, v
and returns the attention output. The dense model, the trainer's replay and the rollout engine differ only in that
function, so they cannot drift apart. Leading axes are free: [batch, sequence, ...] in the model, [rows, ...] in the
engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

from ouro_rl.kernels.ops import TORCH_OPS, Ops, Rope
from ouro_rl.model.configuration_ouro import OuroConfig

Attend = Callable[..., tuple[Tensor, Any]]
"""(attention module, q [..., heads, dim], k, v [..., kv heads, dim], *extra) -> (output like q, anything)."""


def in_tiles(rows: Tensor, ops: Ops) -> Tensor:
    """[n, ...] padded with zero rows to a multiple of `ops.tile`: a remainder would take another code path, and rows
    would not be batch-invariant."""
    missing = -len(rows) % ops.tile
    return torch.cat([rows, rows.new_zeros(missing, *rows.shape[1:])]) if missing else rows


class OuroLinear(nn.Linear):
    """A linear layer that computes in the precision of its input, independent of the precision of its weight.

    With fp32 master weights, a bf16 forward is bitwise equal to that of the rollout workers' bf16 weights. (Autocast
    would keep the residual stream in fp32, which makes the log-prob gap to the workers five times as large.)"""

    def forward(self, hidden: Tensor) -> Tensor:
        return F.linear(hidden, self.weight.to(hidden.dtype))


class ExitGate(nn.Linear):
    """The exit gate, one linear unit. It stays in fp32 when its model is cast to a lower precision: it has hidden + 1
    numbers, its updates are smaller than bf16's resolution, and workers must decide by the gate that is trained."""

    def __init__(self, hidden_size: int):
        super().__init__(hidden_size, 1, dtype=torch.float32)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> ExitGate:
        """What `to`, `bfloat16` and the like call: move the parameters, but never round them below fp32."""

        def unrounded(tensor: Tensor) -> Tensor:
            changed = fn(tensor)
            return changed if changed.dtype.itemsize >= 4 else tensor.to(changed.device, torch.float32)

        return super()._apply(unrounded, recurse)


class OuroRMSNorm(nn.Module):
    """x / rms(x) * weight, with the mean of squares in fp32."""

    def __init__(self, hidden_size: int, eps: float):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(hidden_size))
        self.eps = eps

    def forward(self, hidden: Tensor, ops: Ops = TORCH_OPS) -> Tensor:
        return ops.norm(hidden, self.weight, self.eps)


class OuroMLP(nn.Module):
    def __init__(self, config: OuroConfig):
        super().__init__()
        self.gate_proj = OuroLinear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = OuroLinear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = OuroLinear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, hidden: Tensor, ops: Ops = TORCH_OPS) -> Tensor:
        mixed = ops.activate(*ops.linear(hidden, self.gate_proj, self.up_proj))
        return ops.linear(mixed, self.down_proj)[0]


class OuroAttention(nn.Module):
    """The four projections; transformers' attention functions read the attributes below them."""

    def __init__(self, config: OuroConfig, layer_idx: int):
        super().__init__()
        heads, kv_heads, dim = config.attention_shape
        self.q_proj = OuroLinear(config.hidden_size, heads * dim, bias=False)
        self.k_proj = OuroLinear(config.hidden_size, kv_heads * dim, bias=False)
        self.v_proj = OuroLinear(config.hidden_size, kv_heads * dim, bias=False)
        self.o_proj = OuroLinear(heads * dim, config.hidden_size, bias=False)
        self.config = config
        self.layer_idx = layer_idx
        self.head_dim = dim
        self.num_key_value_groups = heads // kv_heads
        self.scaling = dim**-0.5
        self.attention_dropout = config.attention_dropout
        self.is_causal = True

    def project(self, hidden: Tensor, rope: Rope, ops: Ops) -> tuple[Tensor, Tensor, Tensor]:
        """[..., hidden] -> q [..., heads, dim], k and v [..., kv heads, dim], with RoPE applied to q and k."""
        shape = (*hidden.shape[:-1], -1, self.head_dim)
        q, k, v = (part.view(shape) for part in ops.linear(hidden, self.q_proj, self.k_proj, self.v_proj))
        return ops.rotate(q, rope), ops.rotate(k, rope), v


class OuroDecoderLayer(GradientCheckpointingLayer):
    """`h += norm2(attn(norm1(h))); h += norm4(mlp(norm3(h)))`: sandwich norms (arXiv 2510.25741, section 3)."""

    def __init__(self, config: OuroConfig, layer_idx: int):
        super().__init__()
        self.self_attn = OuroAttention(config, layer_idx)
        self.mlp = OuroMLP(config)
        self.input_layernorm = OuroRMSNorm(config.hidden_size, config.rms_norm_eps)
        self.input_layernorm_2 = OuroRMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = OuroRMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm_2 = OuroRMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(
        self, hidden: Tensor, rope: Rope, attend: Attend, *extra: Tensor | None, ops: Ops = TORCH_OPS
    ) -> tuple[Tensor, Any]:
        """One layer over `hidden` [..., hidden] -> (output, second result of `attend`); `attend` gets `extra`."""
        q, k, v = self.self_attn.project(self.input_layernorm(hidden, ops), rope, ops)
        mixed, kept = attend(self.self_attn, q, k, v, *extra)
        (mixed,) = ops.linear(mixed.flatten(-2), self.self_attn.o_proj)
        hidden = hidden + self.input_layernorm_2(mixed, ops)
        mixed = self.mlp(self.post_attention_layernorm(hidden, ops), ops)
        return hidden + self.post_attention_layernorm_2(mixed, ops), kept


class OuroRotaryEmbedding(nn.Module):
    """RoPE angles by position, the same in every loop."""

    def __init__(self, config: OuroConfig):
        super().__init__()
        _, _, self.head_dim = config.attention_shape
        self.theta = float(config.rope_theta)

    def forward(self, position_ids: Tensor, dtype: torch.dtype, ops: Ops = TORCH_OPS) -> Rope:
        return ops.rope(position_ids, self.theta, self.head_dim, dtype)


@dataclass(frozen=True, kw_only=True)
class LoopedParts:
    """What one loop runs: parts of a model, and the operations that compute them."""

    layers: Sequence[OuroDecoderLayer]
    norm: OuroRMSNorm
    rotary_emb: OuroRotaryEmbedding
    gate_logits: Callable[[Tensor, Ops], Tensor]
    """Normed states [n, hidden] -> fp32 [n]."""
    ops: Ops
