"""What never reaches the parser: answers that would hang it, exhaust its memory, or that are not evaluated at all.

The worker's deadline and memory limit stand behind these rules; the rules make the verdict immediate and definite."""

from __future__ import annotations

import re

MAX_CHARS = 2000
MAX_DIGITS = 400
"""Longest run of digits."""
MAX_NESTING = 24
"""Braces, brackets and parentheses inside each other; sympy recurses."""

_RULES = tuple(
    (re.compile(pattern), reason)
    for pattern, reason in (
        (rf"\d{{{MAX_DIGITS + 1},}}", f"a number of more than {MAX_DIGITS} digits"),
        (r"\d\s*(?:\^|\*\*)\s*[{(]?\s*-?[\d.]+\s*(?:\^|\*\*)", "a tower of exponents"),
        (r"(?:\^|\*\*)\s*[{(]?\s*-?\d{6,}", "an exponent of more than 5 digits"),
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


def too_large(answer: str) -> str | None:
    """Why a normalised answer may not be parsed, or None when it may."""
    if len(answer) > MAX_CHARS:
        return f"longer than {MAX_CHARS} characters"
    for pattern, reason in _RULES:
        if pattern.search(answer):
            return reason
    depth = 0
    for char in answer:
        depth += (char in _OPEN) - (char in _CLOSE)
        if depth > MAX_NESTING:
            return f"nested more than {MAX_NESTING} deep"
    return None


def unevaluated(answer: str, gold: str) -> str | None:
    """Why a normalised answer counts as not evaluated: it holds a sum, an integral, a limit ... that the gold lacks."""
    found = _UNEVALUATED.search(answer)
    if found and not _UNEVALUATED.search(gold):
        return f"not evaluated: holds {found.group()}"
    return None
