"""The operations of a layer on rows: in plain torch, or by kernels for single rows (`ouro_rl.kernels.interface`).

`KernelOps` computes each row by itself, so that a rollout worker (any batch) and the trainer's replay (another batch) get the same
bits from the same inputs; products apart, its gradients are kernels too. `TorchOps` is what every device has.
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
from ouro_rl.kernels.weight_cache import _count_step, _Kept

Rope = tuple[Tensor, Tensor]
"""What `Ops.rope` gives: two tensors by row, for `Ops.rotate`."""


class Ops(Protocol):
    tile: int
    """Rows that must be filled to a multiple for a row not to depend on its company; 1 where it never does."""

    def linear(self, x: Tensor, *modules: nn.Linear) -> tuple[Tensor, ...]:
        """x [..., K] through matrices that read the same rows."""

    def product(self, x: Tensor, weight: Tensor) -> Tensor:
        """x [n, K] by one matrix [N, K], in the precision of x."""

    def norm(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        """RMS norm of x [..., hidden], weight [hidden]: x / rms(x) * weight, the mean of squares in fp32."""

    def activate(self, gate: Tensor, up: Tensor) -> Tensor:
        """act(gate) * up."""

    def rope(self, positions: Tensor, theta: float, dim: int, dtype: torch.dtype) -> Rope:
        """Angles of heads of `dim` numbers by position, for `rotate`."""

    def rotate(self, x: Tensor, rope: Rope) -> Tensor:
        """Rotary embedding of x [..., heads, dim]."""

    def refresh(self) -> list[Tensor]:
        """Bring copies of weights up to date where they lie, for a CUDA graph reads them there and asks nobody. Returns the copies."""


class TorchOps:
    tile = 16
    """fp32 MKL has other code below 16 rows, and for the remainder of a matrix-vector product."""

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
    """Positions [...] -> fp32 [..., dim / 2], the same in every loop."""
    exponents = torch.arange(0, dim, 2, dtype=torch.float32, device=positions.device) / dim
    return positions[..., None].float() * (1.0 / theta**exponents)


class KernelOps:
    """For rows [n, ...] on the device of the kernels. Weights are packed once for each of their versions.

    `exact`: no row of a product depends on its company; what else the kernels compute is so in any case."""

    tile = 1

    def __init__(self, kernels: RowKernels, *, exact: bool):
        self.kernels, self.exact = kernels, exact
        self._kept: dict[tuple, _Kept] = {}

    def linear(self, x: Tensor, *modules: nn.Linear) -> tuple[Tensor, ...]:
        out = self._multiply(x, *(module.weight for module in modules))
        return (out,) if len(modules) == 1 else out.split([module.out_features for module in modules], dim=-1)

    def product(self, x: Tensor, weight: Tensor) -> Tensor:
        return self._multiply(x, weight)

    def _multiply(self, x: Tensor, *weights: Tensor) -> Tensor:
        product = self.product_of(x.dtype, *weights)
        return _Linear.apply(x, product, *weights) if torch.is_grad_enabled() else product(x)

    def product_of(self, dtype: torch.dtype, *weights: Tensor) -> Product:
        """By these matrices [N, K], one below the other, at their last version."""
        key = dtype, *map(id, weights)
        kept = self._kept.get(key)
        if kept is None or not kept.is_of(weights):
            kept = self._kept[key] = _Kept(weights)
            kept.forget_with(self._kept, key, weights)
        return kept.product(self.kernels, weights, dtype, self.exact)

    def refresh(self) -> list[Tensor]:
        copies = []
        for (dtype, *_), kept in list(self._kept.items()):
            weights = [weight for reference in kept.weights if (weight := reference()) is not None]
            if len(weights) == len(kept.weights):
                copies.append(kept.product(self.kernels, weights, dtype, self.exact).copy)
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


register_optimizer_step_post_hook(_count_step)
