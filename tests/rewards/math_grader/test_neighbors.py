"""Cases of the kinds on which graders are known to fail, written without a look at the rules."""

import json
from pathlib import Path

import pytest

from tests.references.math_grading import grade_answer

CASES = [
    json.loads(line) for line in (Path(__file__).parent / "neighbors.jsonl").read_text(encoding="utf-8").splitlines()
]


@pytest.mark.parametrize("kind", sorted({case["kind"] for case in CASES}))
def test_every_case_of_a_kind(kind):
    wrong = []
    for case in CASES:
        if case["kind"] == kind:
            text = case["prediction"] if case["form"] == "response" else f"\\boxed{{{case['prediction']}}}"
            verdict = grade_answer(text, case["gold"])
            if (verdict.value == 1.0) != case["expected_equal"] or verdict.value is None:
                wrong.append((case["gold"], text, verdict.status))
    assert wrong == []
