"""Forms of tests that cannot be used."""

import pytest

from rewards.code_grader.forms import TestsUnusable, read_tests


@pytest.mark.parametrize(
    "row",
    [
        {}, {"tests": []}, {"tests": ["x = 1"]}, {"tests": ["assert ("]}, {"tests": ["assert 1 == 1"]},
        {"tests": {"cases": [1]}}, {"tests": {"entry_point": "f", "cases": []}},
        {"tests": {"entry_point": "f", "cases": [{"args": [1]}]}}, {"tests": "[1"}, {"tests": [{"stdin": ""}]},
        {"test": "def check(candidate):\n    assert candidate()"}, {"tests": "f()"}, {"tests": 100_000 * "["},
        {"tests": {"entry_point": "f", "cases": [{"args": [], "expected": 1, "tolerance": -1}]}},
        {"test": "def check(candidate):\n    pass", "entry_point": "f"},
    ],
)  # fmt: skip
def test_unusable_tests_are_reported(row):
    with pytest.raises(TestsUnusable):
        read_tests(row)
