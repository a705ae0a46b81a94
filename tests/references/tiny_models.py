"""Small random models for the tests."""

import torch

from ouro_rl.kernels.cpu import select as cpu_kernels
from ouro_rl.model.configuration_ouro import OuroConfig
from ouro_rl.model.modeling_ouro import OuroForCausalLM

FP32_UNIT = 2.0**-24
"""Relative rounding error of one fp32 operation."""


def rounding(model: OuroForCausalLM) -> float:
    """Tolerance between two ways of computing this model's log-probs in fp32.

    Every sum rounds once per term, and errors propagate through layers and loops. All values are of order 1."""
    config = model.config
    terms = max(config.hidden_size, config.intermediate_size)
    return FP32_UNIT * terms * (config.num_hidden_layers * config.total_ut_steps + 1)


def near(got: torch.Tensor, expected: torch.Tensor, model: OuroForCausalLM) -> bool:
    """Whether both can be results of the same computation, relative to the largest number."""
    scale = max(1.0, expected.abs().max().item())
    return (got - expected).abs().max().item() <= scale * rounding(model)


def batch_tolerance(model: OuroForCausalLM) -> float:
    """Tolerance of a sample's log-probs between batches: 0 with the C kernels, plain torch's rounding otherwise."""
    return 0.0 if cpu_kernels.load()[0] is not None else rounding(model)


def random_model(seed=0, *, layers=2, heads=4, kv_heads=None, loops=4, hidden=32, vocab=41, gate_scale=8.0):
    """A random model whose gate logits are large enough for depths to vary."""
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
