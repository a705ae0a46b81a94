"""Comparison of a program's values and output with the expected ones."""

import pytest

from rewards.code_grader.compare import same_output, same_value
from rewards.sandbox.inside import values


@pytest.mark.parametrize(
    ("got", "expected", "tolerance", "same"),
    [
        (1, 1, None, True), (1, 1.0, None, False), (True, 1, None, False), (1, True, None, False), (1, 1.0, 0.0, True),
        (True, 1, 0.5, False), (0.1 + 0.2, 0.3, None, False), (0.1 + 0.2, 0.3, 1e-9, True), (None, None, None, True),
        (None, False, None, False), ("1", 1, 1.0, False), ((1, 2), [1, 2], None, True),
        ([1, 2], [1, 2, 3], None, False), ({"a": [1]}, {"a": [1]}, None, True),
        ({"a": 1, "b": 2}, {"a": 1}, None, False), ({1: 1}, {"1": 1}, None, True),
        ({1: 1, "1": 1}, {"1": 1}, None, False), ({1}, [1], None, False),
        (10**40, 10**40, None, True), (10**12 + 1, 10**12, 1e-6, False), (5, 6, 1.0, True),
        ({1: 2}, {1: 2}, None, True), ({"1": 2}, {1: 2}, None, False),
        (10**40, 10**40 + 1, None, False), (b"a", "a", None, False),
        (float("nan"), float("nan"), None, True), (float("inf"), float("inf"), None, True), (10**400, 1.0, 0.1, False),
        (range(2), [0, 1], None, False), (len, None, None, False), ({}, {}, None, True), ([], {}, None, False),
    ],
)  # fmt: skip
def test_same_value(got, expected, tolerance, same):
    assert same_value(values.encode(got), expected, tolerance) is same


@pytest.mark.parametrize(
    ("got", "expected", "tolerance", "comparison", "same"),
    [
        ("a \nb\n\n", "a\nb", None, "tokens", True), ("1 2\n3", "1\n2 3\n", None, "tokens", True),
        ("2 1", "1 2", None, "tokens", False), ("1 2", "1", None, "tokens", False),
        ("Yes", "YES", None, "tokens", False),
        ("0.3333333333", "0.33333333", None, "tokens", True), ("0.3334", "0.3333", None, "tokens", False),
        ("1e-1", "0.1", None, "tokens", True), ("3.0000000001", "3", None, "tokens", False),
        ("1000000000001", "1000000000000", None, "tokens", False), ("1_0.5", "10.5", None, "tokens", False),
        ("inf", "0.5", None, "tokens", False), ("nan", "nan", None, "tokens", True),
        ("nan", "0.5", 1.0, "tokens", False),
        ("0.3333 x", "0.33334 x", 1e-3, "tokens", True), ("0.3333 x", "0.4 x", 1e-3, "tokens", False),
        ("1", "1 2", 1.0, "tokens", False),
        (" a", "a", None, "lines", False), ("a  \n\n", "a", None, "lines", True),
        ("a\n\nb", "a\nb", None, "lines", False),
        ("a\n", "a", None, "exact", False), ("a\n", "a\n", None, "exact", True),
    ],
)  # fmt: skip
def test_same_output(got, expected, tolerance, comparison, same):
    assert same_output(got, expected, tolerance, comparison) is same
