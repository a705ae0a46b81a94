"""The workload: a random model of Ouro's architecture, prompts, and a trace of depths.

The trace: the gate's weight is zero and its bias is a constant b, so lambda = sigmoid(b) for every token at every loop.
A token's depth then depends only on its sample's seed and its position, whatever the engine, the precision or the rest
of the batch. b is chosen for E[d] = `mean_depth`, and only seeds whose depths add up to exactly `mean_depth * tokens`
are used. So all samples need the same number of loops, the batch stays full until the last pass, and what is timed is
the steady state of a long queue. (Neither holds for the run `gate_small` of the benchmark `rollout`: its depths come
from a random gate, and its batch drains towards the end.)
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ouro_rl.core.rollout import Prompt, RolloutRequest
from ouro_rl.model.configuration_ouro import OuroConfig
from ouro_rl.model.modeling_ouro import OuroForCausalLM
from ouro_rl.model.policy.counter_rng import DEPTH_STREAM, uniforms
from ouro_rl.model.policy.exit_gate import log_quantile, log_stay

NEVER = -30.0
"""A gate bias at which no token exits early: lambda is 1e-13."""
CANDIDATES = 4096
"""Seeds that are examined at once."""


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Shapes of a run. The defaults are those of the benchmark; `QUICK` is for trying it out."""

    hidden: int = 768
    layers: int = 12
    intermediate: int = 2048
    heads: int = 12
    vocabulary: int = 8192
    loops: int = 4
    mean_depth: float = 2.5
    prompt: int = 64
    """Tokens of a prompt."""
    tokens: int = 64
    """New tokens of a sample."""
    batch: int = 64
    small_batch: int = 16
    group: int = 16
    group_prompt: int = 256
    cache_batch: int = 4
    """Samples without a shared prompt in the benchmark `cache`; the bytes per sample do not depend on it."""
    curve_tokens: int = 32
    batches: tuple[int, ...] = (1, 4, 16, 64, 128, 256)
    contexts: tuple[int, ...] = (64, 256, 1024, 4096)
    context_batch: int = 4
    groups: tuple[int, ...] = (1, 2, 4, 8, 16, 32)
    read_bytes: int = 256 << 20
    """Size of the buffer for measuring read bandwidth; far larger than any cache."""
    gemm_size: int = 1024
    """Size of the square matrices for measuring the GEMM rate."""
    published_layers: int = 24
    """The model whose weights are published: Ouro-1.4B."""
    published_hidden: int = 2048
    published_intermediate: int = 5632
    published_vocabulary: int = 49152

    @property
    def loop_parameters(self) -> int:
        """Parameters in the matrices of the looped layers; each is multiplied once per row and loop."""
        return self.layers * (4 * self.hidden**2 + 3 * self.hidden * self.intermediate)

    @property
    def head_parameters(self) -> int:
        return self.hidden * self.vocabulary


QUICK = Sizes(
    hidden=64, layers=2, intermediate=128, heads=2, vocabulary=256, prompt=8, tokens=16, batch=8, small_batch=4,
    group=4, group_prompt=32, cache_batch=2, curve_tokens=16, batches=(1, 4, 8), contexts=(16, 64), context_batch=2,
    groups=(1, 2, 4), read_bytes=8 << 20, gemm_size=128, published_layers=2, published_hidden=512,
    published_intermediate=1024, published_vocabulary=1024,
)  # fmt: skip


def bench_model(sizes: Sizes, dtype: torch.dtype = torch.bfloat16) -> OuroForCausalLM:
    """A model with random weights, always the same ones, for inference."""
    torch.manual_seed(0)
    config = OuroConfig(
        vocab_size=sizes.vocabulary,
        hidden_size=sizes.hidden,
        intermediate_size=sizes.intermediate,
        num_hidden_layers=sizes.layers,
        num_attention_heads=sizes.heads,
        total_ut_steps=sizes.loops,
        max_position_embeddings=2 * max(sizes.contexts) + 1024,
        bos_token_id=None,
        eos_token_id=None,
    )
    model = OuroForCausalLM(config).to(dtype).eval()  # type: ignore[arg-type] # transformers' decorator hides the signature
    set_gate(model.model.early_exit_gate, trace_bias(sizes))
    return model


def set_gate(gate: nn.Linear, bias: float, *, spread: float = 0.0) -> None:
    """Give an exit gate this bias and random weights whose logits have about this standard deviation (states have mean
    square 1)."""
    with torch.no_grad():
        noise = torch.randn(gate.weight.shape, generator=torch.Generator().manual_seed(1))
        gate.weight.copy_(noise * spread / math.sqrt(gate.in_features))
        gate.bias.fill_(bias)


def trace_bias(sizes: Sizes) -> float:
    """The bias at which a gate with zero weights has E[d] = sum over t < T of (1 - lambda)^t = `mean_depth`, by
    bisection."""
    low, high = -40.0, 40.0
    for _ in range(60):
        bias = (low + high) / 2
        stay = 1 / (1 + math.exp(bias))
        mean = sum(stay**loop for loop in range(sizes.loops))
        low, high = (bias, high) if mean > sizes.mean_depth else (low, bias)
    return bias


def trace_depths(seeds: Tensor, tokens: int, bias: float, loops: int) -> Tensor:
    """The depths [n, tokens] of seeds [n] under a gate with this bias and zero weights."""
    places = torch.arange(tokens).repeat(len(seeds))
    draws = log_quantile(uniforms(seeds.repeat_interleave(tokens), places, DEPTH_STREAM))
    log_survival = log_stay(torch.full((loops - 1, 1), bias)).cumsum(0)
    return (loops - (log_survival <= draws).sum(0)).view(len(seeds), tokens)


def trace_seeds(model: OuroForCausalLM, sizes: Sizes, count: int, tokens: int) -> list[int]:
    """The first `count` seeds whose depths add up to `mean_depth * tokens` (rounded)."""
    bias = torch.tensor(trace_bias(sizes)).to(model.model.early_exit_gate.bias.dtype).item()
    found: list[int] = []
    total, first = round(sizes.mean_depth * tokens), 0
    while len(found) < count:
        seeds = torch.arange(first, first + CANDIDATES)
        found += seeds[trace_depths(seeds, tokens, bias, sizes.loops).sum(1) == total].tolist()
        first += CANDIDATES
    return found[:count]


def make_requests(sizes: Sizes, seeds: Sequence[int], *, prompt: int, group: int = 1) -> list[RolloutRequest]:
    """Random prompts of `prompt` tokens, each with the next `group` seeds. No two start with the same token, so that
    prefixes are shared only within a group."""
    generator = torch.Generator().manual_seed(2)
    requests: list[RolloutRequest] = []
    for index in range(0, len(seeds), group):
        rest = torch.randint(sizes.vocabulary, (prompt - 1,), generator=generator).tolist()
        question = Prompt(index=len(requests), token_ids=(len(requests) % sizes.vocabulary, *rest))
        requests.append(RolloutRequest(prompt=question, seeds=tuple(seeds[index : index + group])))
    return requests


def as_dict(sizes: Sizes) -> dict[str, object]:
    """The sizes as stored in the JSON: lists instead of tuples."""
    return {
        name: list(value) if isinstance(value, tuple) else value for name, value in dataclasses.asdict(sizes).items()
    }
