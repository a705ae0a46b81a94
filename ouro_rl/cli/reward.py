"""`ouro-rl reward test` and `ouro-rl reward bench`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from ouro_rl.cli.argument_types import count, number
from ouro_rl.cli.preflight.files import check_reward
from ouro_rl.cli.subcommand import add_command
from ouro_rl.core.errors import UserError
from ouro_rl.core.paths import expand, path_option

if TYPE_CHECKING:
    from rewards.spec import RewardSpec


def add_reward_commands(commands: Any) -> None:
    """Add `reward` and its two subcommands."""
    own = add_command(commands, "reward", None, "try a reward on a file, or measure the math grader")
    inner = own.add_subparsers(metavar="COMMAND", required=True)
    command = add_command(inner, "test", run_test, "one reward on a file: verdict, status and time of every item")
    command.add_argument(
        "name", type=expand, metavar="NAME", help="a built-in, module.path:function or file.py:function"
    )
    command.add_argument(
        "file", type=path_option, metavar="FILE.jsonl", help="rows with `completion` and the columns the reward needs"
    )
    add_reward_options(command, workers=1)
    command.add_argument("--batch", type=count, default=1, metavar="N", help="items per call, if it takes a batch")
    command.add_argument("--limit", type=count, metavar="N", help="maximum number of rows")
    command = add_command(
        inner, "bench", run_bench, "compare the math reward with plain Math-Verify on labeled pairs of answers"
    )
    command.add_argument(
        "files",
        nargs="+",
        type=path_option,
        metavar="FILE.jsonl",
        help="rows with `gold`, `prediction`, `expected_equal`",
    )
    command.add_argument("--workers", type=count, default=2, metavar="N", help="processes")
    command.add_argument("--failures", action="store_true", help="list what our grader judges wrongly, with its kind")


def add_reward_options(command: argparse.ArgumentParser, *, workers: int) -> None:
    """The options of a command that calls one reward. workers: the default."""
    command.add_argument(
        "--kwargs", default="{}", metavar="'{name: value}'", help="options of the reward, as in a config"
    )
    command.add_argument(
        "--adapter", choices=("auto", "trl", "verl", "plain"), default="auto", help="calling convention of a function"
    )
    command.add_argument(
        "--timeout", type=number(0.0, above=True), default=10.0, metavar="SECONDS", help="timeout of one call"
    )
    command.add_argument("--workers", type=count, default=workers, metavar="N", help="processes for a built-in reward")


def reward_spec(name: str, arguments: argparse.Namespace) -> RewardSpec:
    """The reward that a command's options describe. Raises UserError."""
    import yaml

    from ouro_rl.config.yaml12 import parse_yaml
    from rewards.spec import RewardSpec

    try:
        options = parse_yaml(arguments.kwargs)
    except yaml.YAMLError:
        options = None
    if not isinstance(options, dict):
        raise UserError(f"--kwargs {arguments.kwargs}: is not a mapping; write it as '{{name: value}}'")
    return RewardSpec(name, kwargs=options, adapter=arguments.adapter)


def run_test(arguments: argparse.Namespace) -> int:
    from rewards.try_reward import summary_of, try_reward
    from rewards.verdict import Verdict

    spec = reward_spec(arguments.name, arguments)
    check_reward(spec)
    verdicts = []
    lines = try_reward(
        spec,
        arguments.file,
        batch=arguments.batch,
        workers=arguments.workers,
        timeout_s=arguments.timeout,
        limit=arguments.limit,
    )
    for line in lines:
        if isinstance(line, Verdict):
            verdicts.append(line)
        else:
            print(line, flush=True)
    print(summary_of(arguments.name, verdicts))
    return 1 if any(verdict.status in ("crash", "timeout") for verdict in verdicts) else 0


def run_bench(arguments: argparse.Namespace) -> int:
    from rewards.math_grader.benchmark import bench, markdown

    for file in arguments.files:
        tallies, left_out = bench(file, workers=arguments.workers)
        print(f"{file.name}: {tallies[0].pairs} pairs; {left_out} left out, which depend on a policy")
        print(f"\n{markdown(tallies)}\n")
        if arguments.failures:
            print("\n".join((*tallies[0].failures, "")))
    return 0
