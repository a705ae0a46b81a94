"""A small run of every kernel before a model relies on them: a compiler or a driver that does not fit shows here.

Compared is with plain torch on the same device; and each row, to the bit, with itself in other company.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

ROWS = 20
WIDTH = 96
TOLERANCE = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}


def check(kernels: Any, device: torch.device, dtype: torch.dtype, *, heads: int, kv_heads: int, head_dim: int) -> None:
    """Raises what Triton raises, or RuntimeError where results are wrong."""
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(device, dtype)

    x, weights, norm = random(ROWS, WIDTH), random(3 * WIDTH, WIDTH), random(WIDTH)
    for kind in {dtype, torch.float32}:  # the gate is read in fp32
        product = kernels.product([weights.to(kind)], kind, exact=True, old=None)
        _agree("product", kind, product(x.to(kind)), F.linear(x.float(), weights.float()), product(x[7:8].to(kind))[0])
    normed = F.rms_norm(x.float(), (WIDTH,), None, 1e-6).to(dtype).float() * norm.float()
    _agree("norm", dtype, kernels.rms_norm(x, norm, 1e-6), normed, kernels.rms_norm(x[7:8], norm, 1e-6)[0])
    mixed = F.silu(x.float()) * x.float()
    _agree("activation", dtype, kernels.silu_mul(x, x), mixed, kernels.silu_mul(x[7:8], x[7:8])[0])

    q, keys, values = random(ROWS, heads, head_dim), random(ROWS, kv_heads, head_dim), random(ROWS, kv_heads, head_dim)
    angles = random(ROWS, head_dim // 2).float()
    turned = kernels.rotate(q, angles.cos(), angles.sin())
    first, second = q.float().chunk(2, dim=-1)
    cosines, sines = angles.cos().unsqueeze(1), angles.sin().unsqueeze(1)
    expected = torch.cat([first * cosines - second * sines, second * cosines + first * sines], dim=-1)
    _agree("rotation", dtype, turned, expected, kernels.rotate(q[7:8], angles[7:8].cos(), angles[7:8].sin())[0])

    table = torch.arange(ROWS, device=device).unsqueeze(0)
    lines, contexts = torch.zeros(ROWS, dtype=torch.int64, device=device), torch.arange(1, ROWS + 1, device=device)
    scaling = head_dim**-0.5
    mixed = F.scaled_dot_product_attention(
        *(part.float().transpose(0, 1) for part in (q, keys, values)), is_causal=True, scale=scaling,
        enable_gqa=heads != kv_heads,
    ).transpose(0, 1)  # fmt: skip
    together = kernels.attend(q, keys, values, kernels.plan_rows(table, lines, contexts), scaling)
    alone = kernels.plan_rows(table, lines[7:8], contexts[7:8], apart=1)
    _agree("attention", dtype, together, mixed, kernels.attend(q[7:8], keys, values, alone, scaling)[0])

    slopes = kernels.rms_norm_gradient(x, x, norm, 1e-6), kernels.silu_mul_gradient(x, x, x)
    if not all(slope.isfinite().all() for pair in slopes for slope in pair):
        raise RuntimeError("the gradients are no numbers")


def _agree(what: str, dtype: torch.dtype, got: Tensor, expected: Tensor, alone: Tensor) -> None:
    """`got` [ROWS, ...] is `expected`, and its row 7 `alone`."""
    if not (got.float() - expected).abs().max() <= TOLERANCE[dtype] * expected.abs().max():  # nor if it is no number
        raise RuntimeError(f"the kernel's results are wrong ({what})")
    if not torch.equal(got[7], alone):
        raise RuntimeError(f"a row depends on its company ({what})")
