"""Parity with the published modeling code (reference computed in fp32, left-padded batch)."""

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

import ouro_rl  # noqa: F401 (registers the model)
from ouro_rl.model.policy.exit_gate import exit_log_pdf
from tests.references.exit_distribution import threshold_depths
from tests.references.places import SHARED

PARITY = SHARED / "parity" / "ouro-parity"
pytestmark = pytest.mark.skipif(not PARITY.is_dir(), reason=f"no reference checkpoint at {PARITY}")


@pytest.fixture(scope="module")
def reference():
    return load_file(PARITY / "expected.safetensors")


@pytest.fixture(scope="module")
def model():
    return AutoModelForCausalLM.from_pretrained(PARITY).eval()


@pytest.fixture(scope="module")
def output(model, reference):
    with torch.no_grad():
        return model(reference["input_ids"], attention_mask=reference["attention_mask"])


def largest(ours, theirs, mask):
    return ((ours - theirs).abs() * mask).max().item()


def test_states_gates_and_logits_of_every_loop(model, reference, output):
    mask = reference["attention_mask"].bool()
    states = torch.stack(output.loop_states)
    assert largest(states, reference["hidden_states"], mask[None, ..., None]) <= 1e-4
    assert largest(output.gate_logits, reference["gate_logits"], mask[None]) <= 1e-4
    assert largest(exit_log_pdf(output.gate_logits).exp(), reference["exit_pdf"], mask[None]) <= 1e-4
    logits = torch.stack([model.lm_head(state) for state in states])
    assert largest(logits, reference["logits_per_loop"], mask[None, ..., None]) <= 1e-4


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7, 0.9])
def test_exit_steps_and_logits_at_a_threshold(model, reference, output, threshold):
    mask = reference["attention_mask"].bool()
    depths = threshold_depths(output.gate_logits, threshold)
    assert torch.equal(depths[mask], reference[f"exit_step_threshold_{threshold}"][mask])
    states = torch.stack(output.loop_states)
    chosen = states.gather(0, (depths - 1)[None, ..., None].expand_as(states[:1]))[0]
    assert largest(model.lm_head(chosen), reference[f"logits_threshold_{threshold}"], mask[..., None]) <= 1e-4


def test_greedy_generation_left_padded(model, reference):
    tokens = model.generate(
        reference["input_ids"], attention_mask=reference["attention_mask"], max_new_tokens=16, do_sample=False
    )
    expected = reference["greedy_full_depth"]
    got = tokens[:, reference["input_ids"].shape[1] :]
    ended = (expected == 2).long().cumsum(1).clamp(max=1)
    longest = int((1 - ended).sum(1).max()) + int(ended.any())
    assert got.shape[1] >= min(16, longest)
    assert torch.equal(got, expected[:, : got.shape[1]])
