"""The arguments of `ouro-rl bench`, looked at before anything heavy is imported."""

from __future__ import annotations

import argparse
from pathlib import Path

from ouro_rl.bench.catalog import BENCHMARKS, PAGE, check_name
from ouro_rl.core.errors import UserError
from ouro_rl.core.paths import path_option


def add_bench_arguments(command: argparse.ArgumentParser) -> None:
    names = "; ".join(f"{name}: {what}" for name, what in BENCHMARKS.items())
    command.add_argument("name", metavar="NAME", help=f"{names}; {PAGE}: print JSON files as a Markdown page")
    command.add_argument("files", nargs="*", type=path_option, metavar="FILE", help=f"for {PAGE}: what --json wrote")
    command.add_argument("--json", type=path_option, metavar="FILE", help="where all figures go")
    command.add_argument("--plot", type=path_option, metavar="FILE.png", help="where the plot of curves goes")
    command.add_argument("--quick", action="store_true", help="a tiny model, to try the command: no figures to quote")


def bench(arguments: argparse.Namespace) -> int:
    """Run what was asked. Exit status 0."""
    check_name(arguments.name)
    if arguments.name == PAGE:
        if not arguments.files:
            raise UserError(f"bench {PAGE}: give the JSON files that `ouro-rl bench NAME --json FILE` wrote")
        from ouro_rl.bench.page import page

        print(page(arguments.files), end="")
        return 0
    if arguments.files:
        raise UserError(f"bench {arguments.name}: takes no files ({arguments.files[0]}); one name at a time, or `all`")
    for option, file in (("--json", arguments.json), ("--plot", arguments.plot)):
        _check_writable(option, file)
    if arguments.plot is not None and arguments.name != "curves":
        raise UserError(f"bench {arguments.name}: has no plot; give --plot with `curves`")
    from ouro_rl.bench.run import run_bench

    run_bench(arguments.name, quick=arguments.quick, json_file=arguments.json, plot_file=arguments.plot)
    return 0


def _check_writable(option: str, file: Path | None) -> None:
    """Before minutes are spent."""
    if file is None:
        return
    if file.is_dir():
        raise UserError(f"{option} {file}: is a folder; give a file")
    if not file.absolute().parent.is_dir():
        raise UserError(f"{option} {file}: there is no folder {file.parent}; make it first")
