"""Cases that tests/ouro_rl/kernels/test_gpu_kernels.py runs: `python -m tests.references.triton_cases CASE ...`.

Triton decides on import whether kernels are interpreted (on the CPU, by numpy) or compiled.
"""

import sys
from unittest import mock

import torch
import torch.nn.functional as F

from ouro_rl.kernels.gpu import linear, rowwise
from ouro_rl.kernels.gpu.attention import BLOCK
from ouro_rl.kernels.gpu.kernels import TritonKernels

TOLERANCE = {torch.float32: 2e-6, torch.float16: 2e-3, torch.bfloat16: 2**-7}
"""Tolerance of results; mostly their rounding to 8 or 11 bits."""
DTYPES = list(TOLERANCE)
SHAPES = [(torch.float32, 2, 2, 8), (torch.float32, 6, 2, 24), (torch.bfloat16, 2, 1, 64), (torch.float16, 3, 1, 16)]
"""Precision, heads, kv heads, dim."""


def near(got, expected, dtype):
    assert got.dtype == dtype and got.shape == expected.shape
    error, scale = (got.double() - expected).abs().max().item(), expected.abs().max().item()
    assert error <= TOLERANCE[dtype] * scale, (dtype, error / scale)


def products():
    torch.manual_seed(0)
    sizes = [(1, 1, 1), (3, 33, 7), (70, 40, 130), (130, 64, 256), (0, 5, 3)]
    for dtype in DTYPES:
        for rows, outputs, inputs in sizes:
            x, weights = torch.randn(rows, inputs).to(dtype), torch.randn(outputs, inputs).to(dtype)
            out = linear.linear(x, weights)
            assert out.shape == (rows, outputs)
            if rows == 0:
                continue
            near(out, x.double() @ weights.double().T, dtype)
            for start, stop in [(0, 1), (rows // 2, rows), (rows - 1, rows), (1, 14)]:  # other batches, other positions
                assert torch.equal(linear.linear(x[start:stop], weights), out[start:stop]), (dtype, rows)
            if dtype != torch.float32:  # in large tiles, which are for many rows
                with mock.patch.object(linear, "WIDE_FROM", 0):
                    near(linear.linear(x, weights, wide=True), x.double() @ weights.double().T, dtype)
            shuffled = torch.randperm(rows)
            assert torch.equal(linear.linear(x[shuffled], weights), out[shuffled])


def rows_in(dtype, kernels, theirs):
    """Values and gradients against fp64; rounding at the same points as in the C kernels."""
    torch.manual_seed(0)
    x, weight = (torch.randn(37, 96) * 3).to(dtype), torch.rand(96)
    heads, angles = torch.randn(37, 200).to(dtype)[:, 8:].unflatten(1, (3, 64)), torch.randn(37, 32)
    gate, up = (torch.randn(37, 96) * 4).to(dtype).split(48, dim=1)
    grads = [torch.randn(37, width).to(dtype) for width in (96, 48)]
    leaves = [tensor.double().requires_grad_() for tensor in (x, weight.to(dtype), gate, up)]
    wanted = [F.rms_norm(leaves[0], (96,), leaves[1], 1e-6), F.silu(leaves[2]) * leaves[3]]
    slopes = torch.autograd.grad(wanted, leaves, [grad.double() for grad in grads])

    def all_of(some, by):
        """All results for these rows."""
        cosines, sines = angles[some].cos(), angles[some].sin()
        turned = by.rotate(heads[some], cosines, sines)
        return [
            by.rms_norm(x[some], weight, 1e-6),
            by.silu_mul(gate[some], up[some]),
            turned,
            by.rotate(turned, cosines, sines, back=True),
            *by.silu_mul_gradient(grads[1][some], gate[some], up[some]),
            *by.rms_norm_gradient(grads[0][some], x[some], weight, 1e-6),
        ]

    whole = all_of(slice(None), kernels)
    normed, mixed, turned, back, into_gate, into_up, into_x, into_weight = whole
    first, second = heads.double().chunk(2, dim=-1)
    spun = torch.complex(first, second) * torch.polar(torch.ones_like(angles).double(), angles.double()).unsqueeze(1)
    near(normed, wanted[0].detach(), dtype)
    near(mixed, wanted[1].detach(), dtype)
    near(turned, torch.cat([spun.real, spun.imag], -1), dtype)
    near(back, heads.double(), dtype)
    for got, slope in ((into_x, slopes[0]), (into_gate, slopes[2]), (into_up, slopes[3])):
        near(got, slope, dtype)
    near(into_weight, slopes[1], torch.float32)
    for few in (slice(5, 6), slice(17, 37)):
        for part, full in zip(all_of(few, kernels)[:-1], whole[:-1], strict=True):
            assert torch.equal(part, full[few]), "not batch-invariant"
    if theirs is not None and dtype != torch.float16:
        for ours, other in zip(whole, all_of(slice(None), theirs), strict=True):
            near(ours, other.double(), ours.dtype)
            if ours.dtype == torch.bfloat16:  # sums that differ in the last bit rarely round differently
                assert (ours != other).float().mean() <= 0.005, "rounded at other points than in C"


def rows():
    from ouro_rl.kernels.cpu import select as cpu_kernels

    for dtype in DTYPES:
        rows_in(dtype, TritonKernels(sharing=1), cpu_kernels.load()[0])
    ends = torch.tensor([[-3e38, -torch.inf, -100.0, -88.0, -0.0, 0.0, 1e-30, 88.0, 100.0, 3e38]])
    expected = F.silu(ends).nan_to_num(0.0)  # torch gives NaN at -inf
    torch.testing.assert_close(rowwise.silu_mul(ends, torch.ones_like(ends)), expected, atol=1e-6, rtol=1e-6)
    assert rowwise.silu_mul(ends * torch.nan, torch.ones_like(ends)).isnan().all()


def paged(q, keys, values, table, table_rows, contexts, scaling):
    """Reference attention, row by row, in fp64 or with gradients if the inputs have them."""
    sharing, mixed = q.shape[1] // keys.shape[1], []
    for row, (table_row, context) in enumerate(zip(table_rows.tolist(), contexts.tolist(), strict=True)):
        k, v = (pool[table[table_row, :context]].repeat_interleave(sharing, 1) for pool in (keys, values))
        scores = torch.einsum("hd,chd->hc", q[row], k) * scaling
        mixed.append(torch.einsum("hc,chd->hd", scores.softmax(-1), v))
    return torch.stack(mixed)


def attend():
    """Alone and in tiles, contexts at and across block boundaries, grouped heads, dims that are not powers of two."""
    torch.manual_seed(0)
    for dtype, heads, kv_heads, dim in SHAPES:
        keys, values = (torch.randn(300, kv_heads, dim).to(dtype) for _ in range(2))
        keys[0] = values[0] = torch.nan  # entries past a context name the null page, which is not read
        table = torch.randint(1, 300, (6, 3 * BLOCK))
        prompt = torch.arange(BLOCK - 12, BLOCK + 9)  # consecutive rows of one block-table row, across a block boundary
        table_rows = torch.cat([torch.tensor([5, 0, 3, 3, 1]), torch.full_like(prompt, 4), torch.tensor([2, 2])])
        contexts = torch.cat([torch.tensor([1, BLOCK, BLOCK + 1, 3 * BLOCK, 130]), prompt, torch.tensor([3, 150])])
        table[5, 1:] = table[0, BLOCK:] = table[1, 130:] = table[4, BLOCK + 8 :] = table[2, 150:] = 0
        count, scaling, kernels = len(table_rows), dim**-0.5, TritonKernels(heads // kv_heads)
        q = (3 * torch.randn(count + 2, heads, dim)).to(dtype)
        tiled = kernels.plan_rows(table, table_rows, contexts)
        mixed = kernels.attend(q, keys, values, tiled, scaling)
        wide = [x.double() for x in (q[:count], keys, values)]
        near(mixed[:count], paged(*wide, table, table_rows, contexts, scaling), dtype)
        assert not mixed[count:].any(), "rows that are not planned must give zeros"
        unshared = kernels.plan_rows(table, table_rows, contexts, unshared=count)
        assert len(unshared.starts) == count + 1 > len(tiled.starts)
        assert torch.equal(kernels.attend(q, keys, values, unshared, scaling), mixed), (
            "a row alone differs from itself in a tile"
        )
        some = kernels.plan_rows(table, table_rows, contexts, unshared=7)
        assert len(tiled.starts) < len(some.starts) < count + 1
        assert torch.equal(kernels.attend(q, keys, values, some, scaling), mixed)
        order = torch.randperm(count)
        moved = kernels.plan_rows(table, table_rows[order], contexts[order])
        assert torch.equal(kernels.attend(q[order], keys, values, moved, scaling), mixed[order])
        none = kernels.plan_rows(table, table_rows[:2], contexts[:2] * torch.tensor([0, 1]))
        assert torch.equal(kernels.attend(q[:2], keys, values, none, scaling), torch.stack([mixed[0] * 0, mixed[1]]))
        assert (
            kernels.attend(
                q[:0], keys, values, kernels.plan_rows(table, table_rows[:0], table_rows[:0]), scaling
            ).shape[0]
            == 0
        )


def plan_of_samples():
    """Planning a pass of samples only does not read the device: it works on meta tensors."""
    table_rows = torch.zeros(9, dtype=torch.int64, device="meta")
    plan = TritonKernels(sharing=1).plan_rows(table_rows.view(3, 3), table_rows, table_rows, unshared=9)
    assert plan.starts.shape == (10,)
    try:
        TritonKernels(sharing=1).plan_rows(table_rows.view(3, 3), table_rows, table_rows, unshared=8)
    except Exception as error:
        assert "meta" in str(error)
    else:
        raise AssertionError("grouping rows must read their number")


KERNELS = {"products": products, "rows": rows, "attend": attend, "plan_of_samples": plan_of_samples}

if __name__ == "__main__":
    for case in sys.argv[1:]:
        if case in ("compiled", "one_binary"):
            from tests.references import triton_compiled as cases
        else:
            from tests.references import triton_interpreter  # noqa: F401

            if case not in KERNELS:
                from tests.references import triton_models as cases
        (KERNELS.get(case) or getattr(cases, case))()
