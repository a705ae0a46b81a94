"""A self-test of the kernels before a model relies on them: finds an unsuitable compiler or driver.

Results are compared with plain torch in fp64 on the same device, and each row bitwise with itself in another batch and
at another position. Gradients are only checked for being finite; `tests/gpu/test_gpu.py` compares their values."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

ROWS = 40
OTHERS = 7
"""Rows that are left out in the second run, so that the others move to other positions in their tiles."""
READ = 100
"""Entries of the block-table row that is attended to."""
WIDTH = 96
MANY = 1024
"""Number of rows that uses large tiles."""
INPUTS = (1000, 1024)
"""Input widths of products: one that is not a multiple of the step over k, and one that is: two kernels."""
TOLERANCE = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}


def check(kernels: Any, device: torch.device, dtype: torch.dtype, *, heads: int, kv_heads: int, head_dim: int) -> None:
    """Run the self-test. Raises RuntimeError for wrong results, and whatever Triton raises."""
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(device, dtype)

    x, weights, norm = random(ROWS, WIDTH), random(3 * WIDTH, WIDTH), random(WIDTH)
    whole, wide = random(ROWS, INPUTS[-1]), random(12, INPUTS[-1])
    for kind in {dtype, torch.float32}:  # the gate is computed in fp32
        for rows, matrix in ((x, weights), (x, weights[:1]), (whole, wide), (whole, wide[:1])):
            rows, matrix = rows.to(kind), matrix.to(kind)
            product = kernels.product([matrix], kind, batch_invariant=True, old=None)
            wanted = F.linear(rows.double(), matrix.double())
            _agree("product", kind, product(rows), wanted, product(rows[OTHERS:]))
    normed = F.rms_norm(x.double(), (WIDTH,), None, 1e-6) * norm.double()
    _agree("norm", dtype, kernels.rms_norm(x, norm, 1e-6), normed, kernels.rms_norm(x[OTHERS:], norm, 1e-6))
    mixed = F.silu(x.double()) * x.double()
    _agree("activation", dtype, kernels.silu_mul(x, x), mixed, kernels.silu_mul(x[OTHERS:], x[OTHERS:]))

    q, keys, values = random(ROWS, heads, head_dim), random(READ, kv_heads, head_dim), random(READ, kv_heads, head_dim)
    angles = random(ROWS, head_dim // 2).float()
    cosines, sines = angles.cos(), angles.sin()
    first, second = q.double().chunk(2, dim=-1)
    wanted = torch.complex(first, second) * torch.complex(cosines.double(), sines.double()).unsqueeze(1)
    turned = kernels.rotate(q[OTHERS:], cosines[OTHERS:], sines[OTHERS:])
    _agree("rotation", dtype, kernels.rotate(q, cosines, sines), torch.cat([wanted.real, wanted.imag], dim=-1), turned)

    table = torch.arange(READ, device=device).unsqueeze(0)
    table_rows, contexts = (
        torch.zeros(ROWS, dtype=torch.int64, device=device),
        READ - ROWS + torch.arange(1, ROWS + 1, device=device),
    )
    read = torch.arange(READ, device=device) < contexts.unsqueeze(1)
    heads_first = [part.double().transpose(0, 1) for part in (q, keys, values)]
    wanted = F.scaled_dot_product_attention(
        heads_first[0],
        heads_first[1],
        heads_first[2],
        attn_mask=read,
        scale=head_dim**-0.5,
        enable_gqa=heads != kv_heads,
    ).transpose(0, 1)
    tiles, unshared = kernels.plan_rows(table, table_rows, contexts), len(table_rows[OTHERS:])
    alone = kernels.plan_rows(table, table_rows[OTHERS:], contexts[OTHERS:], unshared=unshared)
    together, alone = (
        kernels.attend(some, keys, values, plan, head_dim**-0.5) for some, plan in ((q, tiles), (q[OTHERS:], alone))
    )
    _agree("attention", dtype, together, wanted, alone)

    slopes = kernels.rms_norm_gradient(x, x, norm, 1e-6), kernels.silu_mul_gradient(x, x, x)
    if not all(slope.isfinite().all() for pair in slopes for slope in pair):
        raise RuntimeError("the gradients are not finite")


def widen(kernels: Any, device: torch.device, dtype: torch.dtype) -> str:
    """Enable large tiles for batch-invariant products of many rows if they are bitwise equal to small ones here.

    Returns a note for the user if they are not, otherwise an empty string."""
    if dtype == torch.float32:
        return ""  # fp32 has no large tiles
    generator = torch.Generator().manual_seed(1)
    # Random signs make sums cancel, so that another order of summation changes the result.
    why = ""
    for inputs in INPUTS:
        x, weights = (torch.randn(size, inputs, generator=generator).to(device, dtype) for size in (MANY, 200))
        kernels.wide = False
        small = kernels.product([weights], dtype, batch_invariant=True)(x)
        kernels.wide = True
        try:
            if not torch.equal(kernels.product([weights], dtype, batch_invariant=True)(x), small):
                why = "large ones sum in another order on this device"
        except Exception as error:  # for example a device with less shared memory
            why = type(error).__name__
    if not why:
        return ""
    kernels.wide = False
    return f" (products of many rows in small tiles: {why})"


def _agree(what: str, dtype: torch.dtype, got: Tensor, expected: Tensor, fewer: Tensor) -> None:
    """Raise RuntimeError unless `got` [ROWS, ...] is close to `expected`, and got[OTHERS:] bitwise equal to `fewer`."""
    if not (got.double() - expected).abs().max() <= TOLERANCE[dtype] * expected.abs().max():  # also fails for NaN
        raise RuntimeError(f"wrong results ({what})")
    if not torch.equal(got[OTHERS:], fewer):
        raise RuntimeError(f"not batch-invariant ({what})")
