"""The warm start, in miniature: each stage moves what it should, and the result is a whole checkpoint."""

import json

import pytest
import torch

from ouro_rl.config.warmstart import WarmstartConfig
from ouro_rl.model.checkpoint import load_policy
from ouro_rl.model.tiny_tokenizer import make_tokenizer
from ouro_rl.policy.exit_gate import exit_log_pdf
from ouro_rl.warmstart.run import demonstrations, run_warmstart
from ouro_rl.warmstart.stages import GATE, draw_depths, settling, stage_one, stage_two
from tests.references.tiny_models import random_model


def config_of(output, **steps):
    return WarmstartConfig.model_validate(
        {
            "model": {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "total_ut_steps": 3},
            "corpus": {"operations": [1, 2]},
            "stage_one": {"steps": steps.get("one", 0), "batch_size": 8, "lr_warmup": 2},
            "stage_two": {"steps": steps.get("two", 0), "batch_size": 8},
            "settling": {"steps": steps.get("settling", 0), "batch_size": 8},
            "eval_problems": 4,
            "output": str(output),
        },
        strict=False,
    )


@pytest.mark.parametrize("stage,moves_gate,moves_body", [
    (stage_one, True, True), (stage_two, True, False), (settling, False, True),
])  # fmt: skip
def test_each_stage_moves_what_it_should(tmp_path, stage, moves_gate, moves_body):
    tokenizer = make_tokenizer()
    model = random_model(layers=1, loops=3, vocab=len(tokenizer), gate_scale=1.0)
    config = config_of(tmp_path, one=3, two=3, settling=3)
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    stage(model, config, demonstrations(config, tokenizer, seed=0))
    moved = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
    assert (moved & set(GATE) == set(GATE)) if moves_gate else not moved & set(GATE)
    assert (moved - set(GATE) == set(before) - set(GATE)) if moves_body else not moved - set(GATE)


def test_stage_one_learns_and_the_checkpoint_is_whole(tmp_path):
    run_warmstart(config_of(tmp_path / "tiny", one=30, two=2, settling=2))
    model, tokenizer = load_policy(str(tmp_path / "tiny"), torch.float32)
    record = json.loads((tmp_path / "tiny" / "warmstart.json").read_text())
    stage_one_rows = [row for row in record["history"] if row["stage"] == "Stage I"]
    assert stage_one_rows[-1]["losses"][-1] < stage_one_rows[0]["losses"][-1] - 0.5
    assert {"fixed 1", "fixed 3", "threshold 0.5", "sample"} <= {row["name"] for row in record["figures"]}
    assert tokenizer.chat_template and tokenizer.eos_token == "<|im_end|>"


@pytest.mark.parametrize("stage", [stage_one, stage_two])
def test_a_step_takes_one_forward(tmp_path, monkeypatch, stage):
    tokenizer = make_tokenizer()
    model = random_model(layers=1, loops=3, vocab=len(tokenizer), gate_scale=1.0)
    config, calls, forward = config_of(tmp_path, one=2, two=2), [], model.model.forward
    monkeypatch.setattr(model.model, "forward", lambda *args, **kwargs: calls.append(1) or forward(*args, **kwargs))
    stage(model, config, demonstrations(config, tokenizer, seed=0))
    assert len(calls) == 2


def test_drawn_depths_follow_the_exit_distribution():
    torch.manual_seed(0)
    gates = torch.tensor([0.2, -0.7, 3.0]).view(3, 1).expand(3, 20_000)
    shares = torch.bincount(draw_depths(gates), minlength=4)[1:] / 20_000
    assert (shares - exit_log_pdf(gates[:, 0]).exp()).abs().max() < 0.015


def test_demonstrations_are_masked_to_the_answer_and_padded_behind():
    tokenizer = make_tokenizer()
    ids, mask = next(demonstrations(config_of("unused"), tokenizer, seed=0))(6)
    for row, kept in zip(ids, mask, strict=True):
        answer = tokenizer.decode(row[kept])
        assert answer.endswith("}<|im_end|>") and "\\boxed{" in answer
        assert tokenizer.decode(row).startswith("<|im_start|>user\n")
