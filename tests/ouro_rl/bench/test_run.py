"""The benchmarks at tiny sizes: both sides do the same work, figures follow from what was run, and the JSON has its
keys.

No test depends on speed."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import median

import pytest
import torch

from ouro_rl.bench.page import COMMANDS, page
from ouro_rl.bench.predictions import FIGURES
from ouro_rl.bench.results import figure_rows, table, write_json
from ouro_rl.bench.rollout import Contestants
from ouro_rl.bench.run import APART, run_bench
from ouro_rl.bench.timing import run_together
from ouro_rl.core.errors import RunError, UserError
from ouro_rl.core.sampling_params import ExitRule
from tests.references.tiny_bench import TINY


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, Path]:
    """`bench all` at tiny sizes: its result and the file it wrote."""
    file = tmp_path_factory.mktemp("bench") / "all.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ouro_rl.bench.run.QUICK", TINY)
        return run_bench("all", quick=True, json_file=file), file


# --- the same work ----------------------------------------------------------------------------------------------------


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


# --- JSON, table, page ------------------------------------------------------------------------------------------------


def test_the_json_has_its_keys(everything):
    results, file = everything
    assert json.loads(file.read_text()) == results
    keys = {key for key in FIGURES if COMMANDS[key] not in APART}
    assert keys <= set(results)
    assert results["measured"] == {key: results[key] for key in keys}
    assert results["predicted"] == {key: FIGURES[key].predicted for key in keys}
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
    assert "| 0.500 | - | 0.625 | 0.700 / 0.640 / 0.630 |" in written
    assert written.count("| open |") == sum(command in APART for command in COMMANDS.values()), "the others alone"
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
