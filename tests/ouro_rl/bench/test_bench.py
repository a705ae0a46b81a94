"""The benchmarks at tiny sizes: both sides do the same work, figures follow from what was run, and the JSON has its
keys.

No test depends on speed."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from statistics import median

import pytest
import torch

from ouro_rl.bench.catalog import BENCHMARKS, check_name
from ouro_rl.bench.curves import plot, straight_line
from ouro_rl.bench.machine import cpu_ticks, stolen_share
from ouro_rl.bench.page import page
from ouro_rl.bench.predictions import FIGURES
from ouro_rl.bench.results import figure_rows, table, write_json
from ouro_rl.bench.rollout import Contestants, Lockstep
from ouro_rl.bench.roofline import Machine, Prober, pass_cost, slice_rooflines, window_costs
from ouro_rl.bench.run import run_bench
from ouro_rl.bench.timing import (
    BY_GATE,
    SLICES,
    TimedCall,
    keep_pace,
    run_engine,
    run_generate,
    run_together,
    take_turns,
)
from ouro_rl.bench.workload import QUICK, bench_model, make_requests, trace_bias, trace_depths, trace_seeds
from ouro_rl.cli import main as cli
from ouro_rl.core.engine_config import EngineConfig
from ouro_rl.core.errors import RunError, UserError
from ouro_rl.core.sampling_params import ExitRule
from rollout_workers.engine.engine import RolloutEngine

TINY = dataclasses.replace(
    QUICK, batch=4, small_batch=2, group=2, tokens=8, group_prompt=16, curve_tokens=8, batches=(1, 2),
    contexts=(8, 16, 32), groups=(1, 2), read_bytes=1 << 20, gemm_size=64,
)  # fmt: skip
MACHINE = Machine(bytes_per_second=1e9, flop_per_second=1e12, how_read="", how_multiplied="")


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, Path]:
    """`bench all` at tiny sizes: its result and the file it wrote."""
    file = tmp_path_factory.mktemp("bench") / "all.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ouro_rl.bench.run.QUICK", TINY)
        return run_bench("all", quick=True, json_file=file), file


@pytest.fixture(scope="module")
def tiny_run():
    """A run of the trace by an engine, at batch size 4."""
    model = bench_model(TINY)
    requests = make_requests(TINY, trace_seeds(model, TINY, 4, TINY.tokens), prompt=TINY.prompt)
    return run_engine(RolloutEngine(model, EngineConfig(max_batch=4)), requests, TINY.tokens)


# --- the trace
# ---------------------------------------------------------------------------------------------------------


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


# --- clock
# -------------------------------------------------------------------------------------------------------------


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


# --- the roofline
# ------------------------------------------------------------------------------------------------------


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


# --- the same work
# -----------------------------------------------------------------------------------------------------


def test_a_run_that_does_less_work_is_an_error():
    contestants = Contestants(TINY)

    def run(**settings):
        return run_together({"": contestants.call(**settings)})[""]

    contestants.check_same_work({"adaptive": run()})
    with pytest.raises(RunError, match="fixed ran 96 loops for 32 tokens"):
        contestants.check_same_work({"fixed": run(rule=ExitRule(kind="fixed", value=3))})
    with pytest.raises(RunError, match="adaptive ran"):
        contestants.check_same_work({"adaptive": run(tokens=7)})


def test_all_runs_do_the_same_work(everything):
    runs = everything[0]["rollout"]["runs"]
    traced = {name: run for name, run in runs.items() if "loops" in run and name != "gate_small"}
    assert {name: (run["tokens"], run["loops"]) for name, run in traced.items()} == {
        "adaptive": (32, 80), "fixed": (32, 128), "adaptive_small": (16, 40), "lockstep_small": (16, 40),
        "fixed_small": (16, 64), "no_exit_small": (16, 64),
    }  # fmt: skip
    assert [runs[name]["tokens"] for name in ("generate", "gate_small", "generate_bf16_small")] == [32, 16, 4]
    assert runs["lockstep_small"]["passes"] > runs["adaptive_small"]["passes"] == 20
    assert (
        len({run["prompt_loops"] for name, run in runs.items() if "loops" in run and not name.endswith("_small")}) == 1
    )


def test_replay_runs_the_recorded_depths(everything):
    replay = everything[0]["replay"]
    prompt, tokens = 7 * 4, 2 * 8
    assert replay["runs"]["mean_depth"]["loops"] == prompt + tokens * 2.5
    assert replay["runs"]["full_depth"]["loops"] == prompt + tokens * 4
    assert replay["row_ratio"] == (prompt + tokens * 2.5) / (prompt + tokens * 4)
    assert replay["runs"]["mean_depth"]["largest_logprob_gap"] < 0.05


def test_memory_follows_the_mean_depth(everything):
    cache = everything[0]["cache"]
    assert everything[0]["kv_bytes_ratio"] == cache["alone"]["ratio"] == 2.5 / 4
    assert cache["alone"]["completion_bytes_full_depth"] == 2 * 8 * 4 * cache["page_bytes"]
    assert 2.5 / 4 < cache["with_shared_prompts"] < cache["with_prompts"] < 1


def test_sharing_computes_a_prompt_once(everything):
    runs = everything[0]["group"]["runs"]
    assert runs["shared"]["prompt_loops"] == 15 * 4
    assert runs["unshared"]["prompt_loops"] == TINY.group * 15 * 4
    assert runs["unshared"]["loops"] == runs["shared"]["loops"] == TINY.group * 20
    assert runs["unshared"]["peak_bytes"] > runs["shared"]["peak_bytes"]


# --- JSON, table, page
# -------------------------------------------------------------------------------------------------


def test_the_json_has_its_keys(everything):
    results, file = everything
    assert json.loads(file.read_text()) == results
    assert set(FIGURES) <= set(results)
    assert results["measured"] == {key: results[key] for key in FIGURES}
    assert results["predicted"] == {key: figure.predicted for key, figure in FIGURES.items()}
    assert all(found["least"] <= found["median"] <= found["greatest"] for found in results["spread"].values())
    assert results["machine"]["threads"] == torch.get_num_threads()
    assert results["sizes"]["layers"] == TINY.layers and results["quick"]


def test_ratios_follow_from_the_raw_figures(everything):
    results = everything[0]
    runs = results["rollout"]["runs"]

    def ratio(above: str, below: str) -> float:
        return median(a / b for a, b in zip(runs[above]["slices"], runs[below]["slices"], strict=True))

    assert results["continuous_share_of_bound"] == pytest.approx(ratio("adaptive", "fixed") / (4 / 2.5))
    assert results["continuous_vs_sync_b16"] == pytest.approx(ratio("adaptive_small", "lockstep_small"))
    assert results["no_exit_overhead"] == pytest.approx(ratio("fixed_small", "no_exit_small") - 1)
    assert results["adaptive_vs_generate"] == pytest.approx(ratio("adaptive", "generate"))
    whole = runs["adaptive"]["tokens_per_second"] / runs["generate"]["tokens_per_second"]
    assert results["adaptive_vs_generate_whole_call"] == pytest.approx(whole)
    assert results["adaptive_vs_generate_bf16_b16"] > 0
    probe = results["rollout"]["generate"]
    assert probe["precision"] == min(probe["probe_seconds"], key=probe["probe_seconds"].get)
    whole = runs["adaptive"]["decode_tokens_per_second"] / results["rollout"]["roofline"]["tokens_per_second"]
    found = results["spread"]["share_of_roofline"]
    assert found["least"] <= whole <= found["greatest"] and found["count"] == len(runs["adaptive"]["slices"])
    group = results["group"]["runs"]
    assert results["group_speedup"] == pytest.approx(group["unshared"]["seconds"] / group["shared"]["seconds"])
    assert results["replay_time_ratio"] == results["spread"]["replay_time_ratio"]["median"]
    exact, plain = (
        run["rollout_seconds"] + run["replay_seconds"]["median"]
        for run in (results["exact"]["runs"]["exact"], results["exact"]["runs"]["plain"])
    )
    assert results["exact_cost"] == pytest.approx(exact / plain - 1)


def test_the_table_and_the_page_show_the_figures_of_the_json(everything):
    results, file = everything
    printed, written = table(results), page([file])
    for row in figure_rows(results):
        assert all(cell in printed for cell in row)
        assert f"| {' | '.join(row)} |" in written
    assert "tiny model" in written  # a quick run says so
    assert all(figure.why in written for figure in FIGURES.values())


def test_a_page_of_several_files_takes_the_last_of_a_figure(everything, tmp_path: Path):
    results, file = everything
    part = {key: results[key] for key in ("benchmark", "schema", "machine", "when", "seconds", "cache")}
    spread = {"median": 0.5, "least": 0.5, "greatest": 0.5, "count": 1}
    write_json({**part, "kv_bytes_ratio": 0.5, "spread": {"kv_bytes_ratio": spread}}, tmp_path / "cache.json")
    written = page([file, tmp_path / "cache.json"])
    assert "| 0.500 | - | 0.625 | 0.700 / 0.640 / 0.630 |" in written and "| open |" not in written
    assert page([tmp_path / "cache.json"]).count("| open |") == len(FIGURES) - 1


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{", "is not JSON"),
        ("[]", "is not a file of"),
        ('{"benchmark": "all", "machine": {}, "schema": 1}', "another version"),
    ],
)
def test_a_page_refuses_what_it_cannot_read(tmp_path: Path, content: str, told: str):
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(UserError, match=told):
        page([tmp_path / "x.json"])


def test_curves_and_their_plot(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr("ouro_rl.bench.run.QUICK", TINY)
    results = run_bench("curves", quick=True, json_file=tmp_path / "c.json", plot_file=tmp_path / "c.png")
    points = results["curves"]["points"]
    assert {name: [point["x"] for point in line] for name, line in points.items()} == {
        "batch": [1, 2], "context": [8, 16, 32], "group": [1, 2],
    }  # fmt: skip
    read = [point["pass_bytes"] for point in points["context"]]
    assert read[0] < read[1] < read[2]
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")
    assert "Cost by workload" in page([tmp_path / "c.json"])
    plot(results["curves"], tmp_path / "again.png")


def test_probes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr("ouro_rl.bench.run.QUICK", TINY)
    results = run_bench("probes", quick=True, json_file=tmp_path / "p.json")
    for depth in (1.6, 2.3):
        run = results["probes"]["runs"][str(depth)]
        assert abs(run["mean_depth"] - depth) < 0.5 and results[f"probe_cost_{depth}"] > 0
        assert run["noise"]["gate"] > 1  # the loops that were not sampled no longer add noise


def test_straight_line():
    line = straight_line([1e6, 2e6, 4e6], [2.0, 3.0, 5.0])
    assert line["seconds_at_zero"] == pytest.approx(1.0)
    assert line["bytes_per_second"] == pytest.approx(1e6)
    assert line["r_squared"] == pytest.approx(1.0)


def test_steal_time():
    assert stolen_share((100, 10), (300, 60)) == 0.25
    assert stolen_share((100, 10), (100, 10)) is None and stolen_share(None, (1, 0)) is None
    ticks = cpu_ticks()
    assert ticks is None or 0 <= ticks[1] <= ticks[0]


# --- command line
# ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["rolout"], "did you mean rollout?"),
        (["zzz"], "there are rollout, replay, cache, group, all"),
        (["page"], "give the JSON files"),
        (["page", "nowhere.json"], "nowhere.json: No such file"),
        (["cache", "--json", "nowhere/x.json"], "create it first"),
        (["cache", "--json", "."], "is a folder"),
        (["cache", "group"], "give one name"),
        (["cache", "--plot", "x.png"], "has no plot"),
    ],
)
def test_mistakes_are_reported(arguments, told, capsys, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["bench", *arguments]) == 2
    assert told in capsys.readouterr().err


def test_a_mistake_is_reported_without_importing_torch():
    program = (
        "import sys; from ouro_rl.cli.main import main; assert main(['bench', 'x']) == 2; print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_the_command_prints_a_table_and_writes_the_json(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys):
    monkeypatch.setattr("ouro_rl.bench.run.QUICK", TINY)
    assert cli.main(["bench", "cache", "--quick", "--json", str(tmp_path / "x.json")]) == 0
    printed = capsys.readouterr()
    assert "KV bytes at mean depth 2.5 against full" in printed.out and "cache ..." in printed.err
    results = json.loads((tmp_path / "x.json").read_text())
    assert results["measured"] == {"kv_bytes_ratio": 0.625} and "group_speedup" not in results
    assert cli.main(["bench", "page", str(tmp_path / "x.json")]) == 0
    assert capsys.readouterr().out.startswith("# Performance")


def test_names():
    for name in BENCHMARKS:
        check_name(name)
    with pytest.raises(UserError, match="did you mean curves"):
        check_name("curve")
