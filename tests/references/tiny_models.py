"""Small random models for the tests."""

import torch

from ouro_rl.kernels.cpu import select as cpu_kernels
from ouro_rl.model.configuration_ouro import OuroConfig
from ouro_rl.model.modeling_ouro import OuroForCausalLM

FP32_UNIT = 2.0**-24
"""Rounding of one operation, relative to what it gives."""


def rounding(model: OuroForCausalLM) -> float:
    """What two ways of computing this model's log-probs in fp32 may differ by: every sum rounds once a term, and passes
    that on from layer to layer and from loop to loop. States, logits and gates are of the order of 1."""
    config = model.config
    terms = max(config.hidden_size, config.intermediate_size)
    return FP32_UNIT * terms * (config.num_hidden_layers * config.total_ut_steps + 1)


def near(got: torch.Tensor, expected: torch.Tensor, model: OuroForCausalLM) -> bool:
    """Whether these are what one and the same computation may give, relative to the largest number in them."""
    scale = max(1.0, expected.abs().max().item())
    return (got - expected).abs().max().item() <= scale * rounding(model)


def in_company(model: OuroForCausalLM) -> float:
    """What a sample's log-probs may differ by in other company: nothing with the C kernels, the rounding of plain torch
    elsewhere."""
    return 0.0 if cpu_kernels.load()[0] is not None else rounding(model)


def random_model(seed=0, *, layers=2, heads=4, kv_heads=None, loops=4, hidden=32, vocab=41, gate_scale=8.0):
    """A model whose gate is strong enough for depths to vary."""
    torch.manual_seed(seed)
    config = OuroConfig(
        vocab_size=vocab,
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        total_ut_steps=loops,
        max_position_embeddings=256,
        initializer_range=0.2,
        rope_theta=10_000.0,
    )
    model = OuroForCausalLM(config).eval()
    with torch.no_grad():
        model.model.early_exit_gate.weight.mul_(gate_scale)
        model.model.early_exit_gate.bias.fill_(-0.5)
    return model
