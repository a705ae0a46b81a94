"""`ouro-rl doctor`: one screen about this installation and this machine, for whoever wonders, and for every bug report."""

from __future__ import annotations

import argparse
import json
import textwrap
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ouro_rl.preflight.doctor_checks import CHECKS, Finding

WIDTH = 120
MARK = "!!"


def add_doctor_command(commands: Any) -> None:
    text = "versions, kernels, sandbox, hub and folders in one screen, with the fix of what is wrong"
    command = commands.add_parser("doctor", help=text, description=text.capitalize() + ".", allow_abbrev=False)
    command.set_defaults(run=run_doctor)
    command.add_argument("--json", action="store_true", help="the same as JSON: [{name, value, problem}, ...]")


def run_doctor(arguments: argparse.Namespace) -> int:
    """Exit status 0, whatever is found: it was asked, not required."""
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
    """The findings, one by one. A check that fails is a finding: a broken installation is what a doctor is called for."""
    for name, check in checks.items():
        try:
            yield name, check()
        except Exception as error:
            yield (
                name,
                Finding("unknown", f"could not be looked at: {type(error).__name__}: {' '.join(str(error).split())}"),
            )


def shown(name: str, finding: Finding) -> str:
    """Name, value and, marked, problem; wrapped to the screen."""
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
