"""The evaluation of LaTeX against sympy, which builds random expressions, writes them as LaTeX, and evaluates them."""

import random
from fractions import Fraction

import pytest
import sympy

from rewards.math_grader.normalize import normalize
from rewards.math_grader.symbolic import approximate

EXPRESSIONS = 40
"""For each seed."""
SMALLEST, LARGEST = sympy.Rational(1, 10**6), 10**6
"""Expressions whose absolute value is not between them are left out. A value of exactly 0 has no digits."""
DIGITS = 30


def leaf(draw: random.Random) -> sympy.Expr:
    return draw.choice([
        lambda: sympy.Integer(draw.randint(0, 12)),
        lambda: sympy.Rational(draw.randint(1, 9), draw.randint(2, 9)),
        lambda: sympy.pi,
        lambda: sympy.E,
        lambda: sympy.sqrt(draw.randint(2, 15)),
    ])()  # fmt: skip


def expression(draw: random.Random, depth: int) -> sympy.Expr:
    """A random real number. Nothing is evaluated, so that the form stays what was drawn."""
    if depth == 0:
        return leaf(draw)
    first, second = expression(draw, depth - 1), expression(draw, depth - 1)
    kind = draw.choice(["sum", "difference", "product", "quotient", "power", "root", "function", "logarithm"])
    with sympy.evaluate(False):
        match kind:
            case "sum":
                return first + second
            case "difference":
                return first - second
            case "product":
                return first * second
            case "quotient":
                return first / second
            case "power":
                return first ** sympy.Integer(draw.randint(2, 3))
            case "root":
                return sympy.Abs(first) ** sympy.Rational(1, draw.randint(2, 4))
            case "function":
                return draw.choice([sympy.sin, sympy.cos, sympy.atan, sympy.exp])(first)
            case _:
                return sympy.log(sympy.Abs(first) + sympy.Integer(1))


def value(expr: sympy.Expr) -> sympy.Expr | None:
    """The value to 40 digits; None where there is none, and where it is out of bounds."""
    found = sympy.N(expr, DIGITS + 10)
    return found if found.is_real and found.is_finite and SMALLEST < abs(found) < LARGEST else None


@pytest.mark.parametrize("seed", range(5))
def test_random_expressions_have_the_value_that_sympy_finds(seed):
    draw, compared = random.Random(seed), 0
    while compared < EXPRESSIONS:
        expr = expression(draw, draw.randint(1, 3))
        expected = value(expr)
        if expected is None:
            continue
        text = sympy.latex(expr, inv_trig_style="full")
        found = approximate(normalize(text))
        assert found is not None, text
        error = abs(sympy.Rational(found.numerator, found.denominator) - sympy.Rational(str(expected)))
        assert error <= Fraction(1, 10 ** (DIGITS - 8)) * max(1, abs(expected)), (text, found, expected)
        compared += 1
