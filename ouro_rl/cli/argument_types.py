"""Types of command-line arguments, with errors that say what is wanted. Paths have theirs in `ouro_rl.core.paths`."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from typing import TypeVar

from ouro_rl.config.section import function_name
from ouro_rl.core.paths import expand

Item = TypeVar("Item")


def whole(least: int) -> Callable[[str], int]:
    """Whole numbers from `least`, which is 0 or more."""

    def convert(text: str) -> int:
        if not text.strip().isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {least}")
        return int(text)

    return convert


count = whole(1)


def number(least: float, most: float = math.inf, *, above: bool = False) -> Callable[[str], float]:
    """Finite numbers from `least` (`above`: greater than it) to `most`."""
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
    """Some of a type, with commas between them."""

    def convert(text: str) -> tuple[Item, ...]:
        return tuple(item(part) for part in text.split(","))

    return convert


def user_function(text: str) -> str:
    """The name of a function of the user's; whether it is there is seen later."""
    try:
        return function_name(expand(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
