"""`ouro-rl bench`; its arguments are checked before anything heavy is imported."""

from __future__ import annotations

import argparse
from pathlib import Path

from ouro_rl.bench.catalog import BENCHMARKS, PAGE, check_name
from ouro_rl.cli.argument_types import count
from ouro_rl.core.errors import UserError
from ouro_rl.core.paths import path_option


def add_bench_arguments(command: argparse.ArgumentParser) -> None:
    names = "; ".join(f"{name}: {what}" for name, what in BENCHMARKS.items())
    command.add_argument("name", metavar="NAME", help=f"{names}; {PAGE}: print JSON files as a Markdown page")
    command.add_argument(
        "files", nargs="*", type=path_option, metavar="FILE", help=f"for {PAGE}: files written by --json"
    )
    command.add_argument("--json", type=path_option, metavar="FILE", help="write all figures to this file")
    command.add_argument("--plot", type=path_option, metavar="FILE.png", help="write the plot of `curves` to this file")
    command.add_argument(
        "--layers", type=count, metavar="N", help="layers of the model of `publication` (24: Ouro-1.4B, 48: Ouro-2.6B)"
    )
    command.add_argument(
        "--quick", action="store_true", help="a tiny model, to try the command; do not quote its figures"
    )


def bench(arguments: argparse.Namespace) -> int:
    """Run one benchmark, all of them, or print the page. Returns exit status 0."""
    check_name(arguments.name)
    if arguments.name == PAGE:
        if not arguments.files:
            raise UserError(f"bench {PAGE}: give the JSON files that `ouro-rl bench NAME --json FILE` wrote")
        from ouro_rl.bench.page import page

        print(page(arguments.files), end="")
        return 0
    if arguments.files:
        raise UserError(f"bench {arguments.name}: takes no files ({arguments.files[0]}); give one name, or `all`")
    for option, file in (("--json", arguments.json), ("--plot", arguments.plot)):
        _check_writable(option, file)
    if arguments.plot is not None and arguments.name != "curves":
        raise UserError(f"bench {arguments.name}: has no plot; use --plot with `curves` only")
    if arguments.layers is not None and arguments.name != "publication":
        raise UserError(f"bench {arguments.name}: has no --layers; use it with `publication` only")
    from ouro_rl.bench.run import run_bench

    run_bench(
        arguments.name, quick=arguments.quick, layers=arguments.layers, json_file=arguments.json,
        plot_file=arguments.plot,
    )  # fmt: skip
    return 0


def _check_writable(option: str, file: Path | None) -> None:
    """Raise UserError unless the file can be created, before minutes are spent on measuring."""
    if file is None:
        return
    if file.is_dir():
        raise UserError(f"{option} {file}: is a folder; give a file")
    if not file.absolute().parent.is_dir():
        raise UserError(f"{option} {file}: there is no folder {file.parent}; create it first")
