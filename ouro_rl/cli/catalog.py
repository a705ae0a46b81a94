"""What comes with ouro-rl, by name: `ouro-rl list` and `ouro-rl configs`."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ouro_rl.config.packaged_configs import copy_config, packaged_configs, summary_of
from ouro_rl.core.errors import UserError
from ouro_rl.core.kv_rule import KVRule
from ouro_rl.core.paths import path_option
from ouro_rl.preflight.files import BENCHMARKS

EXIT_RULES = {
    "sample": "every token's depth is drawn from the gate",
    "threshold": "a token leaves at the first loop whose cumulated exit probability reaches `value` (the paper's Q-exit)",
    "fixed": "every token runs `value` loops",
}
KV_RULES = {
    KVRule.LAST_EXITED: "of a token that left early, its last keys and values are read",
    KVRule.SKIP: "a token is seen only at the loops that it ran",
    KVRule.FULL: "every token runs all loops; its depth only picks the state that the head takes",
}


def rewards() -> Mapping[str, str]:
    from rewards.registry import BUILT_IN

    return {name: (reward.__doc__ or "").splitlines()[0].rstrip(".") for name, reward in BUILT_IN.items()}


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
    "exit-rules": ("rollout.exit_rule.kind, eval.exit_rule.kind", lambda: EXIT_RULES),
    "kv-rules": ("rollout.kv_rule", lambda: KV_RULES),
}
"""Kind -> (where its names are given, its names with a line each)."""


def add_catalog_commands(commands: Any) -> None:
    text = "what can be given by name: rewards, benchmarks, configs, exit rules, kv rules"
    command = commands.add_parser("list", help=text, description=text.capitalize() + ".", allow_abbrev=False)
    command.set_defaults(run=run_list)
    command.add_argument(
        "kind", nargs="?", choices=list(KINDS), metavar="KIND", help=f"{', '.join(KINDS)} (default: all)"
    )

    text = "the configs that come with ouro-rl, or a copy of one"
    command = commands.add_parser("configs", help=text, description=text.capitalize() + ".", allow_abbrev=False)
    command.set_defaults(run=run_configs)
    command.add_argument("name", nargs="?", metavar="NAME", help="copy this one, and the files that it names")
    command.add_argument(
        "--to", type=path_option, metavar="DIR", help="where the copy goes (default: the working directory)"
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
            raise UserError("--to: give the name of a config to copy; `ouro-rl configs` lists them")
        print(table(KINDS["configs"][1](), indent=""))
        return 0
    written = copy_config(arguments.name, arguments.to or Path())
    print(*written, sep="\n")
    return 0


def table(names: Mapping[str, str], *, indent: str = "  ") -> str:
    width = max(map(len, names))
    return "\n".join(f"{indent}{name:<{width}}  {text}" for name, text in names.items())
