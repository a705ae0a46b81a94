"""Adapters for reward functions: TRL's signature, verl's `compute_score`, and a plain `f(completion, answer)`."""

from __future__ import annotations

import asyncio
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from ouro_rl.core.errors import UserError
from rewards.messages import text_of
from rewards.spec import Adapter

_GOLDS = ("ground_truth", "answer", "solution")


def kind_of(function: Callable[..., Any], adapter: Adapter, name: str) -> Literal["trl", "verl", "plain"]:
    """The adapter to use. Raises UserError if it is `auto` and the signature is ambiguous."""
    if adapter != "auto":
        return adapter
    parameters = inspect.signature(function).parameters
    if "solution_str" in parameters:
        return "verl"
    if "completions" in parameters or "prompts" in parameters:
        return "trl"
    if "completion" in parameters:
        return "plain"
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return "trl"
    raise UserError(
        f"reward {name!r}: the adapter cannot be inferred from its parameters ({', '.join(parameters) or 'none'})\n"
        "Name them as TRL does (completions), as verl does (solution_str) or `completion, answer`; or set `adapter`"
    )


def accepted(
    function: Callable[..., Any], arguments: Mapping[str, Any], columns: Mapping[str, Any], required: set[str]
) -> dict[str, Any]:
    """Drop arguments that a function without `**kwargs` does not name, except the `required` ones. Raises KeyError,
    naming the `columns` that there are, if a parameter without default is not among the arguments."""
    _require_columns(function, arguments, columns)
    parameters = inspect.signature(function).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return dict(arguments)
    return {key: value for key, value in arguments.items() if key in parameters or key in required}


def call_batch(function: Callable[..., Any], kwargs: Mapping[str, Any], payload: Mapping[str, Any]) -> list[list[Any]]:
    """Call a function with TRL's signature. Returns [score or None, problem or None] per item. Raises what the function
    raises, TypeError if it does not return a list, and ValueError if the list has a wrong length."""
    # TRL's trainer passes these besides the columns, so that functions that take them run unchanged.
    extras = {"trainer_state": None, "log_extra": _ignore, "log_metric": _ignore}
    arguments = {**extras, **payload["columns"], **kwargs}
    arguments.update(prompts=payload["prompts"], completions=payload["completions"])
    result = awaited(function(**accepted(function, arguments, payload["columns"], required=set(kwargs))))
    count = len(payload["completions"])
    if isinstance(result, str | bytes | dict) or not hasattr(result, "__iter__"):
        raise TypeError(f"returned {type(result).__name__}, not a list of {count} numbers")
    values = list(result)
    if len(values) != count:
        raise ValueError(f"returned {len(values)} rewards for {count} completions: return one per completion")
    return [number_of(value) for value in values]


def call_item(
    function: Callable[..., Any], kind: Literal["verl", "plain"], kwargs: Mapping[str, Any], item: Mapping[str, Any]
) -> list[Any]:
    """Call a verl or plain function on one item: a mapping with `prompt`, `completion` and `columns` (name -> value).
    Returns [score or None, problem or None]."""
    text, columns = text_of(item["completion"]), item["columns"]
    if kind == "verl":
        arguments = {
            **columns,
            "data_source": columns.get("data_source") or "",
            "solution_str": text,
            "ground_truth": _gold(columns),
            "extra_info": columns.get("extra_info") or {},
            **kwargs,
        }
        result = awaited(function(**accepted(function, arguments, columns, required=set(kwargs))))
        return number_of(_score(result) if isinstance(result, Mapping) else result)
    positional = [
        name
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD) and name not in kwargs
    ]
    first = [text, _gold(columns)] if len(positional) > 1 else [text]
    taken = dict(zip(positional, first, strict=False))
    rest = {"prompt": item["prompt"], **columns, **kwargs, **taken}
    named = accepted(function, rest, columns, required=set(kwargs))
    named = {key: value for key, value in named.items() if key not in taken}
    return number_of(awaited(function(*first, **named)))


def number_of(value: Any) -> list[Any]:
    """Convert a returned value to [score or None, problem or None]."""
    if value is None:
        return [None, None]
    if hasattr(value, "item") and not isinstance(value, int | float):  # a numpy or torch scalar
        try:
            value = value.item()
        except (TypeError, ValueError, RuntimeError) as error:
            return [None, f"returned an array, not a number: {error}"]
    if not isinstance(value, int | float):
        return [None, f"returned {type(value).__name__} {value!r:.80}, not a number"]
    try:
        number = float(value)
    except OverflowError:
        return [None, "returned an integer too large for a float"]
    if not math.isfinite(number):
        return [None, f"returned {number}; return None if an item cannot be scored"]
    return [number, None]


def awaited(result: Any) -> Any:
    """The result of a function that may be async."""
    return asyncio.run(_wait_for(result)) if inspect.isawaitable(result) else result


async def _wait_for(awaitable: Any) -> Any:
    return await awaitable


def _score(result: Mapping[str, Any]) -> Any:
    if "score" not in result:
        raise KeyError(f"returned a dict without `score`; it has {', '.join(map(str, result)) or 'no keys'}")
    return result["score"]


def _gold(columns: Mapping[str, Any]) -> Any:
    """The gold answer of a row, under any of the names that data sets use."""
    for name in _GOLDS:
        if columns.get(name) is not None:
            return columns[name]
    nested = columns.get("reward_model")
    if isinstance(nested, Mapping) and "ground_truth" in nested:
        return nested["ground_truth"]
    raise KeyError(
        f"the row has no gold answer: add one of the columns {', '.join(_GOLDS)} (found {', '.join(columns) or 'none'})"
    )


def _require_columns(function: Callable[..., Any], arguments: Mapping[str, Any], columns: Mapping[str, Any]) -> None:
    """As `accepted` says. Of a decorated function, the decorator's own parameters count: it may give the others
    itself."""
    missing = [
        name
        for name, parameter in inspect.signature(function, follow_wrapped=False).parameters.items()
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        and name not in arguments
    ]
    if missing:
        raise KeyError(
            f"the data has no column {' and no column '.join(missing)}, which the function asks for (its columns: "
            f"{', '.join(columns) or 'none'}): add it to the data, give a value under `kwargs`, or give the parameter "
            "a default"
        )


def _ignore(*_: Any, **__: Any) -> None:
    pass


def rows_of(columns: Mapping[str, Sequence[Any]], count: int) -> list[dict[str, Any]]:
    """The columns as one mapping per item."""
    return [{name: column[i] for name, column in columns.items()} for i in range(count)]
