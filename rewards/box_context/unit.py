"""Reads the unit that stands directly after a box, as in `\\boxed{3} km apart`."""

from __future__ import annotations

import re

from rewards.box_context.words import is_filler
from rewards.vocabulary.units import changes_value, leading_unit, read_suffix

_LONGEST = 80
"""Characters after a box that are read."""
_PLAIN = re.compile(
    r"-?(?:\d[\d.]*(?:(?:,|\{,\}|\\[,!])\d{3})*(?:\.\d+)?|\\[dt]?frac\s*(?:\d\d|\{\d+\}\s*\{\d+\})|\d+\s*/\s*\d+)"
)
"""Matches a value that has no unit of its own and is no list."""
_GAP = re.compile(r"(?:[ \t~*]|\\[,;:! ]|\\q?quad(?![a-z])|\$(?!\d)|\\[)\]])*")
_TEXT = re.compile(r"\\(?:text|mbox|mathrm|textrm)\s*\{\s*([^{}]*)\}(\s*\^\s*(?:\{\s*[23]\s*\}|[23]))?")
_CLAUSE = re.compile(r"[$\\,;:!?()\n*=+]|\.(?:\s+[A-Z]|\s*$)|\s-")
_LETTER = re.compile(r"[mgshtLNJWV](?:\s*$|\s+[a-z]{2}|[.,;:!?)](?:\s|$))")
"""Matches a letter that is a unit in prose; in a formula, it would be a name."""
_NO_UNIT = re.compile(r"(?:in|are|[A-Za-z])(?![A-Za-z])(?!\s*[/^])", re.IGNORECASE)
"""Matches words and letters that are units at other places alone."""
_PERCENT = re.compile(rf"{_GAP.pattern}(?:\\?%|(?:\\text\s*\{{\s*)?percent(?![a-z]))")
_OF_NOUN = re.compile(r"\s+of\s+(?P<noun>(?:[a-z]+\s+){0,2}?[a-z]+s(?![a-z])|[a-z]+)")
_TIME = re.compile(r"\d{1,2}(?::\d\d)?")
_HALF = re.compile(
    rf"{_GAP.pattern}(?:\\(?:text|mbox|mathrm)\s*\{{\s*)?(?P<half>[ap])(?:\.\s?m\b|m\b(?!\s+I\b))", re.IGNORECASE
)
_MARKED_HALF = re.compile(r"\\text\{ [ap]\.m\.\}$")
SIGN_AFTER = "\\,\\%"
"""A percent sign that stood after the box, at the end of its value: gold answers often leave it out."""


def percent_after(boxed: str, after: str) -> bool:
    """Whether a plain value's box is followed by a percent sign, or the word."""
    return bool(_PLAIN.fullmatch(boxed.strip()) and _PERCENT.match(after))


def unit_after(boxed: str, after: str) -> str | None:
    """The unit that the text after a box begins with, and what it measures ("pounds of apples"); None if the box has a
    unit of its own or holds no plain value. A rate in words ("dollars per hour") may be what was asked for in dollars,
    unless it is a speed."""
    unit = _unit(after) if _PLAIN.fullmatch(boxed.strip()) else None
    read = read_suffix(unit).unit if unit else None
    if unit is None or read is None or ("per" in unit.split() and "length" not in dict(read.dimensions)):
        return None
    of = _OF_NOUN.match(after, after.find(unit) + len(unit))
    words = of["noun"].split() if of else []
    return unit if of is None or any(map(is_filler, words)) or changes_value(words) else f"{unit} of {of['noun']}"


def half_after(boxed: str, after: str) -> str | None:
    """The mark of the half of the day that stands after a time: `a.m.` or `p.m.`; None if there is none."""
    found = _HALF.match(after) if _TIME.fullmatch(boxed.strip()) else None
    return f"{found['half'].lower()}.m." if found else None


def without_half(answer: str) -> str:
    """An answer without the mark that stood after its box."""
    return _MARKED_HALF.sub("", answer)


def _unit(after: str) -> str | None:
    """The unit with which a text begins, after spaces and the end of a formula."""
    near = after[:_LONGEST]
    rest = near[_GAP.match(near).end() :]  # type: ignore[union-attr]
    marked = _TEXT.match(rest)
    if marked:
        words = marked.group(1).strip()
        unit = leading_unit(words) if words == "in" or not _NO_UNIT.match(words) or len(words) == 1 else None
        power = re.sub(r"[\s{}]", "", marked.group(2) or "")
        return f"{unit}{power}" if unit is not None else None
    clause = _CLAUSE.split(rest, maxsplit=1)[0]
    return leading_unit(clause) if _LETTER.match(rest) or not _NO_UNIT.match(clause) else None
