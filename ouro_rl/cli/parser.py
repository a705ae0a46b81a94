"""The arguments of every command."""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Sequence
from typing import NoReturn

import ouro_rl
from ouro_rl.cli.bench import add_bench_arguments, bench
from ouro_rl.cli.catalog import add_catalog_commands
from ouro_rl.cli.commands import check, grade, report, train, warmstart
from ouro_rl.cli.doctor import add_doctor_command
from ouro_rl.cli.eval import add_compare_arguments, add_eval_arguments, compare, evaluate
from ouro_rl.cli.export import add_export_arguments, export
from ouro_rl.cli.gate import add_gate_commands
from ouro_rl.cli.reward import add_reward_commands, add_reward_options
from ouro_rl.cli.study import add_study_arguments, study
from ouro_rl.cli.subcommand import add_command
from ouro_rl.config.aliases import option_hint
from ouro_rl.config.loader import known_keys
from ouro_rl.config.train import TrainConfig
from ouro_rl.config.warmstart import WarmstartConfig
from ouro_rl.core.cpus import available_cpus
from ouro_rl.core.paths import expand, path_option


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that reports mistakes in two lines instead of printing the whole usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n  see `{self.prog} --help`\n")


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse `argv`. Configs and overrides may stand on both sides of an option, but argparse accepts only one run of
    positional arguments, so the rest is added here."""
    parser = make_parser()
    arguments, rest = parser.parse_known_args(argv)
    if rest and (any(text.startswith("-") for text in rest) or not hasattr(arguments, "configs")):
        parser.error(
            f"unrecognized arguments: {' '.join(rest)}{_hint(rest, sys.argv[1:] if argv is None else argv, arguments)}"
        )
    if rest:
        arguments.configs += rest
    return arguments


def _hint(rest: Sequence[str], argv: Sequence[str], arguments: argparse.Namespace) -> str:
    """What to write instead of the first unknown option, on a line of its own."""
    text = next((text for text in rest if text.startswith("-")), None)
    if text is None:
        return ""
    following = next(iter(argv[list(argv).index(text) + 1 :]), None)
    options = [f"--{name.replace('_', '-')}" for name in vars(arguments) if name not in ("run", "configs")]
    keys = (
        known_keys(WarmstartConfig if arguments.run is warmstart else TrainConfig)
        if hasattr(arguments, "configs")
        else []
    )
    hint = option_hint(text, following, options, keys)
    return hint and f"\n  {hint}"


def make_parser() -> argparse.ArgumentParser:
    parser = Parser(prog="ouro-rl", description=(ouro_rl.__doc__ or "").splitlines()[0], allow_abbrev=False)
    parser.add_argument("--version", action="version", version=ouro_rl.__version__)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    add = functools.partial(add_command, commands)
    command = add("train", train, "reinforcement learning from a config")
    _add_configs(command, dry_run=True)
    command.add_argument("--resume", action="store_true", help="resume from the last checkpoint in run.dir")

    add_eval_arguments(add("eval", evaluate, "accuracy and depth of a checkpoint on a benchmark"))

    add_compare_arguments(add("compare", compare, "two evaluations of the same problems: paired difference, interval"))

    add_export_arguments(add("export", export, "a checkpoint as a folder to hand over or to upload"))

    command = add("grade", grade, "score saved completions with a reward")
    command.add_argument(
        "file",
        type=path_option,
        metavar="FILE",
        help="rows with `completion` and `answer`; .jsonl (.gz), .csv or .parquet",
    )
    command.add_argument(
        "--reward",
        type=expand,
        required=True,
        metavar="NAME",
        help="a built-in, module.path:function or file.py:function",
    )
    command.add_argument("--out", type=path_option, metavar="FILE", help="file for the scored rows (default: stdout)")
    add_reward_options(command, workers=max(1, int(available_cpus())))

    add_gate_commands(commands)
    add_reward_commands(commands)
    _add_configs(add("check", check, "preflight: would this training config run, and run correctly?"), dry_run=False)
    _add_configs(add("warmstart", warmstart, "train a small looped model from scratch (Stages I and II)"), dry_run=True)

    command = add("study", study, "many training runs, measured alike and compared; goes on where it stopped")
    _add_configs(command, dry_run=False)
    add_study_arguments(command)

    command = add("report", report, "one self-contained HTML page about a run, or about several, compared")
    command.add_argument("run_dirs", type=path_option, nargs="+", metavar="RUN_DIR", help="folder of a run")
    command.add_argument("--watch", action="store_true", help="write the page again while the run goes on")
    command.add_argument("--out", type=path_option, metavar="FILE", help="file for the page of several runs")

    add_catalog_commands(commands)
    add_doctor_command(commands)
    add_bench_arguments(add("bench", bench, "side-by-side benchmarks of this machine"))
    return parser


def _add_configs(command: argparse.ArgumentParser, *, dry_run: bool) -> None:
    command.add_argument(
        "configs",
        nargs="+",
        metavar="CONFIG|section.key=value",
        help="YAML files, merged left to right, then overrides",
    )
    if dry_run:
        command.add_argument(
            "--dry-run", action="store_true", help="print the resolved config and its sizes, then stop"
        )
