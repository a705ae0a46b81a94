"""What the clock counts: only decoding, each call alone, in rounds that take turns. No test depends on speed."""

from __future__ import annotations

import pytest

from ouro_rl.bench.timing import BY_GATE, SLICES, TimedCall, keep_pace, run_generate, run_together, take_turns
from ouro_rl.bench.workload import bench_model, make_requests, trace_seeds
from ouro_rl.core.engine_config import EngineConfig
from ouro_rl.core.errors import RunError
from ouro_rl.core.sampling_params import ExitRule
from rollout_workers.engine.engine import RolloutEngine
from tests.references.tiny_bench import TINY


def test_the_window_has_only_decoding(tiny_run):
    assert 0 < tiny_run.window_seconds < tiny_run.last.seconds
    assert 0 < tiny_run.window_passes < tiny_run.last.passes
    assert tiny_run.window_loops == 4 * tiny_run.window_passes


def test_slices_make_up_the_window(tiny_run):
    slices = tiny_run.slices
    assert 1 < len(slices) <= SLICES
    assert sum(part.loops for part in slices) == tiny_run.window_loops
    assert sum(part.seconds for part in slices) == pytest.approx(tiny_run.window_seconds)
    whole = sum(part.loops for part in slices) / tiny_run.mean_depth / sum(part.seconds for part in slices)
    assert tiny_run.decode_tokens_per_second == pytest.approx(whole)


def timed_call(rule: ExitRule, tokens: int = 8, **settings) -> TimedCall:
    model = bench_model(TINY)
    requests = make_requests(TINY, trace_seeds(model, TINY, 4, tokens), prompt=TINY.prompt)
    return TimedCall(RolloutEngine(model, EngineConfig(max_batch=4)), requests, tokens, rule, **settings)


def test_calls_that_run_together_keep_pace():
    """The call furthest behind runs next: no call is ever a whole token of the batch ahead of the requested pace."""
    calls = [timed_call(ExitRule(kind="fixed", value=depth)) for depth in (1, 4)]
    for made in range(9):
        keep_pace(calls, made / 8)
        # a batch in step makes its tokens at once
        assert [call.call.tokens for call in calls] == [4 * max(made, 1)] * 2
    assert [call.result().last.passes for call in calls] == [8, 32]


def test_each_call_is_timed_alone_and_prepared_before_each_pass(monkeypatch: pytest.MonkeyPatch):
    """A clock that only advances in passes: by 1 s in one call, 10 s in the other."""
    now, step = [0.0], [0.0]
    calls = {
        name: timed_call(ExitRule(kind="fixed", value=2), prepare=lambda seconds=seconds: step.__setitem__(0, seconds))
        for name, seconds in (("quick", 1.0), ("slow", 10.0))
    }
    before = {name: call.seconds for name, call in calls.items()}
    for call in calls.values():
        advance = call.call.advance

        def tick(advance=advance):
            now[0] += step[0]
            return advance()

        call.call.advance = tick
    monkeypatch.setattr("ouro_rl.bench.timing.time.perf_counter", lambda: now[0])
    runs = run_together(calls)
    taken = {name: run.last.seconds - before[name] for name, run in runs.items()}
    assert taken == {
        "quick": pytest.approx(runs["quick"].last.passes),
        "slow": pytest.approx(10 * runs["slow"].last.passes),
    }
    assert runs["quick"].rollouts == runs["slow"].rollouts


def test_a_call_that_has_not_ended_has_no_result():
    call = timed_call(BY_GATE)
    call.advance()
    with pytest.raises(RunError, match="has not ended"):
        call.result()


def test_generate_makes_as_many_tokens():
    requests = make_requests(TINY, range(4), prompt=TINY.prompt, group=2)
    calls: list[int] = []
    made = run_generate(bench_model(TINY), requests, 6, calls.append)
    assert made.tokens == 24 and calls == [0, 1, 2, 3, 4, 5, 6]
    assert 0 < made.window_seconds < made.seconds
    assert len(made.slice_speeds) == 5 and min(made.slice_speeds) <= made.decode_tokens_per_second <= max(
        made.slice_speeds
    )


def test_what_runs_between_the_tokens_of_generate_is_not_counted(monkeypatch: pytest.MonkeyPatch):
    now = [0.0]
    monkeypatch.setattr("ouro_rl.bench.timing.time.perf_counter", lambda: now[0])

    def between(made: int) -> None:
        now[0] += 100.0

    made = run_generate(bench_model(TINY), make_requests(TINY, range(2), prompt=TINY.prompt), 6, between)
    assert list(made.times) == [0.0] * 6


def test_rounds_take_turns_forwards_and_backwards():
    order: list[str] = []
    results = take_turns({name: lambda name=name: order.append(name) for name in "ab"}, 3, lambda line: None)
    assert "".join(order) == "abbaab"
    assert [len(rounds) for rounds in results.values()] == [3, 3]
