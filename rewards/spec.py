"""A reward as configured: name, weight, options."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class RewardSpec:
    """One reward of a config."""

    name: str
    weight: float = 1.0
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    """Built-in reward: its options. Custom reward: additional keyword arguments of every call."""
    timeout_s: float | None = None
    """Seconds per call. A call is one batch for TRL's signature, and one item for built-in rewards and the other
    adapters. None = the scorer's timeout."""
    adapter: Adapter = "auto"
    """Custom reward: how the function is called."""

    @property
    def label(self) -> str:
        """Name of this reward in results and metrics: the built-in name, or the function's name."""
        return self.name.rpartition(":")[2]

    @property
    def built_in(self) -> bool:
        return ":" not in self.name


Adapter = Literal["auto", "trl", "verl", "plain"]
"""How a function is called. `trl`: once per batch, `f(prompts, completions, **columns)`. `verl`: once per item,
`f(data_source, solution_str, ground_truth, extra_info)`, which returns a number or a dict with `score`. `plain`: once
per item, `f(completion, answer)`. `auto`: inferred from the names of its parameters."""
