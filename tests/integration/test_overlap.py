"""Real runs whose rollout actors sample ahead of the trainer: what they record, and that they resume to the bit."""

import json

import pytest
import torch
from safetensors.torch import load_file

from ouro_rl.launch import run_training
from tests.integration.test_resuming import STEPS, assert_resumes_to_the_bit, job, stopped_after
from tests.references.tiny_training import deterministic, metrics_of, train_with_two_processes


@pytest.fixture(scope="module")
def ahead(checkpoint, tmp_path_factory):
    """A run at staleness 1 with evaluations in between, which publish weights of their own."""
    folder = tmp_path_factory.mktemp("overlap") / "ahead"
    config = job(
        checkpoint, folder, rollout__workers=1, trainer__max_staleness=1, eval__source="arithmetic", eval__every=2
    )
    assert run_training(config, resume=False) == 0
    return folder


def versions(folder, update):
    lines = (folder / "rollouts" / f"step-{update:06}.jsonl").read_text().splitlines()
    return {json.loads(line)["policy_version"] for line in lines}


def test_rollouts_are_one_version_behind_and_say_so(ahead):
    rows = metrics_of(ahead)
    assert [row["staleness/mean"] for row in rows] == [0, 1, 1, 1, 1, 1]
    assert [versions(ahead, update) for update in range(1, STEPS + 1)] == [{0}, {0}, {1}, {2}, {3}, {4}]
    assert rows[0]["logp_gap/max"] == 0 and not any("logp_gap/max" in row for row in rows[1:])
    assert abs(rows[0]["kl/sampler"]) < 1e-9 < rows[1]["kl/sampler"] and rows[1]["clip/token_high"] > 0
    assert all(0 < row["workers/busy"] <= 1 and row["staleness/dropped"] == 0 for row in rows)
    assert rows[0]["time/overlapped_s"] < 0.5 * rows[0]["time/rollout_s"]


def test_the_prompts_are_those_of_staleness_0(ahead, checkpoint, tmp_path):
    assert run_training(job(checkpoint, tmp_path / "turns", trainer__steps=3), resume=False) == 0
    for update in range(1, 4):
        ours, theirs = (
            [json.loads(line) for line in (folder / "rollouts" / f"step-{update:06}.jsonl").read_text().splitlines()]
            for folder in (ahead, tmp_path / "turns")
        )
        assert [record["prompt_ids"] for record in ours] == [record["prompt_ids"] for record in theirs]
        same = [record["completion_ids"] for record in ours] == [record["completion_ids"] for record in theirs]
        assert same == (update == 1), "from the second on, other weights sampled"


def test_a_run_ahead_resumes_to_the_bit(checkpoint, tmp_path):
    assert_resumes_to_the_bit(checkpoint, tmp_path / "run", (3,), "constant", workers=1, max_staleness=1)


@pytest.mark.slow
@pytest.mark.parametrize("updates_per_batch,max_staleness", [(1, 2), (2, 2), (2, 4)])
def test_with_reused_batches_and_more_staleness(checkpoint, tmp_path, updates_per_batch, max_staleness):
    assert_resumes_to_the_bit(
        checkpoint, tmp_path / "run", (1, 2, 5), "linear", workers=2, updates_per_batch=updates_per_batch,
        max_staleness=max_staleness,
    )  # fmt: skip
    assert [row["staleness/mean"] for row in metrics_of(tmp_path / "run")] == [
        update - max(0, update // updates_per_batch - max_staleness // updates_per_batch) * updates_per_batch
        for update in range(STEPS)
    ]


@pytest.mark.slow
def test_the_number_of_workers_changes_nothing(ahead, checkpoint, tmp_path):
    folder = tmp_path / "two"
    changes = {"eval__source": "arithmetic", "eval__every": 2, "trainer__max_staleness": 1}
    assert run_training(job(checkpoint, folder, rollout__workers=2, **changes), resume=False) == 0
    assert [deterministic(row) for row in metrics_of(folder)] == [deterministic(row) for row in metrics_of(ahead)]
    ours, theirs = (load_file(run / "checkpoints" / f"step-{STEPS}" / "model.safetensors") for run in (folder, ahead))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.slow
def test_two_processes_train_ahead_as_one_does_and_resume(ahead, checkpoint, tmp_path):
    """Data parallel on the CPU, stopped after 3 of 6 updates: the first process samples ahead for both."""
    folder = tmp_path / "two"
    changes = {
        "eval__source": "arithmetic", "eval__every": 2, "rollout__workers": 1, "trainer__max_staleness": 1,
        "trainer__micro_batch": 4,
    }  # fmt: skip
    config = job(checkpoint, folder, **changes)
    train_with_two_processes(config, tmp_path / "config.yaml")
    copy = stopped_after(folder, 3)
    train_with_two_processes(job(checkpoint, copy, **changes), tmp_path / "again.yaml", "--resume")
    rows, again, one = metrics_of(folder), metrics_of(copy), metrics_of(ahead)
    assert [deterministic(row) for row in again] == [deterministic(row) for row in rows]
    for ours, theirs in zip(rows, one, strict=True):
        assert ours["staleness/mean"] == theirs["staleness/mean"]
        for name in ("reward/mean", "depth/mean", "completion/length_mean"):
            assert ours[name] == pytest.approx(theirs[name], abs=1e-6), name
    ours, whole = (load_file(run / "checkpoints" / f"step-{STEPS}" / "model.safetensors") for run in (folder, ahead))
    assert all(torch.allclose(ours[name], whole[name], atol=1e-4) for name in whole)
