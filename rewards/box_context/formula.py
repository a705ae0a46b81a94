"""Reads the formula around a box: whether the box is only a part of it."""

from __future__ import annotations

import re

from rewards.vocabulary.units import unit_named

_LONGEST = 1000
"""Characters of a formula that are read."""
_EDGE = re.compile(r"\$|\\[()\[\]]|\n")
_BOUND_BEFORE = re.compile(
    r"(?:^\s*[A-Za-z](?:_\w+)?\s*(?:[<>]|\\(?:le|leq|ge|geq|lt|gt|leqslant|geqslant)(?![a-zA-Z]))"
    r"|\\(?:not\s*=|neq?(?![a-zA-Z])))\s*$"
)
"""Matches `x >` or `\\ne` at the end of a formula. A bound of an expression, as in `x^2+y^2 >`, may be the answer."""
_SIGN_BEFORE = re.compile(r"(?:^|\s)-$|=\s*-\s*$")
_TERM_BEFORE = re.compile(r"[\d}]\s*[-+]\s*$")
_OPERATION_BEFORE = re.compile(
    r"(?:\\(?:cdot|times|div|pm|mp|pi|log|ln|sin|cos|tan)\s*|[\d})]\s*[/\u00d7\u00f7\u00b7]\s*|[\d})](?:\*|\s+\*\s+)|(?<=\d)"
    r"|\\(?:[dt]?frac|[dt]?binom)\s*\{(?:[^{}]*\}\s*\{)?\s*|\\sqrt\s*(?:\[[^\]]*\]\s*)?\{\s*|[\^_]\s*\{\s*)$"
)
_FACTOR_BEFORE = re.compile(r"(?:\d\s+|(?<![A-Za-z\\])[a-zA-Z]\s*|\|\s*)$")
_OPERATION_AFTER = re.compile(
    r"\s*(?:\+\s*[\d\\a-z(]|[-\u2013]\s*(?!\\text)[\d\\]|[/*\u00d7\u00f7\u00b7]\s*(?:\d|\\(?:boxed|fbox|[dt]?frac|sqrt)(?![a-zA-Z]))|[<>]=?\s*[\d\\]|\^(?!\s*\{?\s*(?:\\|st|nd|rd|th|o\b|\*))"
    r"|\\(?:cdot|times|div|pm|mp|pi|sqrt|[dt]?frac|over|choose|ne|neq|le|leq|ge|geq)(?![a-zA-Z]))|\.?\d"
)
_FACTOR_AFTER = re.compile(r"\s*(?P<letter>[a-zA-Z])(?![a-zA-Z])|_|\s*!\s*$")
_LETTER = re.compile(r"(?<![A-Za-z\\])[a-zA-Z](?![A-Za-z])")
_PROSE = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{2}")
_NAME = re.compile(r"(?:^|\s)[A-Za-z]+(?:_\w+)?\s*=[^=]*$")


def is_operand(before: str, after: str) -> bool:
    """Whether a box is only a part of the formula around it, as in `2 \\cdot \\boxed{17}` or `\\boxed{17}^2`. In an
    equation of more than a name, a box may be the place that was to be filled in."""
    opening = _EDGE.split(before[-_LONGEST:])[-1]
    closing = _EDGE.split(after[:_LONGEST], maxsplit=1)[0]
    delimited = _in_formula(before, opening)
    while opening.endswith("(") and closing.startswith(")"):
        opening, closing = opening[:-1], closing[1:]
    if _BOUND_BEFORE.search(opening) or _SIGN_BEFORE.search(opening):
        return True
    named = bool(_NAME.search(opening))
    if "=" in closing or ("=" in opening and not named):
        return False
    if _OPERATION_BEFORE.search(opening) or (delimited and _FACTOR_BEFORE.search(opening)):
        return True
    unnamed = _NAME.sub("", opening)
    unknown = _LETTER.search(unnamed)  # as in `x^2 + 6x + \\boxed{9}`
    if _TERM_BEFORE.search(opening) and not unknown and (delimited or not _PROSE.search(unnamed)):
        return True
    if opening.strip() and not named:
        return False
    factor = _FACTOR_AFTER.match(closing) if delimited else None
    return bool(_OPERATION_AFTER.match(closing) or (factor and not unit_named(factor["letter"] or "")))


def _in_formula(before: str, opening: str) -> bool:
    """Whether a box stands between the delimiters of a formula."""
    if before.endswith(("\\(", "\\["), 0, len(before) - len(opening)):
        return True
    paragraph = before[-_LONGEST:].rsplit("\n\n", 1)[-1].replace("\\$", "").replace("$$", "$")
    return paragraph.count("$") % 2 == 1
