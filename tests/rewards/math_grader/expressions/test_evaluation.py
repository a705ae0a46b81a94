"""Values of expressions against exact ones, their bounds, and what has no value."""

import math

import pytest
from flint import acb, arb, fmpq

from rewards.math_grader.expressions.balls import Undefined
from rewards.math_grader.expressions.evaluation import Evaluation
from rewards.math_grader.expressions.nodes import symbols
from rewards.math_grader.expressions.parser import parse


def value(text, *, real=True, precision=128, **point):
    found = parse(text)
    assert found is not None and not found.relations, text
    exact = {name: fmpq(number) for name, number in point.items()}
    return Evaluation(exact, real=real, precision=precision)(found.parts[0])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2\\frac{1}{2}", 2.5),
        ("2\\cdot\\frac{1}{2}", 1.0),
        ("-3^2", -9.0),
        ("2^{3^2}", 512.0),
        ("6/2/3", 1.0),
        ("1/2x", 1.5),
        ("8-3-2", 3.0),
        ("5!", 120.0),
        ("(3!)!", 720.0),
        ("3!!", 3.0),
        ("8!!", 384.0),
        ("2 (-1)!!", 2.0),
        ("\\binom{5}{2}", 10.0),
        ("\\sqrt[3]{-8}", -2.0),
        ("|2-x|", 1.0),
        ("\\lfloor -2.5\\rfloor", -3.0),
        ("\\lceil 2.1\\rceil", 3.0),
        ("\\sin\\frac{\\pi}{6}", 0.5),
        ("\\sin^2 x+\\cos^2 x", 1.0),
        ("\\sin 30^{\\circ}", 0.5),
        ("\\tan^{-1} 1", math.pi / 4),
        ("\\log_2 8", 3.0),
        ("\\ln e^x", 3.0),
        ("\\max(1,x,2)", 3.0),
        ("\\sum_{k=1}^{10} k^2", 385.0),
        ("\\prod_{k=1}^{5} k", 120.0),
        ("50%", 0.5),
        (".5x", 1.5),
        ("1,234+1", 1235.0),
    ],
)
def test_values(text, expected):
    found = value(text, x=3)
    assert abs(found - acb(expected)) < arb("1e-12"), found


@pytest.mark.parametrize(
    "text",
    [
        "1/0",
        "\\ln 0",
        "\\sqrt{-x}",
        "\\ln(-x)",
        "\\arcsin x",
        "0^{-1}",
        "(-x)^{1/2}",
        "9^{9^{9^{9^9}}}",
        "\\tan\\frac{\\pi}{2}",
    ],
)
def test_no_value(text):
    with pytest.raises(Undefined):
        value(text, x=3)


def test_a_root_of_a_product_needs_factors_that_are_not_negative():
    assert value("\\sqrt{xy}", x=2, y=8).overlaps(acb(4))
    with pytest.raises(Undefined):
        value("\\sqrt{xy}", x=-2, y=-8)
    assert value("\\sqrt{x^2}", x=-2).overlaps(acb(2))


def test_bounds_hold_the_exact_value():
    coarse, fine = value("\\sqrt{2}+\\pi^{20}", precision=64), value("\\sqrt{2}+\\pi^{20}", precision=400)
    assert coarse.overlaps(fine)
    assert coarse.rel_accuracy_bits() < 80 < 300 < fine.rel_accuracy_bits()


def test_unknown_functions_follow_from_their_arguments():
    assert value("f(x+1)", x=3).overlaps(value("f(1+x)", x=3))
    assert not value("f(x)", x=3).overlaps(value("f'(x)", x=3))
    assert value("A\\cup B").overlaps(value("B\\cup A"))
    assert not value("A\\setminus B").overlaps(value("B\\setminus A"))


@pytest.mark.parametrize("text", ["", "1 2", "x+", "\\frac{1}", "(x", "x)", "{x", "|x", "^2", "\\begin{pmatrix}1"])
def test_unreadable(text):
    assert parse(text) is None


def test_free_symbols():
    found = parse("\\sum_{k=1}^{n} a_k x^k + e^{i\\pi}")
    assert symbols(found.parts[0]) == {"n", "a_k", "x"}
