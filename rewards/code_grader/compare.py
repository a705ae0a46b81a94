"""Compares the output of a sandbox with a test's expected output, as plain data and without running program code."""

from __future__ import annotations

import json
import math
import re
from typing import Any

DECIMALS = 1e-6
"""Tolerance for numbers with decimals where a data set gives none: two programs print the last digits differently."""
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")


def same_value(got: Any, expected: Any, tolerance: float | None) -> bool:
    """Whether an encoded value (see `wire.encode`) equals an expected value (plain JSON). Types matter: 1, 1.0 and True
    all differ. A tuple equals a list, since JSON has only one sequence type, and a key 1 equals a key "1", since JSON
    has only texts. With a tolerance, an int may equal a float; it is
    absolute or relative, whichever is larger, and for two ints absolute."""
    if isinstance(expected, dict):
        return _same_mapping(got, expected, tolerance)
    if isinstance(expected, list | tuple):
        if isinstance(got, dict) and list(got) == ["t"]:
            got = got["t"]
        return (
            type(got) is list
            and len(got) == len(expected)
            and all(same_value(part, other, tolerance) for part, other in zip(got, expected, strict=True))
        )
    number = _number(got)
    if number is not None and isinstance(expected, int | float) and not isinstance(expected, bool):
        if tolerance is not None:
            if isinstance(number, int) and isinstance(expected, int):
                return abs(number - expected) <= tolerance
            return _close(number, expected, tolerance)
        return type(number) is type(expected) and (number == expected or (number != number and expected != expected))
    return type(got) is type(expected) and got == expected


def _same_mapping(got: Any, expected: dict[str, Any], tolerance: float | None) -> bool:
    content = got.get("d") if isinstance(got, dict) else None
    if type(content) is not list or [*map(type, content)] != [list, list] or len(content[0]) != len(content[1]):
        return False
    found: dict[Any, Any] = {}
    for own, value in zip(*content, strict=True):
        key = _key(own, expected)
        if key is None or key in found:
            return False
        found[key] = value
    return found.keys() == expected.keys() and all(same_value(found[key], expected[key], tolerance) for key in expected)


def _key(got: Any, expected: dict[Any, Any]) -> Any:
    """The expected key that a key equals; None if there is none. JSON writes the key 1 as "1"."""
    if type(got) not in (str, int, float, bool):
        return None
    same = next((key for key in expected if type(key) is type(got) and key == got), None)
    text = got if type(got) is str else json.dumps(got)
    return text if same is None and text in expected else same


def _number(got: Any) -> int | float | None:
    if type(got) in (int, float):
        return got
    try:
        if isinstance(got, dict) and list(got) == ["i"]:
            return int(got["i"], 16)
        if isinstance(got, dict) and list(got) == ["f"]:
            return float(got["f"])
    except (TypeError, ValueError, OverflowError):  # the program may have forged the message
        return None
    return None


def same_output(got: str, expected: str, tolerance: float | None, comparison: str = "tokens") -> bool:
    """Whether two outputs are the same. comparison: `tokens`, as judges compare: the same whitespace-separated words,
    where decimals may differ by a millionth, or numbers by the tolerance; `lines`: the same lines, ignoring trailing
    whitespace and trailing empty lines; `exact`: the same text."""
    if comparison == "exact":
        return got == expected
    if comparison == "lines":
        return _lines(got) == _lines(expected)
    words, others = got.split(), expected.split()
    return len(words) == len(others) and all(
        word == other or _close_words(word, other, tolerance) for word, other in zip(words, others, strict=True)
    )


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.rstrip().split("\n")]


def _close_words(word: str, other: str, tolerance: float | None) -> bool:
    if not _NUMBER.fullmatch(word) or not _NUMBER.fullmatch(other):
        return False
    if tolerance is None and other.lstrip("+-").isdigit():
        return False  # a whole number is exact
    return _close(float(word), float(other), DECIMALS if tolerance is None else tolerance)


def _close(number: float, other: float, tolerance: float) -> bool:
    try:
        return math.isclose(number, other, rel_tol=tolerance, abs_tol=tolerance)
    except OverflowError:
        return False
