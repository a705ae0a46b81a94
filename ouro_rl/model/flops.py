"""Floating-point operations of an answer: a product of [n, k] and [k, m] counts as 2 n k m.

Counted: the projections and the MLP of every layer, attention over all earlier positions, the gate, and the LM head.
Not counted: norms, activations, rotations and softmax, which are less than a hundredth.
"""

from __future__ import annotations

from collections.abc import Sequence

from ouro_rl.core.sampling_params import NO_DEPTH
from ouro_rl.model.configuration_ouro import OuroConfig


def loop_flops(config: OuroConfig) -> int:
    """Of one loop of one token, without attention over its context."""
    hidden, (heads, pairs, dim) = config.hidden_size, config.attention_shape
    attention = 2 * hidden * dim * (2 * heads + 2 * pairs)
    mlp = 2 * hidden * config.intermediate_size * 3
    return config.num_hidden_layers * (attention + mlp) + 2 * hidden


def context_flops(config: OuroConfig) -> int:
    """Of one loop of one token, for each position that it reads: its score, and its share of the sum of values."""
    heads, _, dim = config.attention_shape
    return config.num_hidden_layers * 2 * 2 * heads * dim


def answer_flops(
    config: OuroConfig, prompt_tokens: int, depths: Sequence[int], prompt_loops: int, *, head_every_loop: bool = False
) -> int:
    """Of a completion and its prompt. `depths`: loops run at each position that predicts a completion token, the first
    of which is the prompt's last. `prompt_loops`: loops of all earlier positions.
    `head_every_loop`: the LM head runs after each loop of a completion token, not after the last alone.

    A position reads itself and every earlier one, at every loop that it runs."""
    depths = [depth for depth in depths if depth != NO_DEPTH]
    before = prompt_tokens - 1
    loops = before * prompt_loops + sum(depths)
    read = prompt_loops * before * (before + 1) // 2
    read += sum(depth * (before + index) for index, depth in enumerate(depths, start=1))
    heads = sum(depths) if head_every_loop else len(depths)
    head = 2 * config.hidden_size * config.vocab_size * heads
    return loops * loop_flops(config) + read * context_flops(config) + head
