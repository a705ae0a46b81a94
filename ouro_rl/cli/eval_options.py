"""The options of `ouro-rl eval` that say how tokens are sampled."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from ouro_rl.config.section import function_name
from ouro_rl.core.paths import expand
from ouro_rl.core.sampling_params import TokenFilters


def add_sampling_options(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--temperature",
        type=number(0.0),
        metavar="X",
        help="of the tokens (default: 0, greedy, with one sample; else 1)",
    )
    command.add_argument("--top-k", type=whole, default=0, metavar="N", help="only so many of the most likely tokens")
    command.add_argument(
        "--top-p",
        type=number(0.0, 1.0, above=True),
        default=1.0,
        metavar="X",
        help="only the likeliest, of this probability",
    )
    command.add_argument(
        "--min-p",
        type=number(0.0, 0.999),
        default=0.0,
        metavar="X",
        help="only tokens with this share of the likeliest's",
    )
    command.add_argument(
        "--logit-processor", type=_function, action="append", default=[], metavar="NAME",
        help="module.path:function or file.py:function; may be repeated",
    )  # fmt: skip
    command.add_argument(
        "--stop",
        action="append",
        default=[],
        metavar="TEXT",
        help="ends an answer (\\n is a line break); may be repeated",
    )
    command.add_argument(
        "--stop-id", type=whole, action="append", default=[], metavar="ID", help="token that ends an answer"
    )
    command.add_argument(
        "--gate-temperature", type=number(0.0, above=True), default=1.0, metavar="X", help="of the exit gate"
    )


def filters_of(arguments: argparse.Namespace) -> TokenFilters:
    return TokenFilters(
        top_k=arguments.top_k, top_p=arguments.top_p, min_p=arguments.min_p,
        logit_processors=tuple(arguments.logit_processor),
    )  # fmt: skip


def stops_of(arguments: argparse.Namespace) -> tuple[str, ...]:
    return tuple(text.replace("\\n", "\n") for text in arguments.stop)  # a shell passes the two characters


def number(least: float, most: float | None = None, *, above: bool = False) -> Callable[[str], float]:
    """A type for argparse: numbers from `least` (`above`: greater than it) to `most`."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if (
            not (value > least if above else value >= least)
            or value == float("inf")
            or (most is not None and value > most)
        ):
            bounds = f"{'above' if above else 'from'} {least:g}" + ("" if most is None else f" to {most:g}")
            raise argparse.ArgumentTypeError(f"{text!r} is no number {bounds}")
        return value

    return parse


def whole(text: str) -> int:
    if not text.strip().isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 0")
    return int(text)


def _function(text: str) -> str:
    try:
        return function_name(expand(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
