"""How every subcommand is added to a parser."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

Run = Callable[[argparse.Namespace], int]
"""Runs a command with its arguments. Returns the exit status."""


def add_command(commands: Any, name: str, run: Run | None, help: str) -> argparse.ArgumentParser:
    """Add a command to what `add_subparsers` returned. `run`: None for one that has subcommands of its own."""
    about = help[:1].upper() + help[1:] + "."
    command = commands.add_parser(name, help=help, description=about, allow_abbrev=False)
    command.set_defaults(run=run)
    return command
