"""argparse types whose errors say what is expected. The type for paths is in `ouro_rl.core.paths`."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from typing import TypeVar

from ouro_rl.config.section import function_name
from ouro_rl.core.paths import expand

Item = TypeVar("Item")


def whole(least: int) -> Callable[[str], int]:
    """Integers >= `least`, where `least` >= 0."""

    def convert(text: str) -> int:
        if not text.strip().isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {least}")
        return int(text)

    return convert


count = whole(1)


def number(least: float, most: float = math.inf, *, above: bool = False) -> Callable[[str], float]:
    """Finite numbers from `least` (with `above`: greater than `least`) to `most`."""
    bounds = f"{'greater than' if above else 'of at least'} {least:g}"
    bounds += "" if most == math.inf else f" and at most {most:g}"

    def convert(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not (value > least if above else value >= least) or value > most or value == math.inf:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number {bounds}")
        return value

    return convert


share = number(0.0, 1.0, above=True)


def list_of(item: Callable[[str], Item]) -> Callable[[str], tuple[Item, ...]]:
    """Comma-separated items of one type."""

    def convert(text: str) -> tuple[Item, ...]:
        return tuple(item(part) for part in text.split(","))

    return convert


def user_function(text: str) -> str:
    """The name of a user function; whether it exists is checked later."""
    try:
        return function_name(expand(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
