"""Training on rollouts whose weights changed under them."""

import json
import threading
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from ouro_rl.core.rollout import WeightChange
from ouro_rl.launch import run_training
from tests.integration.test_resuming import STEPS, job, stopped_after
from tests.references.patience import HANG_S
from tests.references.tiny_models import batch_tolerance
from tests.references.tiny_trainer import pool_of, sampler_of, tiny_config, tiny_model, train
from tests.references.tiny_training import metrics_of

WRONG = 0.5
"""Nats by which the recorded log-probs of tokens that older weights drew differ from those of the weights in
training."""


def changed(item, recomputed):
    """As if weights 0 had drawn the first two tokens, and weights 1 the others."""
    rollout = item.rollout
    logprobs = tuple(value - WRONG * (i < 2) for i, value in enumerate(rollout.token_logprobs))
    change = WeightChange(start=2, version=1, recomputed=recomputed)
    changes = (change,) if len(rollout.completion_ids) > 2 else ()
    return replace(item, rollout=replace(rollout, token_logprobs=logprobs, weight_changes=changes))


@pytest.mark.parametrize("recomputed", [True, False])
def test_the_log_prob_gap_is_that_of_tokens_which_a_replay_can_reproduce(recomputed):
    """At a learning rate of 0 all versions have the same weights; what the older ones drew has other log-probs here."""
    config = tiny_config(
        trainer__max_staleness=1, trainer__in_flight="keep", rollout__workers=1, trainer__lr=0.0, gate__lr=0.0
    )
    model = tiny_model()
    sampler, newer = sampler_of(config, pool_of(model, config)), threading.Event()
    modes, seen = set(), []

    def publish(weights, version, in_flight):
        modes.add(in_flight)
        if version == 1:
            newer.set()

    def source(prompts, step):
        scored, timings = sampler(prompts, step)
        if step == 2:
            assert newer.wait(HANG_S)
            scored = [changed(item, recomputed) for item in scored]
            seen.extend(item.rollout for item in scored)
        return scored, timings

    (_, row), _ = train(model, config, source, publish)
    assert modes == {"keep"}
    assert ("logp_gap/max" in row) == recomputed and (row["logp_gap/compared"] > 0) == recomputed
    if recomputed:
        assert row["logp_gap/max"] <= batch_tolerance(model)
    assert row["kl/sampler_k1"] != 0, "the importance ratios are those of the recorded log-probs"
    old = [min(2, len(rollout.completion_ids)) for rollout in seen]
    tokens = [len(rollout.completion_ids) for rollout in seen]
    if recomputed:
        assert row["logp_gap/compared"] == pytest.approx(1 - sum(old) / sum(tokens))
    assert row["staleness/older_tokens"] == pytest.approx(sum(old) / sum(tokens))
    assert row["staleness/changed"] == sum(count > 2 for count in tokens) / len(tokens)
    of_rollouts = [count / of for count, of in zip(old, tokens, strict=True)]
    assert row["staleness/mean"] == pytest.approx(sum(of_rollouts) / len(of_rollouts))


@pytest.mark.parametrize("cache", ["keep", pytest.param("recompute", marks=pytest.mark.slow)])
def test_a_run_with_weights_in_flight_records_what_drew_each_token_and_can_be_resumed(checkpoint, tmp_path, cache):
    folder = tmp_path / "run"
    changes = {"rollout__workers": 2, "trainer__max_staleness": 1, "trainer__in_flight": cache}
    assert run_training(job(checkpoint, folder, **changes), resume=False) == 0
    copy = stopped_after(folder, 3)
    assert run_training(job(checkpoint, copy, **changes), resume=True) == 0
    for run in (folder, copy):
        rows = metrics_of(run)
        assert len(rows) == STEPS and rows[0]["logp_gap/max"] <= 1e-5
        for update, row in enumerate(rows):
            records = [
                json.loads(line) for line in (run / "rollouts" / f"step-{update + 1:06}.jsonl").read_text().splitlines()
            ]
            versions = [
                record["token_versions"] or [record["policy_version"]] * len(record["completion_ids"])
                for record in records
            ]
            assert {version for of in versions for version in of} <= {max(0, update - 1), update}
            assert all(
                change["recomputed"] == (cache == "recompute") for r in records for change in r["weight_changes"]
            )
            tokens = sum(map(len, versions))
            older = sum(version < update for of in versions for version in of) / tokens
            assert row["staleness/older_tokens"] == pytest.approx(older)
            assert 0 <= row["staleness/mean"] <= 1
    final = load_file(copy / "checkpoints" / f"step-{STEPS}" / "model.safetensors")
    assert all(torch.isfinite(tensor).all() for tensor in final.values())
