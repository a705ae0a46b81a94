"""Programs of the kinds on which graders are known to fail, written without a look at the rules."""

import json
from pathlib import Path

import pytest

CASES = [
    json.loads(line) for line in (Path(__file__).parent / "neighbors.jsonl").read_text(encoding="utf-8").splitlines()
]
COLUMNS = sorted({name for case in CASES for name in case} - {"completion", "want", "kind"})


@pytest.fixture(scope="module")
def verdicts(code):
    return code.verdicts(
        [case["completion"] for case in CASES], {name: [case.get(name) for case in CASES] for name in COLUMNS}
    )


@pytest.mark.parametrize("kind", sorted({case["kind"].split(":")[0] for case in CASES}))
def test_every_case_of_a_kind(verdicts, kind):
    wrong = [
        (case["kind"], case["completion"], verdict)
        for case, verdict in zip(CASES, verdicts, strict=True)
        if case["kind"].split(":")[0] == kind and ((verdict.value == 1.0) != case["want"] or verdict.value is None)
    ]
    assert wrong == []
