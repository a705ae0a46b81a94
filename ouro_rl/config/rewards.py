"""The section `rewards` of `ouro-rl train`."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from ouro_rl.config.section import Section
from ouro_rl.core.user_functions import REWARD_MEMORY_MB


class RewardConfig(Section):
    name: str
    """`math`, `code`, `format`, `length`, `exact`, `regex`, `module.path:function`, or `path/to/file.py:function`."""
    weight: float = 1.0
    """Weight of its score in the reward."""
    kwargs: dict[str, Any] = {}
    """Options of a built-in reward; extra keyword arguments of a function."""
    timeout_s: float = Field(default=10.0, gt=0)
    """Timeout of one call, in seconds: of one item, or of one batch if the function takes batches."""
    adapter: Literal["auto", "trl", "verl", "plain"] = "auto"
    """Calling convention of a function: TRL's, verl's `compute_score`, or plain `f(completion, answer)`; `auto` decides
    by its parameters."""


class RewardsConfig(Section):
    functions: tuple[RewardConfig, ...] = Field(default=(RewardConfig(name="math"),), min_length=1)
    """The rewards; a completion's reward is their weighted sum."""
    workers: int = Field(default=1, ge=1)
    """Scoring processes; each can be killed at a timeout."""
    memory_mb: int = Field(default=REWARD_MEMORY_MB, ge=64)
    """Memory that the process of a function of yours may have for itself, in MiB: what it allocates, without the
    libraries that it loads. Beyond it an allocation fails, and the call is a `crash`. (Linux)"""
    max_unscored: float = Field(default=0.2, ge=0, le=1)
    """The run stops if a larger fraction of a step's completions could not be scored."""
