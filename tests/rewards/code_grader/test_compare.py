"""Comparison of a program's values and output with the expected ones."""

import pytest

from rewards.code_grader.compare import same_output, same_value
from rewards.sandbox.inside import wire


@pytest.mark.parametrize(
    ("got", "expected", "tolerance", "same"),
    [
        (1, 1, None, True), (1, 1.0, None, False), (True, 1, None, False), (1, True, None, False), (1, 1.0, 0.0, True),
        (True, 1, 0.5, False), (0.1 + 0.2, 0.3, None, False), (0.1 + 0.2, 0.3, 1e-9, True), (None, None, None, True),
        (None, False, None, False), ("1", 1, 1.0, False), ((1, 2), [1, 2], None, True),
        ([1, 2], [1, 2, 3], None, False), ({"a": [1]}, {"a": [1]}, None, True),
        ({"a": 1, "b": 2}, {"a": 1}, None, False), ({1: 1}, {"1": 1}, None, False), ({1}, [1], None, False),
        (10**40, 10**40, None, True), (10**40, 10**40 + 1, None, False), (b"a", "a", None, False),
        (float("nan"), float("nan"), None, True), (float("inf"), float("inf"), None, True), (10**400, 1.0, 0.1, False),
        (range(2), [0, 1], None, False), (len, None, None, False), ({}, {}, None, True), ([], {}, None, False),
    ],
)  # fmt: skip
def test_same_value(got, expected, tolerance, same):
    assert same_value(wire.encode(got), expected, tolerance) is same


def test_same_output():
    assert same_output("a \nb\n\n", "a\nb", None) and not same_output("a\n\nb", "a\nb", None)
    assert not same_output(" a", "a", None) and same_output("0.3333 x", "0.33334 x", 1e-3)
    assert not same_output("0.3333 x", "0.4 x", 1e-3) and not same_output("1", "1 2", 1.0)
