"""`ouro-rl doctor`: one screen about this installation and machine, to diagnose problems and for bug reports."""

from __future__ import annotations

import argparse
import json
import textwrap
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ouro_rl.cli.preflight.doctor_checks import CHECKS, Finding
from ouro_rl.cli.subcommand import add_command

WIDTH = 120
MARK = "!!"


def add_doctor_command(commands: Any) -> None:
    command = add_command(
        commands,
        "doctor",
        run_doctor,
        "versions, kernels, sandbox, hub and folders on one screen, with a fix for each problem",
    )
    command.add_argument("--json", action="store_true", help="print JSON: [{name, value, problem}, ...]")


def run_doctor(arguments: argparse.Namespace) -> int:
    """Print all findings. Returns exit status 0 even if there are problems: the command only reports."""
    findings = examine(CHECKS)
    if arguments.json:
        rows = [{"name": name, "value": finding.value, "problem": finding.problem} for name, finding in findings]
        print(json.dumps(rows, indent=2))
        return 0
    problems = 0
    for name, finding in findings:
        problems += finding.problem is not None
        print(shown(name, finding), flush=True)
    print(f"\n{problems or 'No'} problem{'s' * (problems != 1)} found" + f", marked {MARK}" * bool(problems))
    return 0


def examine(checks: Mapping[str, Callable[[], Finding]]) -> Iterator[tuple[str, Finding]]:
    """Yield the findings one by one. A check that raises is a finding too: broken installations must be reported."""
    for name, check in checks.items():
        try:
            yield name, check()
        except Exception as error:
            yield (
                name,
                Finding("unknown", f"check failed: {type(error).__name__}: {' '.join(str(error).split())}"),
            )


def shown(name: str, finding: Finding) -> str:
    """Name and value, then the marked problem, wrapped to the width of the screen."""
    indent = " " * (max(map(len, CHECKS)) + 2)
    lines = textwrap.wrap(finding.value, WIDTH - len(indent), break_long_words=False, break_on_hyphens=False)
    for problem in (finding.problem or "").splitlines():
        lines += textwrap.wrap(
            f"{MARK} {problem}",
            WIDTH - len(indent),
            subsequent_indent="   ",
            break_long_words=False,
            break_on_hyphens=False,
        )
    first, *rest = lines
    return "\n".join([f"{name:<{len(indent)}}{first}", *(indent + line for line in rest)])
