"""Autograd functions for the row kernels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ouro_rl.kernels.interface import Product, RowKernels
from ouro_rl.kernels.processor import has_bf16_products


def gradient_product(a: Tensor, b: Tensor) -> Tensor:
    """a @ b in the precision of a; computed in fp32 on CPUs that only emulate bf16."""
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
            grads = [
                part.to(weight.dtype)
                for part, weight in zip(whole.split([len(w) for w in weights]), weights, strict=True)
            ]
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
