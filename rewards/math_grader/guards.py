"""Refuses answers that are too long to be read, and unevaluated ones."""

from __future__ import annotations

import re

MAX_CHARS = 2000

_UNEVALUATED = re.compile(
    r"\\(?:sum|prod|int|iint|iiint|oint|lim|limsup|liminf|bigcup|bigcap|gcd|lcm|det)(?![a-zA-Z])|\\mathrm\{(?:gcd|lcm)\}"
)


def too_large(answer: str) -> str | None:
    """Why a normalized answer is not read; None if it is. How much work a readable one may be is bounded where the work
    is done: by the parser's depth, and by the bits and steps of an evaluation."""
    return f"longer than {MAX_CHARS} characters" if len(answer) > MAX_CHARS else None


def unevaluated(answer: str, gold: str) -> str | None:
    """Why a normalized answer counts as unevaluated: it has a sum, an integral, a limit or the like that the gold does
    not have. None if it is evaluated."""
    found = _UNEVALUATED.search(answer)
    if found and not _UNEVALUATED.search(gold):
        return f"not evaluated: contains {found.group()}"
    return None
