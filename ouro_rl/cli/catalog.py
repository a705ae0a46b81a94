"""`ouro-rl list` and `ouro-rl configs`: everything that comes with ouro-rl and has a name."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ouro_rl.cli.preflight.files import BENCHMARKS
from ouro_rl.cli.subcommand import add_command
from ouro_rl.config.packaged_configs import copy_config, first_statement, packaged_configs, packaged_studies, summary_of
from ouro_rl.core.errors import UserError
from ouro_rl.core.kv_rule import KVRule
from ouro_rl.core.paths import path_option

EXIT_RULES = {
    "sample": "every token's depth is sampled from the gate",
    "threshold": "a token exits at the first loop with a cumulative exit probability of at least `value` (Q-exit)",
    "fixed": "every token runs `value` loops",
    "iid": "every token's depth is sampled from `probabilities`, whatever the gate says (for comparison)",
    "confidence": "a token exits when the LM head's most likely token has a probability of at least `value`",
    "entropy": "a token exits when the entropy of the LM head's distribution is at most `value` nats",
    "kl": "a token exits when the LM head's distribution is within `value` nats (KL) of the loop before",
    "simulated": "the depth is sampled from the gate, the token drawn at the last loop (for comparison)",
}
KV_RULES: Mapping[str, str] = {
    KVRule.LAST_EXITED: "deeper loops read the last keys and values of a token that exited early",
    KVRule.SKIP: "a token is visible only at the loops it ran",
    KVRule.FULL: "every token runs all loops; its depth only selects the state for the LM head",
}


def rewards() -> Mapping[str, str]:
    from rewards.registry import BUILT_IN

    return {name: first_statement((reward.__doc__ or "").splitlines()) for name, reward in BUILT_IN.items()}


KINDS: dict[str, tuple[str, Callable[[], Mapping[str, str]]]] = {
    "rewards": (
        "rewards.functions: [{name: ...}], or one of your own: module.path:function, path/to/file.py:function",
        rewards,
    ),
    "benchmarks": ("eval.source, `ouro-rl eval --benchmark`, or a .jsonl file of your own", lambda: BENCHMARKS),
    "configs": (
        "`ouro-rl train NAME` from any folder, `ouro-rl configs NAME` copies one",
        lambda: {name: summary_of(file) for name, file in packaged_configs().items()},
    ),
    "studies": (
        "`ouro-rl study NAME` from any folder",
        lambda: {name: summary_of(file) for name, file in packaged_studies().items()},
    ),
    "exit-rules": ("rollout.exit_rule.kind, eval.exit_rule.kind", lambda: EXIT_RULES),
    "kv-rules": ("rollout.kv_rule", lambda: KV_RULES),
}
"""Kind -> (where its names are used, its names with one line each)."""


def add_catalog_commands(commands: Any) -> None:
    command = add_command(
        commands,
        "list",
        run_list,
        "everything that has a name: rewards, benchmarks, configs, studies, exit rules, KV rules",
    )
    command.add_argument(
        "kind", nargs="?", choices=list(KINDS), metavar="KIND", help=f"{', '.join(KINDS)} (default: all)"
    )

    command = add_command(commands, "configs", run_configs, "the configs that come with ouro-rl, or a copy of one")
    command.add_argument("name", nargs="?", metavar="NAME", help="copy this config and the files it refers to")
    command.add_argument(
        "--to", type=path_option, metavar="DIR", help="folder for the copy (default: the working directory)"
    )


def run_list(arguments: argparse.Namespace) -> int:
    for number, kind in enumerate([arguments.kind] if arguments.kind else KINDS):
        where, names = KINDS[kind]
        print("\n" * (number > 0) + f"{kind} ({where})")
        print(table(names()))
    return 0


def run_configs(arguments: argparse.Namespace) -> int:
    if arguments.name is None:
        if arguments.to is not None:
            raise UserError("--to: give the name of the config to copy; `ouro-rl configs` lists them")
        print(table(KINDS["configs"][1](), indent=""))
        return 0
    written = copy_config(arguments.name, arguments.to or Path())
    print(*written, sep="\n")
    return 0


def table(names: Mapping[str, str], *, indent: str = "  ") -> str:
    width = max(map(len, names))
    return "\n".join(f"{indent}{name:<{width}}  {text}" for name, text in names.items())
