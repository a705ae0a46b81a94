"""How long a prompt may be, from the model's positions and the memory for keys and values."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ouro_rl.core.engine_config import EngineConfig
from ouro_rl.core.sampling_params import SamplingParams
from ouro_rl.model.configuration_ouro import OuroConfig
from rollout_workers.engine.kv_cache import page_bytes

STATIC_PAGES = 1
"""Pages that static passes write to and no sample gets. Before an engine runs it is not known whether it will have
static passes; with this page put aside, a prompt fits either way."""


@dataclass(frozen=True, kw_only=True)
class PromptLimit:
    tokens: int
    """The most tokens that a prompt may have; below 1, none fits."""
    reason: str
    """What sets the limit, and how to raise it."""


def pages_within(config: OuroConfig, kv_memory_gib: float, dtype: torch.dtype) -> int:
    """The pages of keys and values that fit into this memory, the null page among them."""
    return max(2, int(kv_memory_gib * 2**30) // page_bytes(config, dtype))


def prompt_limit(
    config: OuroConfig,
    params: SamplingParams,
    engine: EngineConfig,
    dtype: torch.dtype,
    *,
    spare_pages: int = STATIC_PAGES,
) -> PromptLimit:
    """The limit for prompts that are completed with `params`. `dtype`: that of keys and values.

    A sample that fits alone always finishes: the scheduler guarantees it."""
    new = params.max_new_tokens
    positions = PromptLimit(
        tokens=config.max_position_embeddings - new,
        reason=f"with {new} new tokens a longer one exceeds the model's {config.max_position_embeddings} positions "
        "(max_position_embeddings): lower max_new_tokens",
    )
    if engine.kv_memory_gib is None:
        return positions
    loops = params.depth_policy.max_loops(config.total_ut_steps)
    pages = pages_within(config, engine.kv_memory_gib, dtype) - 1 - spare_pages
    memory = PromptLimit(
        tokens=pages // loops + 1 - new,  # the last token of a completion is never read
        reason=f"with {new} new tokens at {loops} loops the keys and values of a longer one exceed "
        f"rollout.kv_memory_gib {engine.kv_memory_gib:g}: raise it, or lower rollout.max_new_tokens or "
        "data.max_prompt_tokens",
    )
    return min(positions, memory, key=lambda limit: limit.tokens)
