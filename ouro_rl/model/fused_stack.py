"""All layers in one call of the kernels, where they have that: for rollouts, which take no gradients.

What lies between the single calls (Python, small tensors, threads that wait for each other) took 16 % of a pass at 64 rows, and 30 % at 16
(the benchmark's model, 2 cores). The bits are the same."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

import torch

from ouro_rl.kernels.interface import LayerWeights, Stack
from ouro_rl.kernels.ops import KernelOps
from ouro_rl.kernels.weight_cache import refer_to, version_of
from ouro_rl.model.layers import OuroDecoderLayer

if TYPE_CHECKING:
    from ouro_rl.model.modeling_ouro import OuroModel


class LayerStack:
    """The stack of `model`'s layers and final norm, at the last version of the weights, for rows of `dtype`. Weights may change or be
    replaced (what was packed of the old ones goes with the next `current`), but not modules."""

    def __init__(self, model: OuroModel, ops: KernelOps, dtype: torch.dtype):
        self.model, self.ops, self.dtype = model, ops, dtype
        self.modules = [module for layer in model.layers for module in (*matrices(layer), *norms(layer))] + [model.norm]
        self._version: tuple = ()
        self._references = [weakref.ref(module.weight) for module in self.modules]
        """Another tensor may have got a dead one's place, and look like the same version."""
        self._stack: Stack | None = None
        self._is_refused = False
        """The kernels have none for this precision, whatever the weights."""

    def current(self) -> Stack | None:
        """None where the kernels have no such thing."""
        if self._is_refused:
            return None
        weights = [module.weight for module in self.modules]
        version = version_of(weights)
        if self._version != version or not refer_to(self._references, weights):
            self._stack = None  # before there is another: it holds packed weights
            self._stack = self._make()
            self._is_refused = self._stack is None
            self._version, self._references = version, [weakref.ref(weight) for weight in weights]
        return self._stack

    def _make(self) -> Stack | None:
        layers, attention = [], self.model.layers[0].self_attn
        for layer in self.model.layers:
            q, k, v, out, gate, up, down = (module.weight for module in matrices(layer))
            products = {"qkv": (q, k, v), "out": (out,), "gate_up": (gate, up), "down": (down,)}
            layers.append(
                LayerWeights(
                    **{name: self.ops.product_of(self.dtype, *weights) for name, weights in products.items()},
                    norms=tuple(module.weight for module in norms(layer)),
                )
            )
        config = self.model.config
        return self.ops.kernels.stack(
            layers, self.model.norm.weight, config.rms_norm_eps, self.dtype,
            heads=config.num_attention_heads, scaling=attention.scaling,
        )  # fmt: skip


def matrices(layer: OuroDecoderLayer) -> tuple[torch.nn.Linear, ...]:
    attention, mlp = layer.self_attn, layer.mlp
    return (
        attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj, mlp.gate_proj, mlp.up_proj, mlp.down_proj,
    )  # fmt: skip


def norms(layer: OuroDecoderLayer) -> tuple[torch.nn.Module, ...]:
    """In the order in which a row meets them."""
    return (
        layer.input_layernorm, layer.input_layernorm_2, layer.post_attention_layernorm, layer.post_attention_layernorm_2,
    )  # fmt: skip
