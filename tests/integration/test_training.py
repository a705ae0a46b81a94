"""Training in one process, on a model of a few thousand parameters: config to report, resuming, stopping, limits."""

import json
import math
import shutil
from pathlib import Path
from unittest import mock

import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from ouro_rl.core.errors import UserError
from ouro_rl.launch import closing_figures, print_closing, run_training
from ouro_rl.run_dir.run_dir import RunDir
from ouro_rl.training.objective.losses import token_weights
from tests.references.tiny_training import config_of, deterministic, metrics_of, train_with_two_processes

STEP_METRICS = {
    "step", "reward/mean", "reward/math", "reward/unscored", "depth/mean", "depth/p1", "depth/p2", "depth/p3",
    "logp_gap/max", "logp_gap/mean", "logp_gap/compared", "gate/entropy", "gate/penalty", "groups/zero_variance",
    "loss/token", "loss/gate", "staleness/mean", "reward/std", "completion/length_mean", "completion/length_max",
    "completion/cut_off", "completion/stopped", "clip/token_low", "clip/token_high", "clip/gate_low", "clip/gate_high",
    "kl/sampler", "kl/sampler_k1", "tokens/s", "time/rollout_s", "time/reward_s", "time/train_s", "time/sync_s",
}  # fmt: skip
ROLLOUT_FIELDS = {
    "step", "policy_version", "prompt_ids", "completion_ids", "depths", "token_logprobs", "depth_logprobs",
    "temperature", "completion", "rewards", "advantage",
}  # fmt: skip


@pytest.fixture(scope="module")
def finished(checkpoint, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "whole"
    assert run_training(config_of(checkpoint, folder), resume=False) == 0
    return folder


def test_the_run_directory_holds_what_is_documented(finished):
    rows = metrics_of(finished)
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert STEP_METRICS <= set(rows[0])
    assert max(row["logp_gap/max"] for row in rows) <= 1e-5
    assert all(row["staleness/mean"] == 0 for row in rows)
    rollouts = [json.loads(line) for line in (finished / "rollouts" / "step-000001.jsonl").read_text().splitlines()]
    assert len(rollouts) == 16 and ROLLOUT_FIELDS <= set(rollouts[0])
    assert all(len(r["depths"]) == len(r["completion_ids"]) == len(r["depth_logprobs"]) for r in rollouts)
    assert abs(sum(r["advantage"] for r in rollouts)) < 1e-3
    summary = json.loads((finished / "summary.json").read_text())
    assert {"accuracy_before", "accuracy_after", "depth_before", "depth_after", "n_heldout"} <= set(summary)
    assert summary["n_heldout"] == 6
    assert "<html" in (finished / "report.html").read_text()
    recorded = yaml.safe_load((finished / "config.yaml").read_text())
    assert recorded["run"]["seed"] == 3 and recorded["about"]["versions"]["trl"].startswith("1.16")


def test_checkpoints_load_and_both_heads_have_moved(finished, checkpoint):
    before, after = (
        load_file(Path(folder) / "model.safetensors") for folder in (checkpoint, finished / "checkpoints" / "step-3")
    )
    assert before.keys() == after.keys()
    for name in ("lm_head.weight", "model.early_exit_gate.weight", "model.layers.0.mlp.gate_proj.weight"):
        assert not torch.equal(before[name], after[name]), name
    model = AutoModelForCausalLM.from_pretrained(finished / "checkpoints" / "step-3")
    assert model.config.total_ut_steps == 3


def test_advantages_by_group_and_record_agree(finished):
    rollouts = [json.loads(line) for line in (finished / "rollouts" / "step-000002.jsonl").read_text().splitlines()]
    for start in range(0, 16, 4):
        group = rollouts[start : start + 4]
        assert len({r["prompt_index"] for r in group}) == 1
        rewards = [r["reward"] for r in group]
        mean = sum(rewards) / 4
        deviation = math.sqrt(sum((x - mean) ** 2 for x in rewards) / 3)
        for r in group:
            assert r["advantage"] == pytest.approx((r["reward"] - mean) / (deviation + 1e-4), abs=1e-4)


def test_a_resumed_run_is_the_run_that_was_not_interrupted(finished, checkpoint, tmp_path):
    folder = tmp_path / "resumed"
    run_training(config_of(checkpoint, folder, trainer__steps=2), resume=False)
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3, "reward/me')  # what a killed process leaves behind
    assert run_training(config_of(checkpoint, folder), resume=True) == 0
    for ours, whole in zip(metrics_of(folder), metrics_of(finished), strict=True):
        assert deterministic(ours) == pytest.approx(deterministic(whole), rel=1e-6, abs=1e-9)
    ours, whole = (load_file(path / "checkpoints" / "step-3" / "model.safetensors") for path in (folder, finished))
    assert all(torch.equal(ours[name], whole[name]) for name in whole)


def test_resuming_a_finished_run_trains_no_further(finished, checkpoint, tmp_path):
    folder = tmp_path / "again"
    shutil.copytree(finished, folder)
    assert run_training(config_of(checkpoint, folder), resume=True) == 0
    assert len(metrics_of(folder)) == 3 and not (folder / "checkpoints" / "step-4").exists()
    before, after = (json.loads((place / "summary.json").read_text()) for place in (finished, folder))
    assert before["accuracy_after"] == after["accuracy_after"] and before["depth_after"] == after["depth_after"]


def test_resume_refuses_another_configuration_and_an_empty_folder(finished, checkpoint, tmp_path):
    with pytest.raises(UserError, match=r"trainer\.clip_low"):
        run_training(config_of(checkpoint, finished, trainer__clip_low=0.5), resume=True)
    with pytest.raises(UserError, match="holds no run"):
        run_training(config_of(checkpoint, tmp_path / "nothing"), resume=True)


def test_a_finished_run_is_not_overwritten(finished, checkpoint):
    assert run_training(config_of(checkpoint, finished, trainer__steps=1, eval__source=None), resume=False) == 0
    assert (finished.with_name("whole-2") / "metrics.jsonl").exists() and len(metrics_of(finished)) == 3


def test_a_gate_that_is_off_does_not_change(checkpoint, tmp_path):
    config = config_of(checkpoint, tmp_path / "off", gate__mode="off", eval__source=None)
    run_training(config, resume=False)
    after = load_file(tmp_path / "off" / "checkpoints" / "step-3" / "model.safetensors")
    before = load_file(checkpoint / "model.safetensors")
    assert torch.equal(before["model.early_exit_gate.weight"], after["model.early_exit_gate.weight"])
    assert not torch.equal(before["lm_head.weight"], after["lm_head.weight"])


@pytest.mark.parametrize("loss_type", ["grpo", "dr_grpo", "bnpo"])
def test_other_loss_types_and_reused_batches_train(checkpoint, tmp_path, loss_type):
    config = config_of(
        checkpoint, tmp_path / "run", trainer__loss_type=loss_type, trainer__updates_per_batch=2, eval__source=None
    )
    run_training(config, resume=False)
    rows = metrics_of(tmp_path / "run")
    assert all(math.isfinite(row["grad_norm"]) for row in rows)
    assert [row["staleness/mean"] for row in rows] == [0, 1, 0]
    assert abs(rows[0]["kl/sampler"]) < 1e-6 < rows[1]["kl/sampler"], "the policy has moved away"
    assert sum(rows[0][name] for name in rows[0] if name.startswith("clip/")) == 0
    assert sum(rows[1][name] for name in rows[1] if name.startswith("clip/")) > 0
    assert (
        "logp_gap/max" in rows[0] and "logp_gap/max" not in rows[1]
    )  # the second update of a batch is off-policy by design
    assert rows[0].keys() - rows[1].keys() == {"logp_gap/max", "logp_gap/mean"}
    for name in ("reward/mean", "depth/mean", "groups/zero_variance", "gate/price", "tokens/s"):
        assert rows[0][name] == rows[1][name] != rows[2][name] or name == "groups/zero_variance"
    assert rows[0]["time/rollout_s"] > 0 and rows[1]["time/rollout_s"] == rows[1]["time/sync_s"] == 0


def in_two_processes(checkpoint, folder, **changes):
    """A run by two processes on the CPU, as torchrun starts them."""
    train_with_two_processes(config_of(checkpoint, folder, **changes), folder.with_suffix(".yaml"))


def assert_trained_alike(folder, finished, *, steps):
    for two, one in zip(metrics_of(folder), metrics_of(finished)[:steps], strict=True):
        for name in ("reward/mean", "depth/mean", "gate/price", "completion/length_mean"):
            assert two[name] == pytest.approx(one[name], abs=1e-6), name
        assert two["logp_gap/max"] <= 1e-5
    weights = f"checkpoints/step-{steps}/model.safetensors"
    ours, whole = (load_file(place / weights) for place in (folder, finished))
    assert all(torch.allclose(ours[name], whole[name], atol=1e-4) for name in whole)


@pytest.mark.slow
def test_two_processes_train_the_same_policy_as_one(finished, checkpoint, tmp_path):
    """Data parallel on the CPU: the first process samples for both, each trains on half, and the update is the same."""
    in_two_processes(checkpoint, tmp_path / "two")
    assert_trained_alike(tmp_path / "two", finished, steps=3)


@pytest.mark.slow
def test_two_processes_evaluate_and_stop_together(finished, checkpoint, tmp_path):
    """The first process evaluates during training; both stop, after the same update, when nothing gets better."""
    folder = tmp_path / "two"
    in_two_processes(checkpoint, folder, eval__every=1, eval__patience=2)
    assert_trained_alike(folder, finished, steps=2)
    summary = json.loads((folder / "summary.json").read_text())
    before = summary["accuracy_before"]
    assert [row["eval/accuracy"] for row in metrics_of(folder)] == [before, before] and summary["steps"] == 2
    assert summary["accuracy_after"] == before and not (folder / "best").exists()


def test_any_number_of_workers_samples_the_same(checkpoint, tmp_path):
    """Ray actors instead of the in-process worker: the same tokens and depths at every step, and the same refills."""
    for workers in (0, 2):
        config = config_of(
            checkpoint, tmp_path / str(workers), rollout__workers=workers, eval__source=None, reward="first_digit",
            trainer__refill=2,
        )  # fmt: skip
        assert run_training(config, resume=False) == 0
    alone, together = tmp_path / "0", tmp_path / "2"
    for step in (1, 2, 3):
        name = f"rollouts/step-{step:06d}.jsonl"
        ours, whole = (
            [json.loads(line) for line in (place / name).read_text().splitlines()] for place in (together, alone)
        )
        for two, one in zip(ours, whole, strict=True):
            assert two["completion_ids"] == one["completion_ids"] and two["depths"] == one["depths"]
            assert two["policy_version"] == one["policy_version"] == step - 1
    rows = [deterministic(row) for row in metrics_of(alone)]
    assert [deterministic(row) for row in metrics_of(together)] == rows
    assert sum(row["groups/replaced"] for row in rows) > 0, "the case is there"


@pytest.mark.parametrize("masked", [False, True])
def test_unscored_and_masked_completions_are_left_out_of_the_loss(checkpoint, tmp_path, masked):
    """The gradient of a step is that of the same step without them, in every denominator."""
    seen = []

    def weights_of(lengths, counted, loss_type, **update):
        weights = token_weights(lengths, counted, loss_type, **update)
        seen.append((counted.tolist(), update["tokens_in_update"], weights.sum().item()))
        return weights

    config = config_of(
        checkpoint, tmp_path / "run", reward="some", eval__source=None, trainer__steps=1, rewards__max_unscored=0.9,
        trainer__mask_truncated=masked,
    )  # fmt: skip
    with mock.patch("ouro_rl.training.trainer.token_weights", weights_of):
        assert run_training(config, resume=False) == 0
    rollouts = [json.loads(line) for line in (tmp_path / "run/rollouts/step-000001.jsonl").read_text().splitlines()]
    kept = [
        len(r["completion_ids"])
        for r in rollouts
        if r["reward"] is not None and (r["finish_reason"] == "stop" or not masked)
    ]
    assert 0 < len(kept) < 12 if masked else len(kept) == 12, "the case is there"
    assert sum(sum(counted) for counted, _, _ in seen) == len(kept) and {total for _, total, _ in seen} == {sum(kept)}
    assert sum(weight for _, _, weight in seen) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("gaps", "said"),
    [
        ([0.0, 2e-6], "2.0e-06 nats"),
        ([0.0, None], "0.0e+00 nats, in 1 of 2 updates; the others had no token to compare"),
        ([None, None], "not known: no update had a token to compare"),
    ],
)
def test_the_last_lines_say_of_how_many_updates_the_gap_is(gaps, said, tmp_path, capsys):
    run = RunDir(tmp_path)
    for step, gap in enumerate(gaps, start=1):
        run.append_metrics({"step": step} | ({} if gap is None else {"logp_gap/max": gap}))
    print_closing(closing_figures(run, minutes=1.0), tmp_path / "report.html")
    assert f"Largest log-prob gap between worker and trainer: {said}\n" in capsys.readouterr().out
