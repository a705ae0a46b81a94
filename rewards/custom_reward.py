"""A user's reward function in a killable child, called with TRL's signature."""

from __future__ import annotations

import asyncio
import inspect
import math
from collections.abc import Callable
from typing import Any

from rewards.registry import load_reward


def make_handler(name: str, kwargs: dict[str, Any]) -> Callable[[dict[str, Any]], list[list[Any]]]:
    """Runs in a worker: imports the function (UserError when it cannot), then calls it once a batch."""
    function = load_reward(name)
    # What TRL's trainer passes besides the columns, so that functions which take them run unchanged.
    extras = {"trainer_state": None, "log_extra": _ignore, "log_metric": _ignore}

    def handle(payload: dict[str, Any]) -> list[list[Any]]:
        arguments = {**extras, **payload["columns"], **kwargs}
        arguments.update(prompts=payload["prompts"], completions=payload["completions"])
        result = function(**_accepted(function, arguments, required=set(kwargs)))
        if inspect.isawaitable(result):
            result = asyncio.run(_wait_for(result))
        return _check(result, len(payload["completions"]))

    return handle


def _ignore(*_: Any, **__: Any) -> None:
    pass


def _accepted(function: Callable[..., Any], arguments: dict[str, Any], required: set[str]) -> dict[str, Any]:
    """Leave out the columns that a function without `**kwargs` does not name; its own `kwargs` are never left out."""
    parameters = inspect.signature(function).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return arguments
    return {key: value for key, value in arguments.items() if key in parameters or key in required}


async def _wait_for(awaitable: Any) -> Any:
    return await awaitable


def _check(result: Any, count: int) -> list[list[Any]]:
    """[score or None, problem or None] for each item."""
    if isinstance(result, str | bytes | dict) or not hasattr(result, "__iter__"):
        raise TypeError(f"returned {type(result).__name__}, not a list of {count} numbers")
    values = list(result)
    if len(values) != count:
        raise ValueError(f"returned {len(values)} rewards for {count} completions: one a completion is needed")
    return [_plain(value) for value in values]


def _plain(value: Any) -> list[Any]:
    if value is None:
        return [None, None]
    if hasattr(value, "item") and not isinstance(value, int | float):  # a numpy or torch scalar
        try:
            value = value.item()
        except (TypeError, ValueError, RuntimeError) as error:
            return [None, f"returned an array, not a number: {error}"]
    if not isinstance(value, int | float):
        return [None, f"returned {type(value).__name__} {value!r:.80}, not a number"]
    if not math.isfinite(value):
        return [None, f"returned {value}; None is the way to say that an item cannot be scored"]
    return [float(value), None]
