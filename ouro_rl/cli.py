"""The command line, `ouro-rl`: reads arguments and configs, tells mistakes at once, and only then imports what is heavy.

Exit status: 0 done, 1 the run failed, 2 the user's input is wrong, 130 interrupted, 141 nobody reads the output any more.
"""

from __future__ import annotations

import argparse
import logging
import os
import re
import select
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

import ouro_rl
from ouro_rl import processor
from ouro_rl.aliases import argument_hint, option_hint
from ouro_rl.bench.arguments import add_bench_arguments, bench
from ouro_rl.catalog import add_catalog_commands
from ouro_rl.config import TrainConfig, WarmstartConfig
from ouro_rl.config_loader import dump_config, known_keys, load_config
from ouro_rl.doctor import add_doctor_command
from ouro_rl.errors import RunError, UserError
from ouro_rl.eval_command import add_eval_arguments, evaluate
from ouro_rl.own_names import pin_own_packages
from ouro_rl.packaged_configs import find_config
from ouro_rl.paths import check_writable, expand, path_option
from ouro_rl.preflight_files import check_reward, check_train_files
from ouro_rl.progress import say
from ouro_rl.reward_commands import add_reward_commands
from ouro_rl.run_folder import open_run_folder
from ouro_rl.sizes import check_launcher, derived_sizes

OVERRIDE = re.compile(r"[A-Za-z_]\w*(\.\w+)*=", re.ASCII)
MESSAGE_LINES = 3
QUIET = {
    "TOKENIZERS_PARALLELISM": "false",  # rollout workers fork after the tokenizer was used
    "TRANSFORMERS_VERBOSITY": "error",
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DATASETS_VERBOSITY": "error",
    "TRL_EXPERIMENTAL_SILENCE": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DISABLE_IMPORT_WARNING": "1",
}
"""Other libraries' chatter, off unless the user has set these."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; `argv` without the program's name (default: the process's own). Returns the exit status."""
    pin_own_packages()
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # models and plug-ins say what no encoding holds
    try:
        arguments = parse(argv)
        processor.level()  # a level that is not there is refused before anything is imported
        status = arguments.run(arguments)
        sys.stdout.flush()
        return status
    except UserError as error:
        return _complain(error, 2)
    except RunError as error:
        return _complain(error, 1)
    except KeyboardInterrupt:
        print("ouro-rl: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        if not _output_is_cut():
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # the interpreter flushes once more at its end
        return 141
    except SystemExit as stop:  # argparse, after --help or a mistake
        return stop.code if isinstance(stop.code, int) else 2


def _output_is_cut() -> bool:
    """Whether standard output is a pipe whose reader has gone, as `head` does."""
    poll = select.poll()
    poll.register(1, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def _complain(error: Exception, status: int) -> int:
    lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    print("ouro-rl: " + "\n".join(lines[:MESSAGE_LINES]), file=sys.stderr)
    return status


# --- commands ----------------------------------------------------------------------------------------------------------


def train(arguments: argparse.Namespace) -> int:
    if not arguments.dry_run:
        check_launcher()
    config = load_config(TrainConfig, *_split(arguments.configs, TrainConfig), must_exist=not arguments.dry_run)
    if arguments.dry_run:
        return _dry_run(config)
    check_writable(config.run.dir, "run.dir")
    check_train_files(config)
    if arguments.resume:
        open_run_folder(config, resume=True)  # refuses a run that is not there or began otherwise; touches nothing
    say("Importing torch, transformers and TRL")
    from ouro_rl.launch import run_training

    return run_training(config, arguments.resume)


def check(arguments: argparse.Namespace) -> int:
    check_launcher()
    config = load_config(TrainConfig, *_split(arguments.configs, TrainConfig), must_exist=True)
    check_train_files(config)
    say("Importing torch, transformers and TRL")
    from ouro_rl.preflight import run_check

    return run_check(config)


def warmstart(arguments: argparse.Namespace) -> int:
    config = load_config(WarmstartConfig, *_split(arguments.configs, WarmstartConfig))
    if arguments.dry_run:
        return _dry_run(config)
    check_writable(config.output, "output")
    say("Importing torch and transformers")
    from ouro_rl.warmstart import run_warmstart

    print(f"checkpoint: {run_warmstart(config)}")
    return 0


def grade(arguments: argparse.Namespace) -> int:
    check_reward(arguments.reward)
    from rewards.grade import grade_file

    summary = grade_file(arguments.file, arguments.reward, arguments.out)
    print(summary, file=sys.stderr if arguments.out is None else sys.stdout)  # without --out the rows have stdout
    return 0


def report(arguments: argparse.Namespace) -> int:
    from ouro_rl.report import write_report

    print(f"report: {write_report(arguments.run_dir)}")
    return 0


def _split(configs: list[str], cls: type[TrainConfig] | type[WarmstartConfig]) -> tuple[list[str], list[str]]:
    """Config files and overrides, each in their order. UserError for what is neither, but an override as other systems have it."""
    overrides = [text for text in configs if OVERRIDE.match(text)]
    files = [text for text in configs if text not in overrides]
    for text in files:
        hint = argument_hint(configs, configs.index(text), known_keys(cls))
        if hint and not find_config(text).exists():
            raise UserError(hint)
    return files, overrides


def _dry_run(config: TrainConfig | WarmstartConfig) -> int:
    """The resolved config; the derived sizes follow as comments, so that the whole output is a config file again."""
    sizes = [f"# {name}: {number:,}" for name, number in derived_sizes(config).items()]
    print(dump_config(config), *sizes, sep="\n")
    return 0


# --- arguments ---------------------------------------------------------------------------------------------------------


class Parser(argparse.ArgumentParser):
    """argparse, with mistakes told in two lines instead of the whole usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n  see `{self.prog} --help`\n")


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """argparse takes one run of positional arguments; configs and overrides may stand on both sides of an option."""
    parser = make_parser()
    arguments, rest = parser.parse_known_args(argv)
    if rest and (any(text.startswith("-") for text in rest) or not hasattr(arguments, "configs")):
        parser.error(f"unrecognized arguments: {' '.join(rest)}{_hint(rest, sys.argv[1:] if argv is None else argv, arguments)}")
    if rest:
        arguments.configs += rest
    return arguments


def _hint(rest: Sequence[str], argv: Sequence[str], arguments: argparse.Namespace) -> str:
    """What to write for the first option that the command has not, on a line of its own."""
    text = next((text for text in rest if text.startswith("-")), None)
    if text is None:
        return ""
    following = next(iter(argv[list(argv).index(text) + 1 :]), None)
    options = [f"--{name.replace('_', '-')}" for name in vars(arguments) if name not in ("run", "configs")]
    keys = known_keys(WarmstartConfig if arguments.run is warmstart else TrainConfig) if hasattr(arguments, "configs") else []
    hint = option_hint(text, following, options, keys)
    return hint and f"\n  {hint}"


def make_parser() -> argparse.ArgumentParser:
    parser = Parser(prog="ouro-rl", description=(ouro_rl.__doc__ or "").splitlines()[0], allow_abbrev=False)
    parser.add_argument("--version", action="version", version=ouro_rl.__version__)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def add(name: str, run: Callable[[argparse.Namespace], int], help: str) -> argparse.ArgumentParser:
        command = commands.add_parser(
            name, help=help, description=help[:1].upper() + help[1:] + ".", allow_abbrev=False
        )
        command.set_defaults(run=run)
        return command

    command = add("train", train, "reinforcement learning from a config")
    _add_configs(command, dry_run=True)
    command.add_argument("--resume", action="store_true", help="go on from the last checkpoint in run.dir")

    add_eval_arguments(add("eval", evaluate, "accuracy and depth of a checkpoint on a benchmark"))

    command = add("grade", grade, "score saved completions with a reward")
    command.add_argument("file", type=path_option, metavar="FILE.jsonl", help="rows with `completion` and `answer`")
    command.add_argument(
        "--reward", type=expand, required=True, metavar="NAME", help="a built-in, module.path:function or file.py:function"
    )
    command.add_argument("--out", type=path_option, metavar="FILE", help="where the scored rows go (default: stdout)")

    add_reward_commands(commands)
    _add_configs(add("check", check, "preflight: would this training config run, and run right?"), dry_run=False)
    _add_configs(add("warmstart", warmstart, "a small looped model from scratch (Stage I and II)"), dry_run=True)

    command = add("report", report, "one self-contained HTML page about a run")
    command.add_argument("run_dir", type=path_option, metavar="RUN_DIR")

    add_catalog_commands(commands)
    add_doctor_command(commands)
    add_bench_arguments(add("bench", bench, "side-by-side benchmarks of this machine"))
    return parser


def _add_configs(command: argparse.ArgumentParser, *, dry_run: bool) -> None:
    command.add_argument(
        "configs",
        nargs="+",
        metavar="CONFIG|section.key=value",
        help="YAML files, composed left to right, then overrides",
    )
    if dry_run:
        command.add_argument("--dry-run", action="store_true", help="print the resolved config and its sizes, and stop")
