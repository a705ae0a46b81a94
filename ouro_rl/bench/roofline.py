"""The roofline: the least time of a pass on this machine, whatever the code.

A pass reads the looped weights once and the keys and values that its rows attend to, writes the keys and values of its
rows, and reads the LM head's weights if a token exits; it multiplies every row by every weight. It takes at least
max(bytes / read bandwidth, FLOP / GEMM peak). Both rates are measured in the same process with the same threads, by
several methods, *between the passes*, at every token of the batch, so that they reflect the machine's speed at that
time. A slice of the run is compared with the best rates measured during it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from itertools import islice

import torch

from ouro_rl.bench.timing import Run
from ouro_rl.bench.workload import QUICK, Sizes, bench_model
from ouro_rl.core.errors import RunError
from ouro_rl.kernels.ops import KernelOps
from ouro_rl.kernels.processor import has_bf16_products


@dataclass(frozen=True, kw_only=True)
class Machine:
    """The best measured rates of the machine."""

    bytes_per_second: float
    flop_per_second: float
    how_read: str
    how_multiplied: str

    def better(self, other: Machine) -> Machine:
        """The better of two measurements, for each rate."""
        reader = max(self, other, key=lambda machine: machine.bytes_per_second)
        multiplier = max(self, other, key=lambda machine: machine.flop_per_second)
        return Machine(
            bytes_per_second=reader.bytes_per_second,
            how_read=reader.how_read,
            flop_per_second=multiplier.flop_per_second,
            how_multiplied=multiplier.how_multiplied,
        )

    def seconds(self, cost: Cost) -> float:
        return max(cost.bytes / self.bytes_per_second, cost.flop / self.flop_per_second)


@dataclass(frozen=True, kw_only=True)
class Cost:
    """The least memory traffic and arithmetic of one pass."""

    bytes: float
    flop: float


class Prober:
    """Measures the read bandwidth of a large buffer and the rate of large square matrix products."""

    def __init__(self, sizes: Sizes):
        self.sizes = sizes
        buffer = torch.ones(sizes.read_bytes // 4)
        self.readers: dict[str, Callable[[], object]] = {
            "torch.sum, fp32": buffer.sum,
            "torch.mv, fp32": partial(torch.mv, buffer.view(-1, 1024), torch.ones(1024)),
        }
        self.products = _products(sizes.gemm_size)
        self.measure()  # warms up

    @torch.inference_mode()
    def measure(self) -> Machine:
        """Try each method once; return the best rates."""
        reading = {name: _seconds(run) for name, run in self.readers.items()}
        multiplying = {name: _seconds(run) for name, run in self.products.items()}
        how_read, how_multiplied = (min(seconds, key=seconds.__getitem__) for seconds in (reading, multiplying))
        return Machine(
            bytes_per_second=self.sizes.read_bytes / reading[how_read],
            how_read=how_read,
            flop_per_second=2 * self.sizes.gemm_size**3 / multiplying[how_multiplied],
            how_multiplied=how_multiplied,
        )


def _products(size: int) -> dict[str, Callable[[], object]]:
    """Methods to multiply two matrices of this size: torch's and the engine's. torch's bf16 is tried only on CPUs with
    instructions for it (elsewhere it is emulated, slower than fp32, and takes long)."""
    runs: dict[str, Callable[[], object]] = {}
    model = bench_model(QUICK).model  # only for its operations, which do not depend on its shapes
    for dtype, name in ((torch.float32, "fp32"), (torch.bfloat16, "bf16")):
        a, b = torch.ones(size, size, dtype=dtype), torch.ones(size, size, dtype=dtype)
        if dtype == torch.float32 or has_bf16_products():
            runs[f"torch, {name}, {size}^3"] = partial(torch.matmul, a, b)
        ops, _ = model.row_ops(dtype)
        if isinstance(ops, KernelOps):
            runs[f"the engine's, {name}, {size}^3"] = partial(ops.product, a, b)
    return runs


def _seconds(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def pass_cost(sizes: Sizes, contexts: Sequence[int], leaving: int, *, number_bytes: int = 2) -> Cost:
    """Cost of a pass over rows that read `contexts` positions each (including their own), `leaving` of which produce a
    token. Rows share no keys."""
    rows, read = len(contexts), sum(contexts)
    keys = 2 * sizes.layers * sizes.hidden  # key and value elements of one position at one loop
    numbers = sizes.loop_parameters + (read + rows) * keys + (sizes.head_parameters if leaving else 0)
    flop = (
        2 * rows * sizes.loop_parameters + 4 * read * sizes.layers * sizes.hidden + 2 * leaving * sizes.head_parameters
    )
    return Cost(bytes=number_bytes * numbers, flop=flop)


def window_costs(sizes: Sizes, run: Run) -> list[Cost]:
    """Costs of the passes in a run's decode window, from the recorded depths. Assumes that all samples start together,
    run in every pass and end together, as the trace ensures; raises RunError if the engine's counts disagree."""
    schedules = []
    for rollout in run.rollouts:
        first = len(rollout.prompt_ids)  # the first predicting position reads the prompt
        loops = [
            (first + place, loop == depth) for place, depth in enumerate(rollout.depths) for loop in range(1, depth + 1)
        ]
        schedules.append(loops[-run.window_passes :])
    if run.window_loops != len(schedules) * run.window_passes or min(map(len, schedules)) < run.window_passes:
        raise RunError("the engine's passes do not match the roofline's: not all samples ran in every pass")
    passes = zip(*schedules, strict=True)
    return [pass_cost(sizes, [context for context, _ in rows], sum(leaves for _, leaves in rows)) for rows in passes]


def slice_rooflines(sizes: Sizes, run: Run, machines: Sequence[tuple[float, Machine]]) -> list[float]:
    """Seconds that each slice of a run's decode window would take at the roofline. `machines`: (fraction of the tokens,
    rates measured there); a slice is compared with the best rates within it, including its edges."""
    costs, rooflines = iter(window_costs(sizes, run)), []
    for part in run.slices:
        first, last = part.shares
        machine = reduce(Machine.better, (machine for share, machine in machines if first <= share <= last))
        rooflines.append(sum(machine.seconds(cost) for cost in islice(costs, part.passes)))
    return rooflines
