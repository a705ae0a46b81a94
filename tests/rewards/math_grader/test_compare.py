"""Equality of answers: a table of pairs written for this project, and the options of the policy."""

from pathlib import Path

import pytest

from rewards.math_grader import symbolic
from rewards.math_grader.policy import DEFAULT_POLICY, MathPolicy
from tests.references.math_grading import grade_answer

TABLE = (Path(__file__).parent / "answer_pairs.txt").read_text(encoding="utf-8").split("\n#")
SAME, DIFFERENT = (part.split("\n", 1)[1] for part in TABLE)


def pairs(table: str) -> list[tuple[str, ...]]:
    return [tuple(part.strip() for part in line.split("||")) for line in table.strip().splitlines()]


@pytest.mark.parametrize(("gold", "answer"), pairs(SAME))
def test_same(gold, answer):
    verdict = grade_answer(f"\\boxed{{{answer}}}", gold)
    assert verdict.value == 1.0, verdict


@pytest.mark.parametrize(("gold", "answer"), pairs(DIFFERENT))
def test_different(gold, answer):
    verdict = grade_answer(f"\\boxed{{{answer}}}", gold)
    assert verdict.value == 0.0, verdict


@pytest.mark.parametrize("gold", sorted({gold for table in (SAME, DIFFERENT) for gold, _ in pairs(table)}))
def test_every_gold_equals_itself(gold):
    assert grade_answer(f"\\boxed{{{gold}}}", gold).value == 1.0


@pytest.mark.parametrize(
    ("switch", "gold", "answer", "by_default", "switched"),
    [
        ({"evaluated": False}, "12", "5+7", False, True),
        ({"evaluated": False}, "45", "\\sum_{k=1}^9 k", False, True),
        ({"relative_tolerance": 0.01}, "\\pi", "3.14", False, True),
        ({"relative_tolerance": 0.01}, "2.71", "2.72", False, True),
        ({"rounding": "gold"}, "0.11", "\\frac{1}{9}", False, True),
        ({"rounding": "gold"}, "0.11", "0.12", False, False),
        ({"rounding": "gold"}, "8.46", "5+2\\sqrt{3}", False, True),
        ({"percent": "either"}, "50\\%", "50", False, True),
        ({"percent": "either"}, "50\\%", "5", False, False),
        ({"units": "ignore"}, "5\\text{ cm}", "5\\text{ m}", False, True),
        ({"units": "require"}, "5\\text{ cm}", "5", True, False),
        ({"units": "require"}, "5\\text{ cm}", "5 cm", True, True),
        ({"bases": "ignore"}, "204_5", "204", False, True),
        ({"degrees": False}, "120^\\circ", "\\frac{2\\pi}{3}", True, False),
        ({"ratios": "strict"}, "3:4", "\\frac{3}{4}", True, False),
        ({"lists": "ordered"}, "1,2", "2,1", True, False),
        ({"sets": "lenient"}, "\\{1,2\\}", "(2,1)", False, True),
        ({"singletons": False}, "42", "\\{42\\}", True, False),
        ({"inequalities": "strict"}, "(3,\\infty)", "x>3", True, False),
        ({"vectors": "tuple"}, "\\begin{pmatrix}1\\\\2\\end{pmatrix}", "(1,2)", False, True),
        ({"chains": "refuse"}, "42", "6\\cdot 7=42", True, False),
        ({"chains": "refuse"}, "42", "x=42", True, True),
        ({"mixed_numbers": False}, "2\\frac{1}{2}", "\\frac{5}{2}", True, False),
        ({"plain_text": False}, "\\sqrt[3]{5}", "cbrt(5)", True, False),
        ({"choices": False}, "C", "(C) 42", True, False),
    ],
)
def test_every_policy_option(switch, gold, answer, by_default, switched):
    assert grade_answer(f"\\boxed{{{answer}}}", gold).value == float(by_default)
    assert grade_answer(f"\\boxed{{{answer}}}", gold, policy=MathPolicy(**switch)).value == float(switched)


def test_several_boxes_are_a_list_by_default():
    text = "\\boxed{41} or \\boxed{42}"
    values = {how: grade_answer(text, "42", policy=MathPolicy(several_boxes=how)) for how in ("list", "last", "refuse")}
    assert {how: verdict.value for how, verdict in values.items()} == {"list": 0.0, "last": 1.0, "refuse": 0.0}
    assert values["refuse"].status == "no_answer"


def test_the_questions_own_expression_is_not_an_answer():
    question = "Simplify $\\dfrac{x^2-1}{x-1}$."
    own = grade_answer("\\boxed{\\frac{x^2-1}{x-1}}", "x+1", question=question)
    assert (own.value, own.status) == (0.0, "policy")
    assert grade_answer("\\boxed{1+x}", "x+1", question=question).value == 1.0
    assert grade_answer("\\boxed{\\frac{1}{2}}", "\\frac12", question="Is $\\frac12$ larger?").value == 1.0
    assert grade_answer("\\boxed{2^{10}}", "1024", question="What is $2^{10}$?").value == 0.0
    assert grade_answer("\\boxed{2^{10}}", "1024", question="What is $2^{100} / 2^{90}$?").value == 1.0


@pytest.mark.parametrize(
    "text", ["e-e", "\\sqrt{2}-\\sqrt{2}", "\\sin \\pi", "2-\\sqrt{4}", "\\ln 2+\\ln \\frac{1}{2}"]
)
def test_a_difference_that_is_zero_is_recognized(text):
    assert symbolic.approximate(text) == 0 and symbolic.equal("0", text, DEFAULT_POLICY)


@pytest.mark.parametrize("text", ["\\sqrt{1+10^{-60}}-1", "e^{10^{-50}}-1", "\\sqrt{10^{40}+1}-10^{20}"])
def test_a_small_difference_is_not_zero(text):
    assert 0 < symbolic.approximate(text) < 1e-20
    assert not symbolic.equal("0", text, DEFAULT_POLICY)
