"""Numbers with a bound of their error: exact fractions, and balls."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from typing import Any

from flint import acb, arb, fmpq, fmpz

from rewards.math_grader.expressions.nodes import INFINITY

EXACT_BITS = 20_000
"""Size of numerator and denominator up to which rational numbers are computed exactly."""
MAX_TERMS = 1_000
"""Terms of a sum or product that are added up; a longer one is compared, not computed."""
KEY_DIGITS = 20
"""Significant digits by which arguments of unknown functions are told apart."""

Value = Any
"""An exact `fmpq`, or a ball `acb`."""


class Undefined(Exception):
    """The expression has no value here: a pole, a root of a negative number, or a number beyond all bounds."""


def _double_factorial(number: int) -> int | None:
    return math.prod(range(number, 0, -2)) if -1 <= number <= MAX_TERMS else None


FUNCTIONS: dict[str, Callable[[acb], acb]] = {
    "sin": acb.sin, "cos": acb.cos, "tan": acb.tan, "cot": acb.cot, "sec": acb.sec, "csc": acb.csc,
    "arcsin": acb.asin, "arccos": acb.acos, "arctan": acb.atan, "sinh": acb.sinh, "cosh": acb.cosh,
    "tanh": acb.tanh, "coth": acb.coth, "arsinh": acb.asinh, "arcosh": acb.acosh, "artanh": acb.atanh, "exp": acb.exp,
    "cis": lambda angle: (angle * acb(0, 1)).exp(),
}  # fmt: skip
OF_INTEGERS: dict[str, Callable[..., int | None]] = {"gcd": math.gcd, "lcm": math.lcm, "!!": _double_factorial}
"""Functions of integers; None where a value is not computed."""


def ball(value: Value) -> acb:
    return acb(value) if isinstance(value, fmpq) else value


def binary(left: Value, right: Value, operator: str) -> Value:
    if not (isinstance(left, fmpq) and isinstance(right, fmpq)):
        left, right = ball(left), ball(right)
    if operator == "+":
        return left + right
    if operator == "-":
        return left - right
    return left * right if operator == "*" else left / right


def integer_power(base: Value, exponent: fmpz) -> Value:
    if contains_zero(base) and exponent <= 0:
        if exponent == 0 and not is_zero(base):
            raise Undefined
        if exponent < 0:
            raise Undefined
        return fmpq(1)
    if isinstance(base, fmpq):
        if base in (fmpq(0), fmpq(1)):
            return base
        if base == fmpq(-1):
            return fmpq(-1) if int(exponent) % 2 else fmpq(1)
        bits = max(base.p.bit_length(), base.q.bit_length())
        if bits * abs(int(exponent)) <= EXACT_BITS:
            return base ** int(exponent)
    return ball(base).pow(acb(exponent))


def extreme(balls: list[acb], function: Callable[[acb, acb], acb]) -> acb:
    if not balls:
        raise Undefined
    found = balls[0]
    for ball in balls[1:]:
        found = function(found, ball)
    return found


def is_zero(value: Value) -> bool:
    return value == fmpq(0) if isinstance(value, fmpq) else value.is_zero()


def contains_zero(value: Value) -> bool:
    return value == fmpq(0) if isinstance(value, fmpq) else value.contains(acb(0))


def negative(value: Value) -> bool:
    return value < 0 if isinstance(value, fmpq) else value.imag.is_zero() and bool(value.real < 0)


def positive(value: Value) -> bool:
    return value > 0 if isinstance(value, fmpq) else value.imag.is_zero() and bool(value.real > 0)


def within_one(value: acb) -> bool:
    return value.imag.is_zero() and bool(abs(value.real) <= 1)


def key(value: Value) -> str:
    """A text by which equal values are recognized."""
    found = ball(value)
    parts = [found.real, found.imag]
    return ",".join("0" if part.contains(arb(0)) else part.mid().str(KEY_DIGITS, radius=False) for part in parts)


def in_domain(op: str, argument: Value) -> bool:
    """Whether a function has a real value there."""
    if op == "arcosh":
        return positive(binary(argument, fmpq(1), "-")) or argument == fmpq(1)
    return op not in ("arcsin", "arccos", "artanh") or within_one(ball(argument))


def is_integer(value: Value) -> bool:
    return isinstance(value, fmpq) and value.q == 1


def holds(left: Value, relation: str, right: Value) -> bool:
    """Whether a relation holds between two real numbers. Raises Undefined where that is not known."""
    difference = binary(left, right, "-")
    sign = 1 if positive(difference) else -1 if negative(difference) else 0
    if relation not in _SIGNS or (sign == 0 and not is_zero(difference)):
        raise Undefined
    return sign in _SIGNS[relation]


_SIGNS = {"<": (-1,), ">": (1,), "\\le": (-1, 0), "\\ge": (0, 1), "=": (0,), "\\ne": (-1, 1)}
"""The signs of a difference with which a relation holds."""


def random_value(*names: str) -> fmpq:
    """A number between 1 and 2 that follows from the names alone. Raises Undefined for infinity, which is no number:
    infinity minus infinity is not 0."""
    if names == (INFINITY,):
        raise Undefined
    digest = hashlib.blake2b("\0".join(names).encode(), digest_size=6).digest()
    return fmpq(2**48 + int.from_bytes(digest, "big"), 2**48)
