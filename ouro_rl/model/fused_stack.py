"""All layers in one kernel call, if the kernels provide it: for rollouts, which need no gradients.

The overhead between separate calls (Python, small tensors, threads waiting for each other) was 16 % of a forward pass
at 64 rows and 30 % at 16 (the benchmark's model, 2 cores). Results are bitwise equal."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

import torch

from ouro_rl.kernels.interface import LayerWeights, Stack
from ouro_rl.kernels.ops import KernelOps
from ouro_rl.kernels.weight_cache import refer_to, version_of
from ouro_rl.model.layers import OuroDecoderLayer, OuroRMSNorm

if TYPE_CHECKING:
    from ouro_rl.model.modeling_ouro import OuroModel


class LayerStack:
    """The fused stack of `model`'s layers and final norm, for rows of `dtype`, kept up to date with the weights.

    Weights may change or be replaced (`current` then packs the new ones and drops the old), but modules may not."""

    def __init__(self, model: OuroModel, ops: KernelOps, dtype: torch.dtype):
        self.model, self.ops, self.dtype = model, ops, dtype
        self.modules: list[torch.nn.Linear | OuroRMSNorm] = []
        for layer in model.decoder_layers:
            self.modules += [*matrices(layer), *norms(layer)]
        self.modules.append(model.norm)
        self._version: tuple = ()
        self._references = [weakref.ref(module.weight) for module in self.modules]
        """A new tensor may have a freed tensor's address and so look like the same version."""
        self._stack: Stack | None = None
        self._is_refused = False
        """True when the kernels have no stack for this precision."""

    def current(self) -> Stack | None:
        """The stack for the current weights; None if the kernels have none."""
        if self._is_refused:
            return None
        weights = [module.weight for module in self.modules]
        version = version_of(weights)
        if self._version != version or not refer_to(self._references, weights):
            self._stack = None  # freed before a new one is made: it holds packed weights
            self._stack = self._make()
            self._is_refused = self._stack is None
            self._version, self._references = version, [weakref.ref(weight) for weight in weights]
        return self._stack

    def _make(self) -> Stack | None:
        layers, attention = [], self.model.decoder_layers[0].self_attn
        for layer in self.model.decoder_layers:
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
            layers,
            self.model.norm.weight,
            config.rms_norm_eps,
            self.dtype,
            heads=config.num_attention_heads,
            scaling=attention.scaling,
        )


def matrices(layer: OuroDecoderLayer) -> tuple[torch.nn.Linear, ...]:
    attention, mlp = layer.self_attn, layer.mlp
    return (
        attention.q_proj,
        attention.k_proj,
        attention.v_proj,
        attention.o_proj,
        mlp.gate_proj,
        mlp.up_proj,
        mlp.down_proj,
    )


def norms(layer: OuroDecoderLayer) -> tuple[OuroRMSNorm, ...]:
    """The norms of a layer in the order of the forward pass."""
    return (
        layer.input_layernorm,
        layer.input_layernorm_2,
        layer.post_attention_layernorm,
        layer.post_attention_layernorm_2,
    )
