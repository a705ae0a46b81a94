"""Loads rewards by name: a built-in name, `module.path:function`, or `path/to/file.py:function`."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from ouro_rl.core.errors import UserError
from ouro_rl.core.user_functions import FORMS, load_function
from rewards.code_grader.reward import CodeReward
from rewards.math_grader.reward import MathReward
from rewards.spec import RewardSpec
from rewards.text_rewards import ExactReward, FormatReward, LengthReward, RegexReward
from rewards.verdict import Verdict


class BuiltInReward(Protocol):
    """A reward of this package. Its attribute `wants`, if any, names inputs (`prompts`, `completion_ids`) that are
    added to the data set's columns."""

    def __call__(self, completions: Sequence[Any], **columns: Any) -> list[float | None]:
        """TRL's signature."""

    def verdicts(self, completions: Sequence[Any], columns: dict[str, Any]) -> list[Verdict]:
        """One per completion, in order. Every column has one value per completion."""

    def close(self) -> None:
        """Stop its workers."""


BUILT_IN: dict[str, Callable[..., BuiltInReward]] = {
    "math": MathReward,
    "code": CodeReward,
    "format": FormatReward,
    "length": LengthReward,
    "exact": ExactReward,
    "regex": RegexReward,
}
"""Name -> class. Its keyword arguments are `workers`, `timeout_s` and those of a spec's `kwargs`."""


def load_reward(spec: RewardSpec | str) -> Callable[..., Any]:
    """The reward function of a spec, with TRL's signature. A custom function is imported into this process and returned
    unchanged, without the spec's kwargs (`scorer.check_reward` imports it in a child process instead).

    Raises UserError (at most two lines, with the fix) if it cannot be imported or an option is unknown."""
    spec = RewardSpec(spec) if isinstance(spec, str) else spec
    return make_built_in(spec) if spec.built_in else load_function(spec.name, "reward")


def make_built_in(spec: RewardSpec, **defaults: Any) -> BuiltInReward:
    """The reward of a built-in's spec. `defaults`: its options and their values unless set.

    Raises UserError for an unknown option."""
    if spec.name not in BUILT_IN:
        near = difflib.get_close_matches(spec.name, BUILT_IN, n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise UserError(
            f"unknown reward {spec.name!r}{hint}: the built-in rewards are {', '.join(BUILT_IN)}; "
            f"for a function of your own, {FORMS}"
        )
    factory = BUILT_IN[spec.name]
    options = {**defaults, **spec.kwargs}
    if spec.timeout_s is not None:
        options["timeout_s"] = spec.timeout_s
    known = getattr(factory, "OPTIONS", None) or tuple(inspect.signature(factory).parameters)
    for key in options:
        if key not in known:
            raise UserError(f"reward {spec.name!r} has no option {key!r}: use one of {', '.join(known)}")
    return factory(**options)
