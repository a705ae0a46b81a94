"""Rejects answers before parsing: those that would hang the parser or exhaust its memory, and unevaluated ones.

The worker's deadline and memory limit also catch them, but these rules make the verdict immediate and deterministic."""

from __future__ import annotations

import re

MAX_CHARS = 2000
MAX_DIGITS = 400
"""Maximum number of consecutive digits."""
MAX_NESTING = 24
"""Maximum nesting depth of braces, brackets and parentheses, since sympy recurses."""
MAX_TOWER = 2
"""Maximum nesting depth of exponents and of arguments of exp and the like."""

_RULES = tuple(
    (re.compile(pattern), reason)
    for pattern, reason in (
        (rf"\d{{{MAX_DIGITS + 1},}}", f"a number of more than {MAX_DIGITS} digits"),
        (r"\d\s*(?:\^|\*\*)\s*[{(]?\s*-?[\d.]+\s*(?:\^|\*\*)", "a tower of exponents"),
        (r"(?:\^|\*\*)\s*[{(]?\s*-?\d{6,}", "an exponent of more than 5 digits"),
        (r"\d\.?\s*[eE]\s*[+-]?\s*\d{4,}", "an exponent of more than 3 digits after e"),
        (r"(?:(?:\^|\*\*|exp|sinh|cosh)\s*[{(\[]*[\s\\\w]?){3,}", "a tower of exponents"),
        (r"[)\]]\s*\}*\s*(?:\^|\*\*)\s*[{(]?\s*\d{3,}", "a large power of an expression"),
        (r"\d{4,}\s*!", "the factorial of a large number"),
        (r"![^=<>,]*\)\s*!|!\s*!", "a factorial of a factorial"),
        (r"\\[dt]?binom\s*\{[^}]*(?:\^|\d{5})", "a large binomial coefficient"),
    )
)
_UNEVALUATED = re.compile(
    r"\\(?:sum|prod|int|iint|iiint|oint|lim|limsup|liminf|bigcup|bigcap|gcd|lcm|det)(?![a-zA-Z])|\\mathrm\{(?:gcd|lcm)\}"
)
_OPEN, _CLOSE = "{[(", "}])"
_EXPONENTIAL = re.compile(r"(?:\^|\*\*|(?:exp|sinh|cosh)(?:\s*\^\s*\w)?)[\s{(\[]*")
"""Matches the text before a bracket whose content is an exponent."""


def too_large(answer: str) -> str | None:
    """Why a normalized answer must not be parsed; None if it may be."""
    if len(answer) > MAX_CHARS:
        return f"longer than {MAX_CHARS} characters"
    for pattern, reason in _RULES:
        if pattern.search(answer):
            return reason
    starts = {match.end() for match in _EXPONENTIAL.finditer(answer)}
    exponents: list[bool] = []
    for place, char in enumerate(answer, start=1):
        if char in _OPEN:
            exponents.append(place in starts)
        elif char in _CLOSE and exponents:
            exponents.pop()
        if len(exponents) > MAX_NESTING:
            return f"nested more than {MAX_NESTING} deep"
        if sum(exponents) > MAX_TOWER:
            return "a tower of exponents"
    return None


def unevaluated(answer: str, gold: str) -> str | None:
    """Why a normalized answer counts as unevaluated: it has a sum, an integral, a limit or the like that the gold does
    not have. None if it is evaluated."""
    found = _UNEVALUATED.search(answer)
    if found and not _UNEVALUATED.search(gold):
        return f"not evaluated: contains {found.group()}"
    return None
