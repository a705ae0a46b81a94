"""A small run of the kernels before a model relies on them: a compiler or a driver that does not fit shows here.

Compared is with plain torch in fp64 on the same device; and each row, to the bit, with itself in other company and elsewhere. Gradients are
only looked at for numbers: `tests/gpu/test_gpu.py` compares them.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

ROWS = 40
OTHERS = 7
"""Rows that are left out the second time: the others lie elsewhere then, in a tile too."""
READ = 100
"""Entries of the one line that is attended to."""
WIDTH = 96
MANY = 1024
"""Rows that go in large tiles."""
INPUTS = (1000, 1024)
"""Widths of products: one with a rest behind the last whole step, one without. They are kernels of their own."""
TOLERANCE = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}


def check(kernels: Any, device: torch.device, dtype: torch.dtype, *, heads: int, kv_heads: int, head_dim: int) -> None:
    """Raises what Triton raises, or RuntimeError where results are wrong."""
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(device, dtype)

    x, weights, norm = random(ROWS, WIDTH), random(3 * WIDTH, WIDTH), random(WIDTH)
    whole, wide = random(ROWS, INPUTS[-1]), random(12, INPUTS[-1])
    for kind in {dtype, torch.float32}:  # the gate is read in fp32
        for rows, matrix in ((x, weights), (x, weights[:1]), (whole, wide), (whole, wide[:1])):
            rows, matrix = rows.to(kind), matrix.to(kind)
            product = kernels.product([matrix], kind, exact=True, old=None)
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
    lines, contexts = (
        torch.zeros(ROWS, dtype=torch.int64, device=device),
        READ - ROWS + torch.arange(1, ROWS + 1, device=device),
    )
    read = torch.arange(READ, device=device) < contexts.unsqueeze(1)
    heads_first = [part.double().transpose(0, 1) for part in (q, keys, values)]
    wanted = F.scaled_dot_product_attention(
        heads_first[0], heads_first[1], heads_first[2], attn_mask=read, scale=head_dim**-0.5,
        enable_gqa=heads != kv_heads,
    ).transpose(0, 1)  # fmt: skip
    tiles, apart = kernels.plan_rows(table, lines, contexts), len(lines[OTHERS:])
    alone = kernels.plan_rows(table, lines[OTHERS:], contexts[OTHERS:], apart=apart)
    together, alone = (
        kernels.attend(some, keys, values, plan, head_dim**-0.5) for some, plan in ((q, tiles), (q[OTHERS:], alone))
    )
    _agree("attention", dtype, together, wanted, alone)

    slopes = kernels.rms_norm_gradient(x, x, norm, 1e-6), kernels.silu_mul_gradient(x, x, x)
    if not all(slope.isfinite().all() for pair in slopes for slope in pair):
        raise RuntimeError("the gradients are no numbers")


def widen(kernels: Any, device: torch.device, dtype: torch.dtype) -> str:
    """Let exact products of many rows take large tiles, if they give the bits of small ones here. Returns what is to be said if not."""
    if dtype == torch.float32:
        return ""  # has no large ones
    generator = torch.Generator().manual_seed(1)
    # Sums that cancel: another order of adding shows.
    why = ""
    for inputs in INPUTS:
        x, weights = (torch.randn(size, inputs, generator=generator).to(device, dtype) for size in (MANY, 200))
        kernels.wide = False
        small = kernels.product([weights], dtype, exact=True)(x)
        kernels.wide = True
        try:
            if not torch.equal(kernels.product([weights], dtype, exact=True)(x), small):
                why = "larger ones add in another order here"
        except Exception as error:  # a device with less shared memory, say
            why = type(error).__name__
    if not why:
        return ""
    kernels.wide = False
    return f" (products of many rows in small tiles: {why})"


def _agree(what: str, dtype: torch.dtype, got: Tensor, expected: Tensor, fewer: Tensor) -> None:
    """`got` [ROWS, ...] is `expected`, and what came out without its first rows is the same to the bit."""
    if not (got.double() - expected).abs().max() <= TOLERANCE[dtype] * expected.abs().max():  # nor if it is no number
        raise RuntimeError(f"the kernel's results are wrong ({what})")
    if not torch.equal(got[OTHERS:], fewer):
        raise RuntimeError(f"a row depends on its company ({what})")
