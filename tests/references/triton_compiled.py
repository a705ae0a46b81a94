"""Cases of tests/references/triton_cases.py that compile without a GPU: launches are intercepted and only compiled."""

import subprocess
import tempfile
from pathlib import Path

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime.jit import JITFunction

from ouro_rl.kernels.gpu import linear
from ouro_rl.kernels.gpu.kernels import TritonKernels

HIDDEN, HEADS, DIM, INTERMEDIATE, VOCABULARY = 2048, 16, 128, 5632, 49152
"""The shapes of Ouro-1.4B."""
SHARED = 227 << 10
"""Shared memory per program on compute capability 9.0, in bytes."""

_run = JITFunction.run


class _NoDevice:
    def get_current_target(self):
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self):
        return 0

    def get_current_stream(self, device=None):
        return 0


def catch_launches():
    """From now on, launches only compile for their arguments. Returns the list of (name, compiled kernel)."""
    triton.runtime.driver.set_active(_NoDevice())
    made = []

    def compile_only(self, *arguments, warmup, **keywords):
        made.append((self.__name__, _run(self, *arguments, warmup=True, **keywords)))

    JITFunction.run = compile_only
    return made


def resources(cubin):
    """The resources that a binary's kernel uses; spilled registers count as stack."""
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        return subprocess.run(
            [tool, "--dump-resource-usage", file.name], capture_output=True, text=True, check=True
        ).stdout


def layer(rows, dtype, tiles):
    """All launches of a layer and its gradients; `tiles`: all rows have the same block-table row, else each its own."""
    kernels = TritonKernels(sharing=1)

    def product(outputs, inputs, kind=dtype):
        weights = torch.empty(outputs, inputs, dtype=kind)
        return kernels.product([weights], kind, batch_invariant=True)(torch.empty(rows, inputs, dtype=kind))

    x, weight = torch.empty(rows, HIDDEN, dtype=dtype), torch.ones(HIDDEN, dtype=dtype)
    kernels.rms_norm(x, weight, 1e-6)
    kernels.rms_norm_gradient(x, x, weight, 1e-6)
    q, k, _ = (part.unflatten(1, (HEADS, DIM)) for part in product(3 * HIDDEN, HIDDEN).split(HIDDEN, dim=1))
    angles = torch.empty(rows, DIM // 2)
    for part in (q, k):
        kernels.rotate(part, angles, angles)
        kernels.rotate(part, angles, angles, back=True)
    table, table_rows = (
        torch.zeros(70, 513 if tiles else 640, dtype=torch.int64),
        torch.arange(rows) * (0 if tiles else 1),
    )
    pool = torch.empty(100, HEADS, DIM, dtype=dtype)
    plan = kernels.plan_rows(table, table_rows, torch.ones_like(table_rows), unshared=0 if tiles else rows)
    kernels.attend(q.contiguous(), pool, pool, plan, 0.1)
    gate, up = product(2 * INTERMEDIATE, HIDDEN).split(INTERMEDIATE, dim=1)
    kernels.silu_mul(gate, up)
    kernels.silu_mul_gradient(gate, gate, up)
    product(HIDDEN, INTERMEDIATE)
    product(VOCABULARY, HIDDEN)
    product(1, HIDDEN, torch.float32)


def compiled():
    """Machine code of every kernel at the shapes of Ouro-1.4B; half-precision products use Hopper's tensor cores."""
    made = catch_launches()
    TritonKernels(sharing=1).product([torch.empty(64, 48)], torch.float32, batch_invariant=True)(torch.empty(5, 48))
    assert "wgmma" not in made[0][1].asm["ptx"], "fp32 must not be rounded to fewer bits"
    layer(70, torch.bfloat16, tiles=True)
    names = {name for name, _ in made}
    assert names == {
        "_linear",
        "_dot_rows",
        "_rms_norm",
        "_rms_norm_gradient",
        "_rotate",
        "_silu_mul",
        "_silu_mul_gradient",
        "_attend_tile",
    }, names
    for name, kernel in made:
        assert kernel.metadata.shared <= SHARED, name
        used = resources(kernel.asm["cubin"])
        assert "REG:" in used and "STACK:0 " in used and "LOCAL:0 " in used, (name, used)
    halves = [kernel.asm["ptx"] for name, kernel in made[1:] if name == "_linear"]
    assert len(halves) == 4 and all("wgmma" in text for text in halves)
    made.clear()
    many = torch.empty(linear.WIDE_FROM, HIDDEN, dtype=torch.bfloat16)
    linear.linear(many, torch.empty(3 * HIDDEN, HIDDEN, dtype=torch.bfloat16), wide=True)
    ((_, wide),) = made
    assert wide.metadata.shared <= SHARED and "wgmma" in wide.asm["ptx"]
    assert "STACK:0 " in (used := resources(wide.asm["cubin"])) and "LOCAL:0 " in used
    # Grouped heads of a size that is not a power of two; and attention in fp32, which needs the most shared memory.
    grouped = TritonKernels(sharing=3)
    for dtype, heads, dim in [(torch.float16, 6, 80), (torch.float32, 6, 128)]:
        q, pool, table_rows = (
            torch.empty(5, heads, dim, dtype=dtype),
            torch.empty(9, heads // 3, dim, dtype=dtype),
            torch.arange(5),
        )
        grouped.attend(
            q, pool, pool, grouped.plan_rows(torch.zeros(5, 9, dtype=torch.int64), table_rows, table_rows), 0.1
        )
        assert made[-1][1].metadata.shared <= SHARED


def one_binary():
    """The same machine code for one row, a full tile and more, and for a narrow and a wide block table.

    The interpreter cannot show this. By default Triton specializes for integers that are 1 or multiples of 16."""
    made = catch_launches()
    calls = []
    for rows, tiles in [(1, False), (64, True), (70, True)]:
        made.clear()
        layer(rows, torch.bfloat16, tiles)
        calls.append([(name, kernel.hash) for name, kernel in made])
    assert calls[0] == calls[1] == calls[2]
