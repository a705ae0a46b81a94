"""`ouro-rl check`: what it finds in a job whose samples go through filters and logit processors."""

import json
from pathlib import Path

import pytest
import torch

from ouro_rl.cli.preflight import checks
from ouro_rl.cli.preflight.checks import run_check
from ouro_rl.launch import run_training
from ouro_rl.model.checkpoint import load_policy
from rollout_workers.pool import LocalPool
from tests.references.tiny_training import config_of, metrics_of

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
