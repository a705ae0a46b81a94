"""The operations of a layer on rows: in plain torch, or by kernels for single rows (`ouro_rl.row_kernels`).

`KernelOps` computes each row by itself, so that a rollout worker (any batch) and the trainer's replay (another batch) get the same
bits from the same inputs; products apart, its gradients are kernels too. `TorchOps` is what every device has.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from ouro_rl.processor import has_bf16_products
from ouro_rl.row_kernels import Product, RowKernels

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
            kept.forget_with(self._kept, key)
        return kept.product(self.kernels, weights, dtype, self.exact)

    def refresh(self) -> list[Tensor]:
        copies = []
        for (dtype, *_), kept in list(self._kept.items()):
            weights = [reference() for reference in kept.weights]
            if all(weight is not None for weight in weights):
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


class _Kept:
    """The product by some weights, as of a version of them. Does not keep them alive, and knows another tensor that got their place."""

    def __init__(self, weights: Sequence[Tensor]):
        self.weights = [weakref.ref(weight) for weight in weights]
        self._version: tuple = ()
        self._product: Product | None = None

    def is_of(self, weights: Sequence[Tensor]) -> bool:
        return refer_to(self.weights, weights)

    def forget_with(self, kept: dict[tuple, _Kept], key: tuple) -> None:
        """Leave `kept` with the first of the weights that goes."""

        def forget(_: object) -> None:
            if kept.get(key) is self:
                del kept[key]

        self.weights = [weakref.ref(reference(), forget) for reference in self.weights]

    def product(self, kernels: RowKernels, weights: Sequence[Tensor], dtype: torch.dtype, exact: bool) -> Product:
        version = version_of(weights)
        if self._product is None or self._version != version:
            self._product = kernels.product(weights, dtype, exact=exact, old=self._product)
            self._version = version
        return self._product


TORCH_OPS = TorchOps()

optimizer_steps = 0
"""Of all optimizers of this process: fused ones change weights without a new `_version`."""


def version_of(weights: Sequence[Tensor]) -> tuple:
    """Another one when any of these tensors has changed, or moved."""
    return optimizer_steps, *((weight._version, weight.data_ptr()) for weight in weights)


def refer_to(references: Sequence[weakref.ref], tensors: Sequence[Tensor]) -> bool:
    """Whether these are references to these very tensors."""
    return all(reference() is tensor for reference, tensor in zip(references, tensors, strict=True))


def _count_step(*_: object) -> None:
    global optimizer_steps
    optimizer_steps += 1


register_optimizer_step_post_hook(_count_step)


def gradient_product(a: Tensor, b: Tensor) -> Tensor:
    """a @ b in the precision of a, by fp32 where bf16 would be emulated."""
    if a.dtype == torch.bfloat16 and a.device.type == "cpu" and not has_bf16_products():
        return (a.float() @ b.float()).to(a.dtype)
    return a @ b.to(a.dtype)


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, product: Product, *weights: Tensor) -> Tensor:
        ctx.save_for_backward(x, *weights)
        return product(x)

    @staticmethod
    def backward(ctx, grad: Tensor):
        x, *weights = ctx.saved_tensors
        grad_x = None
        if ctx.needs_input_grad[0]:
            grad_x = gradient_product(grad, torch.cat(weights) if len(weights) > 1 else weights[0])
        grads: Sequence[Tensor | None] = [None] * len(weights)
        if any(ctx.needs_input_grad[2:]):
            whole = gradient_product(grad.t(), x)
            grads = [part.to(weight.dtype) for part, weight in zip(whole.split([len(w) for w in weights]), weights, strict=True)]
        return grad_x, None, *grads


class _RMSNorm(torch.autograd.Function):
    """y = x r w with r = 1 / sqrt(mean(x^2) + eps)."""

    @staticmethod
    def forward(ctx, kernels: RowKernels, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.kernels, ctx.eps = kernels, eps
        return kernels.rms_norm(x, weight, eps)

    @staticmethod
    def backward(ctx, grad: Tensor):
        x, weight = ctx.saved_tensors
        grad_x, grad_weight = ctx.kernels.rms_norm_gradient(grad, x, weight, ctx.eps)
        return None, grad_x, grad_weight.to(weight.dtype), None


class _Rotate(torch.autograd.Function):
    @staticmethod
    def forward(ctx, kernels: RowKernels, x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
        ctx.kernels = kernels
        ctx.save_for_backward(cosines, sines)
        return kernels.rotate(x, cosines, sines)

    @staticmethod
    def backward(ctx, grad: Tensor):
        return None, ctx.kernels.rotate(grad, *ctx.saved_tensors, back=True), None, None


class _SiluMul(torch.autograd.Function):
    @staticmethod
    def forward(ctx, kernels: RowKernels, gate: Tensor, up: Tensor) -> Tensor:
        ctx.kernels = kernels
        ctx.save_for_backward(gate, up)
        return kernels.silu_mul(gate, up)

    @staticmethod
    def backward(ctx, grad: Tensor):
        return None, *ctx.kernels.silu_mul_gradient(grad, *ctx.saved_tensors)
