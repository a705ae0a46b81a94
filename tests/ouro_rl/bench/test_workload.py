"""The workload of the benchmarks: a trace of depths that every engine runs, and prompts in groups."""

from __future__ import annotations

import torch

from ouro_rl.bench.workload import QUICK, bench_model, make_requests, trace_bias, trace_depths, trace_seeds
from tests.references.tiny_bench import TINY


def test_a_gate_with_zero_weights_has_the_requested_mean_depth():
    depths = trace_depths(torch.arange(4000), 8, trace_bias(QUICK), QUICK.loops).double()
    assert abs(depths.mean() - 2.5) < 4 * depths.std() / len(depths.flatten()) ** 0.5
    assert set(depths.unique().tolist()) == {1, 2, 3, 4}


def test_the_engine_runs_the_trace(tiny_run):
    seeds = torch.tensor(trace_seeds(bench_model(TINY), TINY, 4, TINY.tokens))
    bias = bench_model(TINY).model.early_exit_gate.bias.item()
    assert [list(rollout.depths) for rollout in tiny_run.rollouts] == trace_depths(seeds, 8, bias, 4).tolist()
    assert all(sum(rollout.depths) == 20 for rollout in tiny_run.rollouts)
    assert (tiny_run.last.tokens, tiny_run.last.loops, tiny_run.mean_depth) == (32, 80, 2.5)
    assert tiny_run.last.passes == 20  # the batch is full to the end
    assert tiny_run.last.prompt_loops == 4 * 7 * 4


def test_prompts_are_shared_only_within_a_group():
    requests = make_requests(TINY, range(6), prompt=8, group=2)
    assert len({request.prompt.token_ids[0] for request in requests}) == 3
    assert [request.seeds for request in requests] == [(0, 1), (2, 3), (4, 5)]
