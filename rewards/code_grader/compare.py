"""Compares the output of a sandbox with a test's expected output, as plain data and without running program code."""

from __future__ import annotations

import math
from typing import Any


def same_value(got: Any, expected: Any, tolerance: float | None) -> bool:
    """Whether an encoded value (see `wire.encode`) equals an expected value (plain JSON). Types matter: 1, 1.0 and True
    all differ. A tuple equals a list, since JSON has only one sequence type. With a tolerance (absolute or relative,
    whichever is larger), an int may equal a float."""
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
            return _close(number, expected, tolerance)
        return type(number) is type(expected) and (number == expected or (number != number and expected != expected))
    return type(got) is type(expected) and got == expected


def _same_mapping(got: Any, expected: dict[str, Any], tolerance: float | None) -> bool:
    if not isinstance(got, dict) or list(got) != ["d"] or type(got["d"]) is not list:
        return False
    found: dict[str, Any] = {}
    for pair in got["d"]:
        if type(pair) is not list or len(pair) != 2 or type(pair[0]) is not str:
            return False
        found[pair[0]] = pair[1]
    return found.keys() == expected.keys() and all(same_value(found[key], expected[key], tolerance) for key in expected)


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


def same_output(got: str, expected: str, tolerance: float | None) -> bool:
    """Whether two outputs have the same lines, ignoring trailing whitespace and trailing empty lines. With a tolerance:
    whether they have the same whitespace-separated words, where numbers may differ by the tolerance."""
    if tolerance is None:
        return _lines(got) == _lines(expected)
    words, others = got.split(), expected.split()
    return len(words) == len(others) and all(
        word == other or _close_words(word, other, tolerance) for word, other in zip(words, others, strict=True)
    )


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.rstrip().split("\n")]


def _close_words(word: str, other: str, tolerance: float) -> bool:
    try:
        return _close(float(word), float(other), tolerance)
    except ValueError:
        return False


def _close(number: float, other: float, tolerance: float) -> bool:
    try:
        return math.isclose(number, other, rel_tol=tolerance, abs_tol=tolerance)
    except OverflowError:
        return False
