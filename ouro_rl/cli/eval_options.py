"""The sampling options of `ouro-rl eval`."""

from __future__ import annotations

import argparse

from ouro_rl.cli.argument_types import number, share, user_function, whole
from ouro_rl.core.errors import UserError
from ouro_rl.core.sampling_params import TokenFilters

LARGEST_MIN_P = 0.999
"""A fraction of 1 would keep only the most likely token, which is greedy decoding."""


def add_sampling_options(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--temperature",
        type=number(0.0),
        metavar="X",
        help="sampling temperature (default: 0, greedy, with one sample; else 1)",
    )
    command.add_argument("--top-k", type=whole(0), default=0, metavar="N", help="keep only the N most likely tokens")
    command.add_argument(
        "--top-p",
        type=share,
        default=1.0,
        metavar="X",
        help="keep only the most likely tokens with this total probability",
    )
    command.add_argument(
        "--min-p",
        type=number(0.0, LARGEST_MIN_P),
        default=0.0,
        metavar="X",
        help="keep only tokens with this fraction of the top token's probability",
    )
    command.add_argument(
        "--logit-processor",
        type=user_function,
        action="append",
        default=[],
        metavar="NAME",
        help="module.path:function or file.py:function; may be repeated",
    )
    command.add_argument(
        "--stop",
        action="append",
        default=[],
        metavar="TEXT",
        help="ends an answer (\\n is a line break); may be repeated",
    )
    command.add_argument(
        "--stop-id",
        type=whole(0),
        action="append",
        default=[],
        metavar="ID",
        help="id of a token that ends an answer; may be repeated",
    )
    command.add_argument(
        "--gate-temperature",
        type=number(0.0, above=True),
        default=1.0,
        metavar="X",
        help="temperature of the exit gate",
    )


def check_samples(arguments: argparse.Namespace) -> None:
    """Raise UserError if all samples of a problem would be the same: greedy tokens at depths that are not drawn."""
    fixed = bool(arguments.depth or arguments.exit_threshold) or not arguments.sample_gate
    greedy = "--temperature 0" if arguments.temperature == 0 else "--top-k 1" if arguments.top_k == 1 else None
    if arguments.samples > 1 and greedy and fixed:
        raise UserError(
            f"--samples {arguments.samples} with {greedy}: every problem would get {arguments.samples} equal answers "
            f"where depths are not drawn;\n  leave out --samples, or {greedy}"
        )


def filters_of(arguments: argparse.Namespace) -> TokenFilters:
    return TokenFilters(
        top_k=arguments.top_k,
        top_p=arguments.top_p,
        min_p=arguments.min_p,
        logit_processors=tuple(arguments.logit_processor),
    )


def stops_of(arguments: argparse.Namespace) -> tuple[str, ...]:
    return tuple(text.replace("\\n", "\n") for text in arguments.stop)  # a shell passes the two characters
