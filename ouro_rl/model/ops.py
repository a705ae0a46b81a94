"""The operations of a layer on rows: in plain torch, or by the C kernels.

`KernelOps` computes each row by itself, so that a rollout worker (any batch) and the trainer's replay (another batch) get the same
bits from the same inputs; its gradients are ordinary torch. `TorchOps` is what every device has.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from ouro_rl import native

if TYPE_CHECKING:
    from ouro_rl.model.layers import OuroMLP, OuroRMSNorm, OuroRotaryEmbedding

Rope = tuple[Tensor, Tensor]
"""What `Ops.rope` gives: two tensors by row, for `Ops.rotate`."""
Product = Callable[[Tensor], Tensor]
ONEDNN_TILE = 64
"""Rows of a product by oneDNN when rows must not depend on their company: its results change with the number of rows."""


class Ops(Protocol):
    tile: int
    """Rows that must be filled to a multiple for a row not to depend on its company; 1 where it never does."""

    def linear(self, x: Tensor, *modules: nn.Linear) -> tuple[Tensor, ...]:
        """x [..., K] through matrices that read the same rows."""

    def product(self, x: Tensor, weight: Tensor) -> Tensor:
        """x [n, K] by one matrix [N, K], in the precision of x."""

    def norm(self, module: OuroRMSNorm, x: Tensor) -> Tensor:
        """RMS norm of x [..., hidden]."""

    def activate(self, mlp: OuroMLP, gate: Tensor, up: Tensor) -> Tensor:
        """act(gate) * up."""

    def rope(self, embedding: OuroRotaryEmbedding, positions: Tensor, dtype: torch.dtype) -> Rope:
        """Angles by position, for `rotate`."""

    def rotate(self, x: Tensor, rope: Rope) -> Tensor:
        """Rotary embedding of x [..., heads, dim]."""


class TorchOps:
    tile = 16
    """fp32 MKL has other code below 16 rows, and for the remainder of a matrix-vector product."""

    def linear(self, x: Tensor, *modules: nn.Linear) -> tuple[Tensor, ...]:
        return tuple(module(x) for module in modules)

    def product(self, x: Tensor, weight: Tensor) -> Tensor:
        return F.linear(x, weight.to(x.dtype))

    def norm(self, module: OuroRMSNorm, x: Tensor) -> Tensor:
        return module(x)

    def activate(self, mlp: OuroMLP, gate: Tensor, up: Tensor) -> Tensor:
        return mlp.act_fn(gate) * up

    def rope(self, embedding: OuroRotaryEmbedding, positions: Tensor, dtype: torch.dtype) -> Rope:
        angles = embedding.angles(positions)
        angles = torch.cat([angles, angles], dim=-1).unsqueeze(-2)
        return angles.cos().to(dtype), angles.sin().to(dtype)

    def rotate(self, x: Tensor, rope: Rope) -> Tensor:
        cos, sin = rope
        first, second = x.chunk(2, dim=-1)
        return x * cos + torch.cat([-second, first], dim=-1) * sin


class KernelOps:
    """For rows [n, ...] on the CPU. Weights are packed once for each of their versions.

    bf16 products go through oneDNN where the CPU has instructions for them (AMX, AVX512-BF16), and through the C kernel, which
    computes in fp32, elsewhere. `exact`: oneDNN gets tiles of one height; the C kernel is exact in any case."""

    tile = 1

    def __init__(self, kernels: native.Kernels, *, exact: bool):
        self.kernels, self.exact = kernels, exact
        self._packed: dict[tuple, tuple[tuple, Product]] = {}

    def linear(self, x: Tensor, *modules: nn.Linear) -> tuple[Tensor, ...]:
        out = self._multiply(x, *(module.weight for module in modules))
        return (out,) if len(modules) == 1 else out.split([module.out_features for module in modules], dim=-1)

    def product(self, x: Tensor, weight: Tensor) -> Tensor:
        return self._multiply(x, weight)

    def _multiply(self, x: Tensor, *weights: Tensor) -> Tensor:
        packed = self._pack(x.dtype, *weights)
        return _Linear.apply(x, packed, *weights) if torch.is_grad_enabled() else packed(x)

    def _pack(self, dtype: torch.dtype, *weights: Tensor) -> Product:
        """These matrices [N, K] side by side, packed at their last version."""
        key = dtype, *(id(weight) for weight in weights)
        version = (optimizer_steps, *((weight._version, weight.data_ptr()) for weight in weights))
        known, packed = self._packed.get(key, (None, None))
        if packed is None or known != version:
            with torch.no_grad():
                matrix = torch.cat([weight.detach().to(dtype) for weight in weights])
            if dtype == torch.bfloat16 and has_bf16_products():
                packed = onednn_product(matrix, tile=ONEDNN_TILE if self.exact else None)
            else:
                packed = kernel_product(self.kernels, matrix)
            self._packed[key] = version, packed
        return packed

    def norm(self, module: OuroRMSNorm, x: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            return _RMSNorm.apply(self.kernels, x, module.weight, module.eps)
        return self.kernels.rms_norm(x, rounded(module.weight, x.dtype), module.eps)

    def activate(self, mlp: OuroMLP, gate: Tensor, up: Tensor) -> Tensor:
        return _SiluMul.apply(self.kernels, gate, up) if torch.is_grad_enabled() else self.kernels.silu_mul(gate, up)

    def rope(self, embedding: OuroRotaryEmbedding, positions: Tensor, dtype: torch.dtype) -> Rope:
        angles = embedding.angles(positions)
        return angles.cos(), angles.sin()

    def rotate(self, x: Tensor, rope: Rope) -> Tensor:
        return _Rotate.apply(self.kernels, x, *rope) if torch.is_grad_enabled() else self.kernels.rotate(x, *rope)


TORCH_OPS = TorchOps()

optimizer_steps = 0
"""Of all optimizers of this process: fused ones change weights without a new `_version`."""


def _count_step(*_: object) -> None:
    global optimizer_steps
    optimizer_steps += 1


register_optimizer_step_post_hook(_count_step)


@functools.cache
def has_bf16_products() -> bool:
    """Whether oneDNN's bf16 products are instructions here; elsewhere they are emulated, at a fifth of fp32's speed."""
    flags = native.cpu_flags().split()
    return "amx_bf16" in flags or "avx512_bf16" in flags


def kernel_product(kernels: native.Kernels, weights: Tensor) -> Product:
    """x [n, K] -> [n, N] by the C kernel on weights [N, K] of the same precision."""
    packed = native.pack(weights)
    return lambda x: kernels.linear(x, packed)


def onednn_product(weights: Tensor, tile: int | None) -> Product:
    """x [n, K] -> [n, N] by oneDNN on packed bf16 weights [N, K]; in tiles of one height, filled with zeros, or all rows at once."""
    packed = torch.ops.mkldnn._reorder_linear_weight(weights, tile or ONEDNN_TILE)

    def product(x: Tensor) -> Tensor:
        if tile is None:
            return torch.ops.mkldnn._linear_pointwise(x, packed, None, "none", [], "")
        rows = F.pad(x, (0, 0, 0, -len(x) % tile))
        parts = [torch.ops.mkldnn._linear_pointwise(part, packed, None, "none", [], "") for part in rows.split(tile)]
        return torch.cat(parts)[: len(x)] if parts else x.new_empty(0, len(weights))

    return product


def rounded(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """A norm's weight in the precision of the rows, as torch's module has it, but stored in fp32, as the kernel reads it."""
    weight = weight.detach()
    return weight if weight.dtype == dtype == torch.float32 else weight.to(dtype).float()


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
    def forward(ctx, kernels: native.Kernels, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.kernels, ctx.eps = kernels, eps
        return kernels.rms_norm(x, rounded(weight, x.dtype), eps)

    @staticmethod
    def backward(ctx, grad: Tensor):
        x, weight = ctx.saved_tensors
        grad_x, grad_weight = ctx.kernels.rms_norm_gradient(grad, x, rounded(weight, x.dtype), ctx.eps)
        return None, grad_x, grad_weight.to(weight.dtype), None


class _Rotate(torch.autograd.Function):
    @staticmethod
    def forward(ctx, kernels: native.Kernels, x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
        ctx.kernels = kernels
        ctx.save_for_backward(cosines, sines)
        return kernels.rotate(x, cosines, sines)

    @staticmethod
    def backward(ctx, grad: Tensor):
        return None, ctx.kernels.rotate(grad, *ctx.saved_tensors, back=True), None, None


class _SiluMul(torch.autograd.Function):
    @staticmethod
    def forward(ctx, kernels: native.Kernels, gate: Tensor, up: Tensor) -> Tensor:
        ctx.kernels = kernels
        ctx.save_for_backward(gate, up)
        return kernels.silu_mul(gate, up)

    @staticmethod
    def backward(ctx, grad: Tensor):
        return None, *ctx.kernels.silu_mul_gradient(grad, *ctx.saved_tensors)
