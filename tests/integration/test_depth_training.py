"""Training under other KV rules and depth bounds: the replay matches the samples, from config to report."""

import json
from dataclasses import replace

import pytest

from ouro_rl.core.errors import RunError, UserError
from ouro_rl.core.kv_rule import KVRule
from ouro_rl.core.sampling_params import DepthPolicy
from ouro_rl.launch import run_training
from ouro_rl.training import rollout_source
from tests.references.tiny_training import config_of, metrics_of


@pytest.mark.parametrize(
    ("rule", "least", "most"), [("skip", 1, None), ("full", 2, None), ("last_exited", 2, 5), ("skip", 1, 2)]
)
def test_a_run_replays_what_it_sampled(checkpoint, tmp_path, rule, least, most):
    config = config_of(
        checkpoint,
        tmp_path / "run",
        rollout__kv_rule=rule,
        rollout__min_depth=least,
        rollout__max_depth=most,
        gate__target_depth=None,
        trainer__steps=2,
        rollout__early_stop={"every": 4, "min_mean_logprob": -4.6},
    )
    assert run_training(config, resume=False) == 0
    rows = metrics_of(tmp_path / "run")
    loops = range(1, (most or 3) + 1)
    assert len(rows) == 2 and max(row["logp_gap/max"] for row in rows) <= 1e-5
    assert all(sum(row[f"depth/p{depth}"] for depth in loops) == pytest.approx(1) for row in rows)
    assert not any(f"depth/p{max(loops) + 1}" in row for row in rows)
    lines = (tmp_path / "run" / "rollouts" / "step-000002.jsonl").read_text().rstrip("\n").split("\n")
    rollouts = [json.loads(line) for line in lines]
    assert {(r["kv_rule"], r["min_depth"], r["max_depth"]) for r in rollouts} == {(rule, least, most)}
    depths = [depth for r in rollouts for depth in r["depths"]]
    assert min(depths) >= least and max(depths) == max(loops)
    given_up = [r for r in rollouts if r["finish_reason"] == "abort"]
    assert given_up and rows[1]["completion/given_up"] == len(given_up) / len(rollouts)
    assert all(len(r["completion_ids"]) % 4 == 0 for r in given_up)
    assert "<html" in (tmp_path / "run" / "report.html").read_text()


def test_a_source_that_samples_under_another_policy_stops_the_run(checkpoint, tmp_path, monkeypatch):
    other = DepthPolicy(kv_rule=KVRule.SKIP)
    monkeypatch.setattr(rollout_source, "replace", lambda params, depth_policy: replace(params, depth_policy=other))
    with pytest.raises(RunError, match="sampled under .*skip.*\n.*replays .*last_exited"):
        run_training(config_of(checkpoint, tmp_path / "run"), resume=False)


def test_bounds_that_the_model_cannot_meet_are_refused_before_sampling(checkpoint, tmp_path):
    config = config_of(checkpoint, tmp_path / "run", rollout__min_depth=4, gate__target_depth=None, eval__source=None)
    with pytest.raises(UserError, match=r"min_depth 4 .* which is 3 \(the model's total_ut_steps\)"):
        run_training(config, resume=False)


@pytest.mark.parametrize(
    ("bounds", "said"),
    [({}, True), ({"rollout__min_depth": 3}, False), ({"rollout__max_depth": 1}, False),
     ({"rollout__min_depth": 2, "rollout__max_depth": 2}, False), ({"rollout__min_depth": 2}, True)],
)  # fmt: skip
def test_a_depth_that_the_bounds_fix_has_not_collapsed(checkpoint, tmp_path, monkeypatch, capsys, bounds, said):
    """Neither the price nor exploration could change it. Here every spread is called small."""
    monkeypatch.setattr("ouro_rl.training.compute_metrics.LEAST_SPREAD", 100.0)
    config = config_of(
        checkpoint, tmp_path / "run", eval__source=None, trainer__steps=1, gate__target_depth=None, **bounds
    )
    assert run_training(config, resume=False) == 0
    assert ("depth collapsed" in capsys.readouterr().err) == said
