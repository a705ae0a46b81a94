"""A layer's operations on rows: in plain torch, or by the row kernels (`ouro_rl.kernels.interface`).

`KernelOps` is batch-invariant, so that a rollout worker and the trainer's replay, which batch differently, get the same
bits from the same inputs; its gradients are kernels too, except those of products. `TorchOps` works on every device.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from ouro_rl.kernels.autograd import _Linear, _RMSNorm, _Rotate, _SiluMul
from ouro_rl.kernels.interface import Product, RowKernels
from ouro_rl.kernels.weight_cache import CachedProduct, count_step

Rope = tuple[Tensor, Tensor]
"""The result of `Ops.rope`: two tensors with one entry per row, for `Ops.rotate`."""


class Ops(Protocol):
    tile: int
    """Rows must be padded to a multiple of this for batch-invariant results; 1 if no padding is needed."""

    def linear(self, x: Tensor, *modules: nn.Linear) -> tuple[Tensor, ...]:
        """x [..., K] through several linear layers with the same input."""

    def product(self, x: Tensor, weight: Tensor) -> Tensor:
        """x [n, K] by one matrix [N, K], in the precision of x."""

    def norm(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        """RMS norm of x [..., hidden], weight [hidden]: x / rms(x) * weight, the mean of squares in fp32."""

    def activate(self, gate: Tensor, up: Tensor) -> Tensor:
        """act(gate) * up."""

    def rope(self, positions: Tensor, theta: float, dim: int, dtype: torch.dtype) -> Rope:
        """RoPE angles by position for heads of size `dim`, for `rotate`."""

    def rotate(self, x: Tensor, rope: Rope) -> Tensor:
        """Rotary embedding of x [..., heads, dim]."""

    def refresh(self) -> list[Tensor]:
        """Update copies of weights in place, since CUDA graphs read them at a fixed address. Returns the copies."""


class TorchOps:
    tile = 16
    """fp32 MKL takes another code path below 16 rows, and for the remainder of a matrix-vector product."""

    def __init__(self, activation: Callable[[Tensor], Tensor] = F.silu):
        self.activation = activation

    def linear(self, x: Tensor, *modules: nn.Linear) -> tuple[Tensor, ...]:
        return tuple(module(x) for module in modules)

    def product(self, x: Tensor, weight: Tensor) -> Tensor:
        return F.linear(x, weight.to(x.dtype))

    def norm(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        if x.dtype in (torch.float32, torch.float64):
            return F.rms_norm(x, weight.shape, weight.to(x.dtype), eps)
        # The published code rounds to bf16 before it multiplies by the weight; the fused kernel does not.
        normed = F.rms_norm(x.float(), weight.shape, None, eps).to(x.dtype)
        return weight.to(x.dtype) * normed

    def activate(self, gate: Tensor, up: Tensor) -> Tensor:
        return self.activation(gate) * up

    def rope(self, positions: Tensor, theta: float, dim: int, dtype: torch.dtype) -> Rope:
        angles = rope_angles(positions, theta, dim)
        angles = torch.cat([angles, angles], dim=-1).unsqueeze(-2)
        return angles.cos().to(dtype), angles.sin().to(dtype)

    def rotate(self, x: Tensor, rope: Rope) -> Tensor:
        cos, sin = rope
        first, second = x.chunk(2, dim=-1)
        return x * cos + torch.cat([-second, first], dim=-1) * sin

    def refresh(self) -> list[Tensor]:
        return []


def rope_angles(positions: Tensor, theta: float, dim: int) -> Tensor:
    """RoPE angles: positions [...] -> fp32 [..., dim / 2], the same in every loop."""
    exponents = torch.arange(0, dim, 2, dtype=torch.float32, device=positions.device) / dim
    return positions[..., None].float() * (1.0 / theta**exponents)


class KernelOps:
    """Operations by kernels, for rows [n, ...] on their device. Weights are packed once per version.

    `batch_invariant`: products are batch-invariant; all other operations always are."""

    tile = 1

    def __init__(self, kernels: RowKernels, *, batch_invariant: bool):
        self.kernels, self.batch_invariant = kernels, batch_invariant
        self._kept: dict[tuple, CachedProduct] = {}

    def linear(self, x: Tensor, *modules: nn.Linear) -> tuple[Tensor, ...]:
        out = self._multiply(x, *(module.weight for module in modules))
        return (out,) if len(modules) == 1 else out.split([module.out_features for module in modules], dim=-1)

    def product(self, x: Tensor, weight: Tensor) -> Tensor:
        return self._multiply(x, weight)

    def _multiply(self, x: Tensor, *weights: Tensor) -> Tensor:
        product = self.product_of(x.dtype, *weights)
        return _Linear.apply(x, product, *weights) if torch.is_grad_enabled() else product(x)

    def product_of(self, dtype: torch.dtype, *weights: Tensor) -> Product:
        """The product by these matrices [N_i, K], concatenated along N, at their current version."""
        key = dtype, *map(id, weights)
        kept = self._kept.get(key)
        if kept is None or not kept.is_of(weights):
            kept = self._kept[key] = CachedProduct(weights)
            kept.forget_with(self._kept, key, weights)
        return kept.product(self.kernels, weights, dtype, self.batch_invariant)

    def refresh(self) -> list[Tensor]:
        copies = []
        for (dtype, *_), kept in list(self._kept.items()):
            weights = [weight for reference in kept.weights if (weight := reference()) is not None]
            if len(weights) == len(kept.weights):
                copies.append(kept.product(self.kernels, weights, dtype, self.batch_invariant).copy)
        return [copy for copy in copies if copy is not None]

    def norm(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        if torch.is_grad_enabled():
            return _RMSNorm.apply(self.kernels, x, weight, eps)
        return self.kernels.rms_norm(x, weight, eps)

    def activate(self, gate: Tensor, up: Tensor) -> Tensor:
        return _SiluMul.apply(self.kernels, gate, up) if torch.is_grad_enabled() else self.kernels.silu_mul(gate, up)

    def rope(self, positions: Tensor, theta: float, dim: int, dtype: torch.dtype) -> Rope:
        angles = rope_angles(positions, theta, dim)
        return angles.cos(), angles.sin()

    def rotate(self, x: Tensor, rope: Rope) -> Tensor:
        return _Rotate.apply(self.kernels, x, *rope) if torch.is_grad_enabled() else self.kernels.rotate(x, *rope)


TORCH_OPS = TorchOps()


register_optimizer_step_post_hook(count_step)
