"""What a config says about a reward."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class RewardSpec:
    """One reward as a config names it."""

    name: str
    weight: float = 1.0
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    """Built in: its options. Custom: further keyword arguments of every call."""
    timeout_s: float | None = None
    """Seconds for one call: of a built-in and of an adapter by item, for one item; of TRL's signature, for one batch.
    None = the scorer's."""
    adapter: Adapter = "auto"
    """Custom: how the function is called."""

    @property
    def label(self) -> str:
        """How results and metrics call this reward: a built-in's name, a custom function's name."""
        return self.name.rpartition(":")[2]

    @property
    def built_in(self) -> bool:
        return ":" not in self.name


Adapter = Literal["auto", "trl", "verl", "plain"]
"""How a function wants to be called. `trl`: once a batch, `f(prompts, completions, **columns)`. `verl`: once an item,
`f(data_source, solution_str, ground_truth, extra_info)`, a number or a dict with `score`. `plain`: once an item,
`f(completion, answer)`. `auto`: by the names of its parameters."""
