"""The shape of an answer: list, tuple, set, interval, union, matrix, or single expression.

Works on strings only, in time linear in their length."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from rewards.math_grader.brackets import is_whole, split_top, top_tokens, unwrap
from rewards.math_grader.matrices import entries_of
from rewards.math_grader.measures import compound

Kind = Literal["single", "list", "tuple", "set", "matrix"]

_CASES = re.compile(r"\\begin\{cases\}(?P<body>((?!\\begin|\\end).)*)\\end\{cases\}", re.DOTALL)
_CONDITION = re.compile(
    r"\\(?:text|mbox|mathrm|textrm)\s*\{[\s,]*(?:if|for|when|where)?[\s,]*\}|^\s*(?:if|for|when)(?![a-zA-Z])"
)
_WORD_SEPARATOR = re.compile(
    r"\\(?:text|mbox|mathrm|textrm)\s*\{\s*,?\s*(and|or)\s*\}|(?<![\\a-zA-Z])(and|or)(?![a-zA-Z])|\\lor(?![a-zA-Z])|,\s*(?=,)"
)
_NOUN_AND = re.compile(r"(\\(?:text|mbox|mathrm|textrm)\s*\{[^{}]*[A-Za-z])\s*,?\s+(?:and|or)\s*\}")
"""Matches `\\text{ boys and }`."""
OR = re.compile(r"\\(?:text|mbox|mathrm|textrm)\s*\{\s*,?\s*or\s*\}|(?<![\\a-zA-Z])or(?![a-zA-Z])|\\lor(?![a-zA-Z])")
_RELATION = {"<", ">", "\\le", "\\ge", "\\leq", "\\geq", "\\ne", "\\neq", "\\in"}
_FLIPPED = {"<": ">", ">": "<", "\\le": "\\ge", "\\ge": "\\le"}
_NAME = re.compile(
    r"(?:\\[a-zA-Z]+\s*)?[a-zA-Z]?(?:\^\{-1\}(?=\s*\())?(?:_\{?[\w\\ ]*\}?)?'*(?:\s*\([a-zA-Z0-9, ]+\))?"
    r"|\\(?:text|mathrm)\{[^{}]*\}(?:\([a-zA-Z]\))?"
    r"|\|[A-Z]{2}\||m?\s*\\angle\s*[A-Z]{1,3}|\\overline\{[A-Z]{2}\}|[PE]\([^()]*\)|[SVA]_\{?[A-Z]+\}?\s*:\s*[SVA](?:_\{?[A-Z]+\}?)?"
    r"|[A-Za-z]{2,}|\(\s*[a-zA-Z\\]+\s*(?:,\s*[a-zA-Z\\]+\s*)+\)"
)
_DERIVATIVE = re.compile(
    r"\\frac\s*\{\s*(?:d|\\partial)\s*(?:\^\s*\{?\s*(?P<order>\d)\s*\}?)?\s*(?P<inside>[a-zA-Z])?\s*\}"
    r"\s*\{\s*(?:d|\\partial)\s*(?P<variable>[a-zA-Z])\s*(?:\^\s*\{?\s*\d\s*\}?)?\s*\}"
    r"\s*(?P<behind>[a-zA-Z])?\s*(?:\([a-zA-Z]\))?"
)
_NOT_NAMES = re.compile(r"\\(?:pi|infty|frac|sqrt|pm|mp|neg|not|ne|le|ge|in|cdot|times|div)(?![a-zA-Z])")
_LETTERS = re.compile(r"[a-zA-Z]{2,3}")
_THOUSANDS = re.compile(
    r"[-+]?\d{1,3}(?:,\d{3})+(?:\.\d+)?\s*%?(?:\\(?:text|mbox|mathrm)\s*\{[^{}]*\}|\^\s*(?:\{[^{}]*\}|\d)|[A-Za-z]{2,}+|\s++)*+"
)
_GROUPED = re.compile(r"-?\d{1,3}(?:,\d{3})*|-?\d+")
_SIGN = re.compile(r"\\(?:pm|mp)(?![a-zA-Z])")
MAX_SIGNS = 5
"""Maximum number of `\\pm` signs in one answer that are expanded."""


@dataclass(frozen=True)
class Shape:
    """A normalized answer split into parts."""

    kind: Kind
    items: tuple[str, ...]
    """The parts in order; the entries of a matrix in row-major order."""
    brackets: str = ""
    """For a tuple `()`, `[)`, `(]` or `[]`; for a matrix its number of rows."""


@dataclass(frozen=True)
class Piece:
    """An interval, or a point (both ends equal and closed)."""

    left: str
    right: str
    brackets: str
    name: str | None = None
    """The variable that lies in it, if one is named."""


def shape_of(text: str, *, thousands: bool = True) -> Shape:
    """The shape of a normalized answer. `thousands`: read `1,234` as one number."""
    text = unwrap(text.strip())
    matrix = entries_of(text)
    if matrix is not None:
        return Shape("matrix", *matrix)
    if compound(text):
        return Shape("single", (text,))
    large = _large_numbers(text)
    items = large or [item for item in split_top(_commas(text), {",", ";", "\\\\"}) if item]
    if large or len(items) > 1 and not (thousands and _THOUSANDS.fullmatch(text)):
        return Shape("list", tuple(itertools.chain.from_iterable(map(signs, items))))
    if text.startswith("\\{") and text.endswith("\\}") and is_whole(text):
        inner = [item for item in split_top(_commas(text[2:-2]), {",", ";"}) if item]
        return Shape("set", tuple(itertools.chain.from_iterable(map(signs, inner))))
    if text[:1] in "([" and text[-1:] in ")]" and len(text) > 1 and is_whole(text):
        inner = split_top(text[1:-1], {",", ";"})
        if len(inner) > 1 and text[0] + text[-1] == "()" and len(signed := signs(text)) > 1:
            return Shape("list", tuple(signed))
        if len(inner) > 1 or text[0] == "[":
            return Shape("tuple", tuple(inner), text[0] + text[-1])
    signed = signs(text)
    return Shape("single", (text,)) if len(signed) == 1 else Shape("list", tuple(signed))


def _large_numbers(text: str) -> list[str] | None:
    """The numbers of `2,000 and 3,000`; None for anything else."""
    items = [item.strip() for item in re.split(rf"{_WORD_SEPARATOR.pattern}|;|,\s+(?=\d)", text) if item]
    items = [item for item in items if item not in ("and", "or", "")]
    grouped = len(items) > 1 and all(map(_GROUPED.fullmatch, items)) and any("," in item for item in items)
    return items if grouped else None


def signs(text: str) -> list[str]:
    """Expand `a \\pm b` to `a + b` and `a - b`. The entries of a tuple are expanded independently of each other."""
    count = len(_SIGN.findall(text))
    if not count:
        return [text]
    sides = split_top(text, {"="})
    name = _SIGN.sub("", sides[0]).strip()
    if (
        len(sides) == 2 and _SIGN.match(sides[0]) and is_name(name) and not _SIGN.search(sides[1])
    ):  # `\\pm x = 5` is `x = \\pm 5`
        text = f"{name} = \\pm ({sides[1]})"
    if text[:1] == "(" and text[-1:] == ")" and is_whole(text) and len(split_top(text[1:-1], {","})) > 1:
        entries = split_top(text[1:-1], {","})
        if count > MAX_SIGNS:
            return [text]
        return [f"({','.join(choice)})" for choice in itertools.product(*map(signs, entries))]
    plus = re.sub(r"\\pm(?![a-zA-Z])", "+", re.sub(r"\\mp(?![a-zA-Z])", "-", text))
    minus = re.sub(r"\\pm(?![a-zA-Z])", "-", re.sub(r"\\mp(?![a-zA-Z])", "+", text))
    return [re.sub(r"^\s*\+\s*", "", re.sub(r"([({])\s*\+", r"\1", part)) for part in (plus, minus)]


def is_name(text: str) -> bool:
    """Whether a side of an equation is only a name: `x`, `x_1`, `f(x)`, `\\text{area}`, `(x, y)`."""
    if not text:
        return False
    return bool(_NAME.fullmatch(text.strip()) and not _NOT_NAMES.search(text)) or derivative_of(text) is not None


def derivative_of(text: str) -> tuple[str, int, str] | None:
    """`\\frac{dy}{dx}` as the function, the order and the variable; None for anything else."""
    found = _DERIVATIVE.fullmatch(text.strip())
    function = found and (found["inside"] or found["behind"])
    return (function, int(found["order"] or 1), found["variable"]) if found and function else None


def is_simple_name(text: str) -> bool:
    """Whether a side of an equation is a name and no product of letters: `x`, `f(x)`, `\\text{area}`, but not `kx`."""
    return is_name(text) and not _LETTERS.fullmatch(text.strip())


def cases_of(text: str) -> list[tuple[str, str]] | None:
    """A function in cases as (value, condition) pairs; None for anything else."""
    found = _CASES.fullmatch(text.strip())
    rows = [split_top(row, {"&"}) for row in split_top(found["body"], {"\\\\"}) if row] if found else []
    if not rows or {len(row) for row in rows} != {2}:
        return None
    return [(row[0].rstrip(" ,;"), _CONDITION.sub("", row[1]).strip(" ,;.")) for row in rows]


def pieces(text: str) -> list[Piece] | None:
    """An interval, a union of intervals, or an inequality as pieces of the real line; None for anything else."""
    text = unwrap(text.strip())
    words = [part for part in OR.split(text) if part.strip()]
    if len(words) > 1 and any(len(split_top(word, _RELATION)) > 1 for word in words):
        parts = [pieces(word.strip(" ,")) or _equation_point(word.strip(" ,")) for word in words]
        return None if None in parts else [piece for part in parts for piece in part or ()]
    union = split_top(text, {"\\cup"})
    if len(union) > 1:
        parts = [pieces(part) or _points(part) for part in union]
        return None if None in parts else [piece for part in parts for piece in part or ()]
    if text in ("\\mathbb{R}", "\\Reals", "\\R", "\\mathbf{R}"):
        return [Piece("-\\infty", "\\infty", "()")]
    shape = shape_of(text)
    if shape.kind == "tuple" and len(shape.items) == 2:
        return [Piece(*shape.items, shape.brackets)]
    return _relation(text)


def certain(found: Sequence[Piece], text: str) -> bool:
    """Whether the pieces must be a set of numbers, and cannot be a point `(1, 2)` or a list `[1, 2]`."""
    return len(found) > 1 or found[0].name is not None or "\\infty" in text or found[0].brackets in ("[)", "(]")


def _relation(text: str) -> list[Piece] | None:
    """The pieces of `x > 3`, `a < x <= b`, `x \\ne 0` or `x \\in S`; None for anything else."""
    parts = split_top(text, _RELATION)
    if not 2 <= len(parts) <= 3 or not all(parts):
        return None
    signs_found = [token for token in top_tokens(text) if token in _RELATION]
    kinds = [{"\\leq": "\\le", "\\geq": "\\ge", "\\neq": "\\ne"}.get(sign, sign) for sign in signs_found]
    if len(parts) == 2:
        left, right = parts
        if kinds[0] == "\\in":
            found = (pieces(right) or _points(right)) if is_name(left) else None
            return found and [Piece(piece.left, piece.right, piece.brackets, left) for piece in found]
        if not is_name(left):
            left, right, kinds = right, left, [_FLIPPED.get(kinds[0], kinds[0])]
        if not is_name(left):
            return None
        return {
            "<": [Piece("-\\infty", right, "()", left)],
            "\\le": [Piece("-\\infty", right, "(]", left)],
            ">": [Piece(right, "\\infty", "()", left)],
            "\\ge": [Piece(right, "\\infty", "[)", left)],
            "\\ne": [Piece("-\\infty", right, "()", left), Piece(right, "\\infty", "()", left)],
        }[kinds[0]]
    low, name, high = parts
    rising, falling = {"<", "\\le"}, {">", "\\ge"}
    if not is_name(name) or not (set(kinds) <= rising or set(kinds) <= falling):
        return None
    if kinds[0] in (">", "\\ge"):
        low, high, kinds = high, low, [_FLIPPED[kind] for kind in reversed(kinds)]
    return [Piece(low, high, ("[" if kinds[0] == "\\le" else "(") + ("]" if kinds[1] == "\\le" else ")"), name)]


def _points(text: str) -> list[Piece] | None:
    shape = shape_of(text)
    return [Piece(item, item, "[]") for item in shape.items] if shape.kind == "set" and shape.items else None


def _equation_point(text: str) -> list[Piece] | None:
    parts = split_top(text, {"="})
    return [Piece(parts[1], parts[1], "[]", parts[0])] if len(parts) == 2 and is_name(parts[0]) else None


def _commas(text: str) -> str:
    """Replace "and" and "or" between the parts of a list by commas. (Those between inequalities are read by
    `pieces`.)"""
    text = re.sub(r",\s*(\\(?:text|mbox|mathrm|textrm)\s*\{\s*(?:and|or)\s*\})", r"\1", text)
    if _NOUN_AND.search(text) and not compound(text):
        text = _NOUN_AND.sub(r"\1},", text)
    return _WORD_SEPARATOR.sub(",", text)
