"""The roofline: the cost of a pass computed by hand, and the rates of a machine."""

from __future__ import annotations

import dataclasses

import pytest

from ouro_rl.bench.rollout import Lockstep
from ouro_rl.bench.roofline import Machine, Prober, pass_cost, slice_rooflines, window_costs
from ouro_rl.bench.timing import run_engine
from ouro_rl.bench.workload import QUICK, bench_model, make_requests, trace_seeds
from ouro_rl.core.engine_config import EngineConfig
from ouro_rl.core.errors import RunError
from rollout_workers.engine.engine import RolloutEngine
from tests.references.tiny_bench import MACHINE, TINY


def test_cost_of_a_pass_by_hand():
    sizes = dataclasses.replace(QUICK, hidden=4, layers=3, intermediate=5, vocabulary=7)
    weights = 3 * (4 * 16 + 3 * 20)
    cost = pass_cost(sizes, [10, 20], leaving=1)
    assert cost.bytes == 2 * (weights + (30 + 2) * 2 * 3 * 4 + 28)
    assert cost.flop == 2 * 2 * weights + 4 * 30 * 3 * 4 + 2 * 28
    assert pass_cost(sizes, [10, 20], leaving=0).bytes == cost.bytes - 2 * 28
    slow_reader = dataclasses.replace(MACHINE, bytes_per_second=1.0)
    slow_multiplier = dataclasses.replace(MACHINE, flop_per_second=1.0)
    assert (slow_reader.seconds(cost), slow_multiplier.seconds(cost)) == (cost.bytes, cost.flop)


def test_the_best_of_two_measurements():
    other = Machine(bytes_per_second=2e9, flop_per_second=1e11, how_read="fast", how_multiplied="slow")
    best = MACHINE.better(other)
    assert (best.bytes_per_second, best.how_read, best.flop_per_second) == (2e9, "fast", 1e12)


def test_roofline_of_a_window(tiny_run):
    costs = window_costs(TINY, tiny_run)
    assert len(costs) == tiny_run.window_passes
    everyone = [8 + 7] * 4  # prompt and the seven tokens before the last
    assert costs[-1] == pass_cost(TINY, everyone, leaving=4)
    rooflines = slice_rooflines(
        TINY, tiny_run, [(0.0, MACHINE), (1.0, MACHINE), (0.5, MACHINE)] + [(n / 8, MACHINE) for n in range(8)]
    )
    assert len(rooflines) == len(tiny_run.slices)
    assert sum(rooflines) == pytest.approx(sum(cost.bytes for cost in costs) / 1e9)


def test_a_slice_is_compared_with_the_rates_measured_during_it(tiny_run):
    quick = dataclasses.replace(MACHINE, bytes_per_second=4e9)
    slow, mixed = (
        slice_rooflines(TINY, tiny_run, [(n / 16, quick if n == 15 and faster else MACHINE) for n in range(17)])
        for faster in (False, True)
    )
    assert mixed == [*slow[:-1], pytest.approx(slow[-1] / 4)]


def test_measured_rates_of_the_machine():
    machine = Prober(TINY).measure()
    assert machine.bytes_per_second > 0 and machine.flop_per_second > 0 and "64^3" in machine.how_multiplied


def test_a_run_whose_samples_wait_has_no_roofline():
    model = bench_model(TINY)
    requests = make_requests(TINY, trace_seeds(model, TINY, 4, 16), prompt=TINY.prompt)
    run = run_engine(RolloutEngine(model, EngineConfig(max_batch=4), policy=Lockstep()), requests, 16)
    with pytest.raises(RunError, match="not all samples ran in every pass"):
        window_costs(TINY, run)
