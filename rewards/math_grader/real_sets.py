"""Sets of real numbers as sorted, disjoint intervals: unions, intersections, differences, inequalities."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import reduce

from rewards.math_grader.brackets import split_top, unwrap
from rewards.math_grader.structure import is_name, pieces, shape_of

Evaluate = Callable[[str], Fraction | None]
"""The value of an endpoint; None if it is no number, or cannot be computed here."""
_WORD = r"\\(?:text|mbox|mathrm|textrm)\s*\{{\s*,?\s*{0}\s*,?\s*\}}|(?<![\\a-zA-Z]){0}(?![a-zA-Z])"
_OR = re.compile(_WORD.format("or") + r"|\\l?or(?![a-zA-Z])|\\cup(?![a-zA-Z])")
_AND = re.compile(_WORD.format("and") + r"|\\l?and(?![a-zA-Z])|\\cap(?![a-zA-Z])")
_WITHOUT = re.compile(
    r"\\setminus(?![a-zA-Z])|\\smallsetminus(?![a-zA-Z])|(?<=\})\s*-\s*(?=\\\{)|(?<=\})\s*\\\s*(?=\\\{)"
)
_REALS = {"\\mathbb{R}", "\\mathbf{R}", "\\Reals", "\\R", "\\mathrm{R}"}
_HALF = re.compile(r"\\math(?:bb|bf)\s*\{?R\}?\s*[_^]\s*\{?\s*([+-]|>\s*0|<\s*0|\\ge\s*0)\s*\}?")
_INFINITY = re.compile(r"([+-]?)\s*(?:\\infty|\\infin)\s*")
_CONDITION = re.compile(
    r"\\\{\s*([a-zA-Z])(?:\s*\\in\s*\\mathbb\s*\{?R\}?)?\s*(?:\||:|\\mid(?![a-zA-Z])|\\colon)\s*((?:(?!\\\}).)*)\\\}",
    re.DOTALL,
)
_DISTANCE = re.compile(r"\|\s*([a-zA-Z])\s*([+-]\s*[^|]+)?\|")
_LETTER = re.compile(r"(?<![\\a-zA-Z])[a-zA-Z](?![a-zA-Z])")
_MOST_CONDITIONS = 10
_INEQUALITIES = {"<", ">", "\\le", "\\ge", "\\ne"}
CLOSE = Fraction(1, 10**9)
"""Difference up to which two endpoints are the same."""


@dataclass(frozen=True, slots=True, order=True)
class End:
    """An endpoint: `side` is -1 just below the value, 1 just above it."""

    infinite: int
    value: Fraction
    side: int


Intervals = tuple[tuple[End, End], ...]
_LOWEST, _HIGHEST = End(-1, Fraction(0), 0), End(1, Fraction(0), 0)
EVERYTHING: Intervals = ((_LOWEST, _HIGHEST),)


def real_set(text: str, evaluate: Evaluate) -> Intervals | None:
    """A normalized answer as a set of real numbers; None if it is none, or if an endpoint has no value."""
    text = unwrap(text.strip())
    condition = _CONDITION.fullmatch(text)
    if condition:
        text = condition.group(2).strip()
    for pattern, combine in ((_OR, _union), (_AND, _intersection), (_WITHOUT, _difference)):
        parts = _split(pattern, text)
        if len(parts) > 1:
            sets = [real_set(part, evaluate) for part in parts]
            if any(found is None for found in sets):
                return None
            result = sets[0] or ()
            for found in sets[1:]:
                result = combine(result, found or ())
            return result
    together = _together(text, evaluate)
    if together is not None:
        return together
    if text in _REALS:
        return EVERYTHING
    half = _HALF.fullmatch(text)
    if half:
        sign = half.group(1)
        zero = End(0, Fraction(0), 1 if sign[0] in "+>" else -1)
        return ((_LOWEST, zero),) if sign[0] in "-<" else ((zero, _HIGHEST),)
    if text == "\\emptyset":
        return ()
    return _simple(text, evaluate)


def _together(text: str, evaluate: Evaluate) -> Intervals | None:
    """Conditions on one letter with commas between, `1 < x < 3, x \\ne 2`: what meets all of them, or if nothing does,
    what meets any. None for anything else, also where a condition adds nothing: that is a list of two answers."""
    parts = split_top(text, {","})
    letters = {frozenset(_LETTER.findall(part)) for part in parts}
    if (
        not 2 <= len(parts) <= _MOST_CONDITIONS
        or len(letters) > 1
        or any(len(split_top(part, _INEQUALITIES)) < 2 for part in parts)
    ):
        return None
    found = [real_set(part, evaluate) for part in parts]
    sets = [part for part in found if part is not None]
    if len(sets) < len(parts):
        return None
    for combine in (_intersection, _union):
        whole = reduce(combine, sets)
        if whole:
            rest = [reduce(combine, sets[:place] + sets[place + 1 :]) for place in range(len(sets))]
            return None if whole in rest else whole
    return None


def same_set(gold: Intervals, answer: Intervals) -> bool:
    if len(gold) != len(answer):
        return False
    return all(
        _same_end(one, other) for pair in zip(gold, answer, strict=True) for one, other in zip(*pair, strict=True)
    )


def _same_end(one: End, other: End) -> bool:
    tolerance = CLOSE * max(Fraction(1), abs(one.value))
    return one.infinite == other.infinite and one.side == other.side and abs(one.value - other.value) <= tolerance


def _simple(text: str, evaluate: Evaluate) -> Intervals | None:
    if text.startswith("\\{"):
        shape = shape_of(text)
        points = [evaluate(item) for item in shape.items] if shape.kind == "set" else [None]
        if not points or any(point is None for point in points):
            return None
        return _sorted([(End(0, point, -1), End(0, point, 1)) for point in points if point is not None])
    equation = split_top(text, {"="})
    if len(equation) == 2 and is_name(equation[0]):
        value = evaluate(equation[1])
        return None if value is None else ((End(0, value, -1), End(0, value, 1)),)
    distance = _DISTANCE.search(text)
    if distance:
        return _around(text, distance, evaluate)
    found = pieces(text)
    if not found:
        return None
    intervals = []
    for piece in found:
        ends = (
            _end(piece.left, -1 if piece.brackets[0] == "[" else 1, evaluate),
            _end(piece.right, 1 if piece.brackets[1] == "]" else -1, evaluate),
        )
        if ends[0] is None or ends[1] is None:
            return None
        intervals.append((ends[0], ends[1]))
    return _sorted(intervals)


def _around(text: str, distance: re.Match[str], evaluate: Evaluate) -> Intervals | None:
    """`|x| < 3` and `|x - 2| < 3`, from the set of distances."""
    name, shift = distance.groups()
    center = Fraction(0) if shift is None else evaluate(re.sub(r"\s+", "", shift))
    radii = real_set(text[: distance.start()] + name + text[distance.end() :], evaluate)
    if center is None or radii is None:
        return None
    right = _intersection(radii, ((End(0, Fraction(0), -1), _HIGHEST),))
    both = [*right, *((_mirrored(high), _mirrored(low)) for low, high in right)]
    return _sorted([(_moved(low, -center), _moved(high, -center)) for low, high in both])


def _mirrored(end: End) -> End:
    return End(-end.infinite, -end.value, -end.side)


def _moved(end: End, shift: Fraction) -> End:
    return end if end.infinite else End(0, end.value + shift, end.side)


def _end(text: str, side: int, evaluate: Evaluate) -> End | None:
    infinity = _INFINITY.fullmatch(text.strip())
    if infinity:
        return _LOWEST if infinity.group(1) == "-" else _HIGHEST
    value = evaluate(text)
    return None if value is None else End(0, value, side)


def _split(pattern: re.Pattern[str], text: str) -> list[str]:
    """Split at matches that are outside of all brackets."""
    marked = pattern.sub("\\\\SPLIT ", text)
    return [part.strip(" ,") for part in split_top(marked, {"\\SPLIT"})]


def _sorted(intervals: Sequence[tuple[End, End]]) -> Intervals:
    """Sort, and join those that touch."""
    result: list[tuple[End, End]] = []
    for low, high in sorted(pair for pair in intervals if pair[0] < pair[1]):
        if result and low <= result[-1][1]:
            result[-1] = (result[-1][0], max(result[-1][1], high))
        else:
            result.append((low, high))
    return tuple(result)


def _union(left: Intervals, right: Intervals) -> Intervals:
    return _sorted([*left, *right])


def _intersection(left: Intervals, right: Intervals) -> Intervals:
    return _sorted([(max(one[0], two[0]), min(one[1], two[1])) for one in left for two in right])


def _difference(left: Intervals, right: Intervals) -> Intervals:
    ends = [_LOWEST, *(end for pair in right for end in pair), _HIGHEST]
    return _intersection(left, _sorted(list(zip(ends[::2], ends[1::2], strict=True))))
