"""What tests/test_triton_attention.py runs in a process of its own: `python -m tests.triton_cases interpret|compile|engine`.

Triton decides when it is imported whether kernels are interpreted (on the CPU, by numpy) or compiled.
"""

import sys

import torch

from rollout_workers.triton_attention import BLOCK, _attend_row, attend_rows

TOLERANCE = {torch.float32: 1e-6, torch.float16: 2e-3, torch.bfloat16: 1e-2}
"""Of the results, whose rounding to 8 or 11 bits is most of it."""
CASES = [
    (torch.float32, 2, 2, 8),
    (torch.float32, 4, 2, 24),
    (torch.bfloat16, 2, 1, 64),
    (torch.float16, 3, 1, 16),
]
"""Precision, heads, kv heads, dim."""


def reference(q, keys, values, table, lines, contexts, scaling):
    """Row after row in fp64."""
    sharing = q.shape[1] // keys.shape[1]
    mixed = torch.zeros(q.shape, dtype=torch.float64)
    for row, (line, context) in enumerate(zip(lines.tolist(), contexts.tolist(), strict=True)):
        pages = table[line, :context]
        k, v = (pool[pages].double().repeat_interleave(sharing, 1) for pool in (keys, values))
        scores = torch.einsum("hd,chd->hc", q[row].double(), k) * scaling
        mixed[row] = torch.einsum("hc,chd->hd", scores.softmax(-1), v)
    return mixed


def interpret():
    torch.manual_seed(0)
    for dtype, heads, kv_heads, dim in CASES:
        keys, values = (torch.randn(300, kv_heads, dim).to(dtype) for _ in range(2))
        keys[0] = values[0] = torch.nan  # entries behind a context name the null page: they are not read
        table = torch.randint(1, 300, (6, 3 * BLOCK))
        lines, contexts = torch.tensor([5, 0, 3, 3, 1]), torch.tensor([1, BLOCK, BLOCK + 1, 3 * BLOCK, 130])
        table[5, 1:] = table[0, BLOCK:] = table[1, 130:] = 0
        q = (3 * torch.randn(len(lines) + 2, heads, dim)).to(dtype)
        rest, scaling = (keys, values, table), dim**-0.5
        mixed = attend_rows(q, *rest, lines, contexts, scaling)
        expected = reference(q[:5], *rest, lines, contexts, scaling)
        error = (mixed[:5].double() - expected).abs().max().item()
        assert error <= TOLERANCE[dtype] * expected.abs().max().item(), (dtype, heads, dim, error)
        assert not mixed[5:].any(), "rows beyond those that are planned give zeros"
        order = torch.tensor([4, 3])  # other company, other places: the same bits
        again = attend_rows(q[order], *rest, lines[order], contexts[order], scaling)
        assert torch.equal(again, mixed[order])
        nothing = attend_rows(q[:1], *rest, lines[:1], contexts[:1] * 0, scaling)
        assert not nothing.any(), "a row that reads nothing gives zeros"


def compile():
    """To machine code for a GPU that need not be there."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    for kind, heads, kv_heads, dim in [("bf16", 16, 16, 128), ("fp32", 4, 2, 24), ("fp16", 2, 1, 64)]:
        filled = triton.next_power_of_2(dim)
        constants = {"HEADS": heads, "SHARING": heads // kv_heads, "DIM": dim, "DIM_FILLED": filled, "BLOCK": BLOCK}
        types = dict.fromkeys(("mixed", "q", "keys", "values"), f"*{kind}")
        types |= dict.fromkeys(("table", "lines", "contexts"), "*i64") | {"width": "i32", "scaling": "fp32"}
        types |= dict.fromkeys(constants, "constexpr")
        source = ASTSource(fn=_attend_row, signature=types, constexprs=constants)
        compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32))
        assert compiled.metadata.shared <= 48 << 10 and len(compiled.asm["cubin"]) > 0


def engine():
    """Interpreted, within the whole engine: prompts and samples, ordinary and static passes."""
    from ouro_rl.types import SamplingParams
    from rollout_workers.attention import TritonAttention
    from rollout_workers.engine import RolloutEngine
    from tests.test_engine import assert_same, calm_model, make_requests

    model = calm_model(3, layers=1, heads=2, kv_heads=1, loops=2)
    requests, params = make_requests([1, 7, 70], group=1), SamplingParams(max_new_tokens=6)
    expected = RolloutEngine(model, max_batch=3).generate(requests, params)
    for static in (False, True):
        ours = RolloutEngine(model, max_batch=3, static_passes=static)
        ours.forward.attention = TritonAttention(ours.cache, heads=2)
        assert_same(ours.generate(requests, params), expected)


if __name__ == "__main__":
    {"interpret": interpret, "compile": compile, "engine": engine}[sys.argv[1]]()
