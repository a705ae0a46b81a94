"""Training in one process, on a model of a few thousand parameters: config to report, resuming, stopping, limits."""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from ouro_rl.cli import main as cli
from ouro_rl.cli.preflight import checks
from ouro_rl.cli.preflight.checks import run_check
from ouro_rl.config.train import TrainConfig
from ouro_rl.core.errors import RunError, UserError
from ouro_rl.launch import run_training
from ouro_rl.model.checkpoint import load_policy
from ouro_rl.model.tiny_tokenizer import make_tokenizer
from ouro_rl.training.batch import collate
from ouro_rl.training.objective.losses import token_weights
from rollout_workers.pool import LocalPool
from tests.references.patience import HANG_S, comes_true
from tests.references.tiny_models import random_model

STEP_METRICS = {
    "step", "reward/mean", "reward/math", "reward/unscored", "depth/mean", "depth/p1", "depth/p2", "depth/p3",
    "logp_gap/max", "logp_gap/mean", "gate/entropy", "gate/penalty", "groups/zero_variance", "loss/token",
    "loss/gate", "staleness/mean", "reward/std", "completion/length_mean", "completion/length_max",
    "completion/cut_off", "completion/stopped", "clip/token_low", "clip/token_high", "clip/gate_low", "clip/gate_high",
    "kl/sampler", "kl/sampler_k1", "tokens/s", "time/rollout_s", "time/reward_s", "time/train_s", "time/sync_s",
}  # fmt: skip
ROLLOUT_FIELDS = {
    "step", "policy_version", "prompt_ids", "completion_ids", "depths", "token_logprobs", "depth_logprobs",
    "temperature", "completion", "rewards", "advantage",
}  # fmt: skip

REWARD = '''
def digits(prompts, completions, **columns):
    """The share of digits: something that a random model can learn."""
    texts = [completion[0]["content"] for completion in completions]
    return [sum(c.isdigit() for c in text) / max(1, len(text)) for text in texts]

def broken(prompts, completions, **columns):
    raise KeyError("gone")

def some(prompts, completions, **columns):
    return [None if i % 4 < 3 and i % 2 else float(i) for i in range(len(completions))]

def of_texts(prompts, completions, **columns):
    return [float("1" in completion and isinstance(completion, str)) for completion in completions]

calls = []

def breaks_later(prompts, completions, **columns):
    calls.append(1)
    if len(calls) > 8:  # a step is 4 groups
        raise KeyError("gone at last")
    return [float(len(calls) + i) for i in range(len(completions))]
'''


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    tokenizer = make_tokenizer()
    model = random_model(layers=1, loops=3, vocab=len(tokenizer), gate_scale=1.0)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "rewards.py").write_text(REWARD)
    return folder


def config_of(checkpoint, run_dir, reward="digits", **changes):
    values = {
        "model": {"path": str(checkpoint)},
        "data": {"limit": 40, "operations": [2]},
        "rollout": {"max_new_tokens": 10},
        "rewards": {"functions": [{"name": f"{checkpoint}/rewards.py:{reward}"}, {"name": "math", "weight": 0.0}]},
        "gate": {"lr": 1e-2, "target_depth": 1.5},
        "trainer": {
            "steps": 3,
            "prompts_per_step": 4,
            "group_size": 4,
            "micro_batch": 8,
            "lr": 1e-2,
            "checkpoint_every": 2,
        },
        "eval": {"source": "arithmetic", "limit": 6, "operations": [2]},
        "run": {"dir": str(run_dir), "seed": 3},
    }
    for key, value in changes.items():
        section, name = key.split("__")
        values[section][name] = value
    return TrainConfig.model_validate(values, strict=False)


def deterministic(row):
    return {key: value for key, value in row.items() if not key.startswith(("time/", "tokens/s"))}


def metrics_of(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def finished(checkpoint, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "whole"
    assert run_training(config_of(checkpoint, folder), resume=False) == 0
    return folder


def test_the_run_directory_keeps_its_contract(finished):
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


def test_a_finished_run_is_not_written_into(finished, checkpoint):
    assert run_training(config_of(checkpoint, finished, trainer__steps=1, eval__source=None), resume=False) == 0
    assert (finished.with_name("whole-2") / "metrics.jsonl").exists() and len(metrics_of(finished)) == 3


def test_a_gate_that_is_off_stays_as_it_was(checkpoint, tmp_path):
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


PROCESSOR = """
def less_of_the_last(logits, token_ids):
    for row, ids in enumerate(token_ids):
        logits[row, ids[-1]] -= 2.0
    return logits
"""


@pytest.fixture
def filtered(checkpoint, tmp_path):
    (tmp_path / "mine.py").write_text(PROCESSOR)
    return config_of(
        checkpoint,
        tmp_path / "run",
        rollout__temperature=0.9,
        rollout__top_k=60,
        rollout__top_p=0.9,
        rollout__min_p=0.01,
        rollout__gate_temperature=1.5,
        rollout__stop_strings=["7", "q\u00e9"],
        rollout__stop_token_ids=[40],
        rollout__logit_processors=[f"{tmp_path}/mine.py:less_of_the_last"],
    )


def test_what_shapes_the_samples_shapes_the_loss(filtered):
    assert run_training(filtered, resume=False) == 0
    folder = filtered.run.dir
    assert max(row["logp_gap/max"] for row in metrics_of(folder)) <= 1e-5
    rollouts = [json.loads(line) for line in (folder / "rollouts" / "step-000002.jsonl").read_text().splitlines()]
    by_text = [r for r in rollouts if r["stop_string"] == "7"]
    assert by_text and all(r["completion"].endswith("7") and r["finish_reason"] == "stop" for r in by_text)
    assert all("7" not in r["completion"][:-1] for r in rollouts)
    assert all(0 < size <= 60 for r in rollouts for size in r["support_sizes"])
    assert rollouts[0]["top_p"] == 0.9 and rollouts[0]["gate_temperature"] == 1.5


def test_the_preflight_covers_the_filters(filtered, capsys):
    assert run_check(filtered) in (0, 1)  # a random model may fail other checks
    first, second = [line for line in capsys.readouterr().out.splitlines() if "log-prob gap" in line]
    assert "after an update" in second and "changed 16 of 16 tensors" in second
    for line in (first, second):
        assert line.startswith("ok") and float(line.split("max ")[1].split(",")[0]) <= 1e-5


def test_the_preflight_finds_a_processor_that_is_not_a_function_of_its_row(filtered, capsys):
    path = Path(filtered.rollout.logit_processors[0].rpartition(":")[0])
    path.write_text("import torch\n\ndef noise(logits, token_ids):\n    return logits + torch.randn_like(logits)\n")
    rollout = filtered.rollout.model_copy(update={"logit_processors": (f"{path}:noise",)})
    assert run_check(filtered.model_copy(update={"rollout": rollout})) == 1
    lines = [line for line in capsys.readouterr().out.splitlines() if "log-prob gap" in line]
    assert len(lines) == 2 and all(line.startswith("FAIL") for line in lines)


def test_the_preflight_finds_workers_that_miss_an_update(checkpoint, tmp_path, monkeypatch, capsys):
    """Its first step cannot see it, and the model is as before afterwards."""
    config = config_of(checkpoint, tmp_path / "run", trainer__logp_gap_limit=1e-4, eval__source=None)
    models = []

    def publish_at_first(pool, state, version):
        return publish(pool, state, version) if version == 0 else setattr(pool.worker, "version", version)

    publish = LocalPool.publish
    monkeypatch.setattr(LocalPool, "publish", publish_at_first)
    monkeypatch.setattr(checks, "load_policy", lambda *a: (loaded := load_policy(*a), models.append(loaded[0]))[0])
    assert run_check(config) == 1
    first, second = [line for line in capsys.readouterr().out.splitlines() if "log-prob gap" in line]
    assert first.startswith("ok") and second.startswith("FAIL")
    fresh = load_policy(str(checkpoint), torch.float32)[0].state_dict()
    assert all(torch.equal(tensor, fresh[name]) for name, tensor in models[0].state_dict().items())


def test_a_gap_above_the_limit_stops_the_run(checkpoint, tmp_path, monkeypatch):
    """With the C kernels the gap is 0, so the workers' records are changed by ten times the limit."""
    config = config_of(checkpoint, tmp_path / "run", trainer__logp_gap_limit=1e-3, eval__source=None)

    def collate_changed(*arguments):
        batch = collate(*arguments)
        return batch | {"sampler_logprobs": batch["sampler_logprobs"] + 1e-2}

    monkeypatch.setattr("ouro_rl.training.trainer.collate", collate_changed)
    with pytest.raises(RunError, match="worker and trainer disagree"):
        run_training(config, resume=False)


def test_a_broken_reward_stops_the_run_and_says_why(checkpoint, tmp_path):
    with pytest.raises(RunError, match="KeyError") as caught:
        run_training(config_of(checkpoint, tmp_path / "run", reward="broken", eval__source=None), resume=False)
    assert "100% of this step's completions could not be scored" in str(caught.value)


def test_a_reward_that_breaks_later_leaves_an_intact_checkpoint(checkpoint, tmp_path):
    folder = tmp_path / "run"
    config = config_of(checkpoint, folder, reward="breaks_later", eval__source=None)
    with pytest.raises(RunError, match="breaks_later: crash.*KeyError: 'gone at last'"):
        run_training(config, resume=False)
    assert [row["step"] for row in metrics_of(folder)] == [1, 2]
    assert metrics_of(folder)[0]["reward/breaks_later/status/correct"] == 1.0
    kept = folder / "checkpoints" / "step-2"
    assert AutoModelForCausalLM.from_pretrained(kept).config.total_ut_steps == 3
    mended = (checkpoint / "rewards.py").read_text().replace("len(calls) > 8", "False")
    (checkpoint / "rewards.py").write_text(mended)
    assert run_training(config, resume=True) == 0
    assert [row["step"] for row in metrics_of(folder)] == [1, 2, 3]


def test_fewer_prompts_than_a_step_needs(checkpoint, tmp_path):
    with pytest.raises(UserError, match="prompts_per_step"):
        run_training(config_of(checkpoint, tmp_path / "run", data__limit=3), resume=False)
    assert not (tmp_path / "run").exists()  # so that the next attempt can use this folder


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_a_checkpoint_that_can_be_resumed(checkpoint, tmp_path, number):
    folder = tmp_path / "run"
    config = config_of(checkpoint, folder, trainer__steps=500, trainer__checkpoint_every=500, eval__source=None)
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    command = [sys.executable, "-m", "ouro_rl", "train", str(path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=os.environ)
    assert comes_true(lambda: (folder / "metrics.jsonl").exists() or process.poll() is not None)
    process.send_signal(number)
    output, _ = process.communicate(timeout=HANG_S)
    assert process.returncode == 128 + number, output
    assert f"is complete. Resume with --resume run.dir={folder}" in output
    steps = len(metrics_of(folder))
    assert (folder / "checkpoints" / f"step-{steps}" / "trainer_state.json").exists()
    assert cli.main(["train", str(path), "--resume", f"trainer.steps={steps + 1}"]) == 0
    assert len(metrics_of(folder)) == steps + 1


@pytest.mark.slow
def test_two_processes_train_the_same_policy_as_one(finished, checkpoint, tmp_path):
    """Data parallel on the CPU: the first process samples for both, each trains on half, and the update is the same."""
    folder = tmp_path / "two"
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(config_of(checkpoint, folder).model_dump(mode="json")))
    launch = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        "--cpu",
        "--num_processes",
        "2",
        "--num_machines",
        "1",
    ]
    command = [*launch, "--mixed_precision", "no", "--dynamo_backend", "no", "-m", "ouro_rl", "train", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=2 * HANG_S, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    for two, one in zip(metrics_of(folder), metrics_of(finished), strict=True):
        for name in ("reward/mean", "depth/mean", "gate/price", "completion/length_mean"):
            assert two[name] == pytest.approx(one[name], abs=1e-6), name
        assert two["logp_gap/max"] <= 1e-5
    ours, whole = (load_file(place / "checkpoints" / "step-3" / "model.safetensors") for place in (folder, finished))
    assert all(torch.allclose(ours[name], whole[name], atol=1e-4) for name in whole)


def test_any_number_of_workers_samples_the_same(finished, checkpoint, tmp_path):
    """Ray actors instead of the in-process worker: the same tokens and depths at every step."""
    folder = tmp_path / "ray"
    run_training(config_of(checkpoint, folder, rollout__workers=2, eval__source=None), resume=False)
    for step in (1, 2, 3):
        name = f"rollouts/step-{step:06d}.jsonl"
        ours, whole = (
            [json.loads(line) for line in (place / name).read_text().splitlines()] for place in (folder, finished)
        )
        for two, one in zip(ours, whole, strict=True):
            assert two["completion_ids"] == one["completion_ids"] and two["depths"] == one["depths"]
            assert two["policy_version"] == one["policy_version"] == step - 1


def test_prompts_that_do_not_fit_are_found_at_the_start(checkpoint, tmp_path, caplog, capsys):
    """The model has 256 positions; a prompt that exceeds them would stop the run when it comes up, after hours."""
    rows = [{"problem": "1" * length, "answer": "1"} for length in (1, 2, 300, 3, 4)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = str(tmp_path / "rows.jsonl")
    config = config_of(checkpoint, tmp_path / "run", data__source=source, eval__source=source)
    run_check(config)
    assert "prompt lengths: 4 of 5 fit into 246 tokens" in capsys.readouterr().out
    assert run_training(config, resume=False) == 0
    for where in ("data.source", "eval.source"):
        assert f"{where} {source}: left out 1 of 5 prompts, longer than 246 tokens (row 3 has " in caplog.text
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["n_heldout"] == 4
    none_fits = config_of(checkpoint, tmp_path / "none", data__source=source, rollout__max_new_tokens=256)
    with pytest.raises(UserError, match="none of 5 prompts fits"):
        run_training(none_fits, resume=False)
    assert not (tmp_path / "none").exists()


def test_a_reward_that_gives_no_signal_is_told_of(checkpoint, tmp_path, capsys):
    """It expects texts and gets messages, so it gives 0 for ever."""
    config = config_of(checkpoint, tmp_path / "run", reward="of_texts", eval__source=None, trainer__steps=5)
    assert run_training(config, resume=False) == 0
    told = [line for line in capsys.readouterr().err.splitlines() if "of_texts(" in line]
    assert len(told) == 1 and "of_texts(completions=[[{'role': 'assistant', 'content': " in told[0]
    assert "-> 0.0; in all 16 x 0" in told[0]


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
