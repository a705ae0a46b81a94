"""The benchmarks at tiny sizes, and a machine with round figures."""

from __future__ import annotations

import dataclasses

from ouro_rl.bench.roofline import Machine
from ouro_rl.bench.workload import QUICK

TINY = dataclasses.replace(
    QUICK, batch=4, small_batch=2, group=2, tokens=8, group_prompt=16, curve_tokens=8, batches=(1, 2),
    contexts=(8, 16, 32), groups=(1, 2), read_bytes=1 << 20, gemm_size=64,
)  # fmt: skip


MACHINE = Machine(bytes_per_second=1e9, flop_per_second=1e12, how_read="", how_multiplied="")
