"""Training in bf16: worker and trainer compute the same policy while body and gate train."""

import json

import pytest
import torch
from safetensors.torch import load_file

from ouro_rl.kernels.cpu import select as cpu_kernels
from ouro_rl.launch import run_training
from ouro_rl.model.checkpoint import load_policy
from ouro_rl.model.modeling_ouro import OuroForCausalLM
from ouro_rl.model.tiny_tokenizer import make_tokenizer
from tests.references.tiny_models import random_model
from tests.references.tiny_training import REWARD, config_of

GATE = "model.early_exit_gate.weight"


@pytest.fixture(scope="module", params=[torch.float32, torch.bfloat16], ids=["fp32 weights", "bf16 weights"])
def checkpoint(request, tmp_path_factory):
    """A random checkpoint whose weights are stored in this precision; published ones are bf16, with the gate."""
    folder = tmp_path_factory.mktemp("checkpoint")
    tokenizer = make_tokenizer()
    weights = random_model(layers=1, loops=3, vocab=len(tokenizer), gate_scale=1.0).state_dict()
    model = random_model(layers=1, loops=3, vocab=len(tokenizer))
    model.save_pretrained(folder, state_dict={name: tensor.to(request.param) for name, tensor in weights.items()})
    tokenizer.save_pretrained(folder)
    assert load_file(folder / "model.safetensors")[GATE].dtype == request.param
    (folder / "rewards.py").write_text(REWARD)
    return folder


@pytest.mark.skipif(cpu_kernels.load()[0] is None, reason="plain torch is not batch-invariant in bf16")
def test_the_log_prob_gap_stays_0_while_the_gate_trains(checkpoint, tmp_path):
    config = config_of(
        checkpoint, tmp_path / "run", model__dtype="bfloat16", trainer__steps=10, trainer__checkpoint_every=10,
        eval__source=None,
    )  # fmt: skip
    assert run_training(config, resume=False) == 0
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["logp_gap/max"] for row in rows] == [0.0] * 10
    before, after = (load_policy(str(folder), torch.float32)[0].state_dict()[GATE] for folder in (
        checkpoint, tmp_path / "run" / "checkpoints" / "step-10"))  # fmt: skip
    assert (before - after).abs().max() > 1e-3, "the gate has trained"
    assert not torch.equal(after, after.bfloat16().float()), "rounded weights would have a gap of 0, too"


def test_a_checkpoint_in_bf16_keeps_its_gate_in_fp32(tmp_path):
    model = random_model(seed=1)
    exact = model.state_dict()[GATE].clone()
    model.bfloat16().save_pretrained(tmp_path)
    saved = load_file(tmp_path / "model.safetensors")
    assert torch.equal(saved[GATE], exact) and saved["lm_head.weight"].dtype == torch.bfloat16
    for dtype in (torch.bfloat16, torch.float32, "auto"):
        assert torch.equal(OuroForCausalLM.from_pretrained(tmp_path, dtype=dtype).state_dict()[GATE], exact)
