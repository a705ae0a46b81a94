"""The model at other sizes, numbers of loops and grouped heads; generation, saving and loading."""

import json

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from ouro_rl.model.configuration_ouro import OuroConfig
from ouro_rl.model.modeling_ouro import OuroForCausalLM
from ouro_rl.model.policy.exit_gate import exit_log_pdf
from tests.references.tiny_models import random_model

SHAPES = [
    dict(layers=1, loops=1),
    dict(layers=3, heads=4, kv_heads=2, loops=5),
    dict(layers=2, heads=8, kv_heads=1, loops=3),
]


def greedy_without_cache(model, ids, count):
    for _ in range(count):
        logits = model(ids, use_cache=False).logits[:, -1]
        ids = torch.cat([ids, logits.argmax(-1, keepdim=True)], 1)
    return ids


@pytest.mark.parametrize("shape", SHAPES)
@torch.no_grad()
def test_generate_left_padded_equals_each_alone_without_cache(shape):
    model = random_model(seed=2, **shape)
    model.generation_config.eos_token_id = None
    lengths, width = [3, 7, 5], 7
    rows = [torch.randint(3, 41, (length,), generator=torch.Generator().manual_seed(length)) for length in lengths]
    ids = torch.stack([torch.nn.functional.pad(row, (width - len(row), 0)) for row in rows])
    mask = (torch.arange(width) >= width - torch.tensor(lengths).unsqueeze(1)).long()
    got = model.generate(ids, attention_mask=mask, max_new_tokens=9, do_sample=False)[:, width:]
    for row, tokens in zip(rows, got, strict=True):
        assert torch.equal(greedy_without_cache(model, row.unsqueeze(0), 9)[0, len(row) :], tokens)


@torch.no_grad()
def test_cached_chunks_equal_one_forward_and_logits_to_keep():
    model = random_model(seed=3, layers=2, loops=3)
    ids = torch.randint(0, 41, (2, 10), generator=torch.Generator().manual_seed(0))
    whole = model(ids)
    first = model(ids[:, :6], use_cache=True)
    second = model(ids[:, 6:], past_key_values=first.past_key_values, use_cache=True)
    assert (torch.cat([first.logits, second.logits], 1) - whole.logits).abs().max() <= 1e-4
    assert len(second.past_key_values.layers) == 6
    assert torch.equal(model(ids, logits_to_keep=2).logits, whole.logits[:, -2:])


@torch.no_grad()
def test_loop_states_and_gate_logits_are_returned():
    model = random_model(layers=2, loops=4)
    ids = torch.randint(0, 41, (2, 5))
    output = model(ids)
    assert len(output.loop_states) == 4 and output.gate_logits.shape == (4, 2, 5)
    assert torch.allclose(exit_log_pdf(output.gate_logits).exp().sum(0), torch.ones(2, 5))
    shallow = model(ids, num_loops=2)
    assert torch.equal(shallow.logits, model.lm_head(output.loop_states[1]))
    assert len(model(ids, num_loops=6).loop_states) == 6


@torch.no_grad()
def test_eager_and_sdpa_attention_agree():
    model = random_model(layers=2, heads=4, kv_heads=2)
    ids = torch.randint(0, 41, (2, 8))
    mask = torch.ones_like(ids)
    mask[0, :3] = 0
    sdpa = model(ids, attention_mask=mask).logits
    model.set_attn_implementation("eager")
    assert (model(ids, attention_mask=mask).logits - sdpa)[mask.bool()].abs().max() <= 1e-4


def test_save_and_load_keep_the_published_names(tmp_path):
    model = random_model(layers=2)
    model.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert isinstance(loaded, OuroForCausalLM) and isinstance(AutoConfig.from_pretrained(tmp_path), OuroConfig)
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor)
    stored = json.loads((tmp_path / "config.json").read_text())
    assert stored["rope_theta"] == 10_000.0 and stored["total_ut_steps"] == 4 and stored["model_type"] == "ouro"
    assert {
        "model.early_exit_gate.weight",
        "model.layers.1.post_attention_layernorm_2.weight",
        "lm_head.weight",
    } <= set(model.state_dict())


def test_the_published_shapes_have_the_published_number_of_parameters():
    with torch.device("meta"):
        small = OuroForCausalLM(OuroConfig())
        large = OuroForCausalLM(OuroConfig(num_hidden_layers=48))
    assert sum(p.numel() for p in small.parameters()) == 1_434_652_673 and len(small.state_dict()) == 269
    assert sum(p.numel() for p in large.parameters()) == 2_667_974_657 and len(large.state_dict()) == 533


@pytest.mark.parametrize(
    "wrong", [dict(num_key_value_heads=3), dict(total_ut_steps=0), dict(rope_scaling={"type": "yarn"})]
)
def test_shapes_that_cannot_be_built_are_refused(wrong):
    with pytest.raises(ValueError):
        OuroConfig(num_attention_heads=4, hidden_size=32, **wrong)
