"""Evaluates expression trees in ball arithmetic: every value comes with a bound of its error.

The work is bounded by construction: exact numbers are kept up to `EXACT_BITS`, everything else to `precision` bits
however large it is, and a tree may take `MAX_STEPS` operations. A value beyond that raises `Undefined`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import flint
from flint import acb, fmpq

from rewards.math_grader.expressions.balls import (
    EXACT_BITS,
    FUNCTIONS,
    MAX_TERMS,
    OF_INTEGERS,
    Undefined,
    Value,
    ball,
    binary,
    contains_zero,
    extreme,
    holds,
    in_domain,
    integer_power,
    is_integer,
    is_zero,
    key,
    negative,
    positive,
    random_value,
)
from rewards.math_grader.expressions.nodes import Node, compared, factors_of, is_tower, symbols

MAX_STEPS = 20_000
"""Number of operations for one value, sums with all their terms included."""

_UNORDERED = {"\\{\\}", "\\cup", "\\cap", "gcd", "lcm"}


class Evaluation:
    """Values of trees at one point.

    point: the values of the free symbols. real: roots and logarithms of negative numbers are undefined. precision: bits
    of the balls. log_base: of a logarithm without a base; None is e."""

    def __init__(
        self, point: Mapping[str, fmpq], *, real: bool, precision: int = 128, log_base: int | None = None
    ) -> None:
        self.point, self.real, self.precision, self.log_base = dict(point), real, precision, log_base
        self.steps = 0
        self.unfolded: set[str] = set()
        """The bound symbols of the sums on the way that are not added up."""
        self.largest = 0
        """The largest magnitude of any value on the way, as the absolute value of its binary exponent."""

    def __call__(self, node: Node) -> acb:
        """The value as a ball. Raises Undefined."""
        flint.ctx.prec = self.precision
        try:
            return ball(self.value(node))
        except (OverflowError, ValueError, ZeroDivisionError) as error:  # flint's own limits
            raise Undefined from error

    def value(self, node: Node) -> Value:
        self.steps += 1
        if self.steps > MAX_STEPS:
            raise Undefined
        found = self._value(node)
        if not isinstance(found, fmpq):
            if not found.is_finite():
                raise Undefined
            if not found.is_zero():
                self._measure(found)
        elif max(found.p.bit_length(), found.q.bit_length()) > EXACT_BITS:
            found = ball(found)
            self._measure(found)
        else:
            self.largest = max(self.largest, abs(int(found.p.bit_length()) - int(found.q.bit_length())))
        return found

    def _measure(self, found: acb) -> None:
        exponent = found.abs_upper().mid().man_exp()
        if exponent[0]:
            size = int(exponent[1]) + int(exponent[0].bit_length())
            if size < 0 and contains_zero(found):
                return  # maybe zero: more bits would only make it smaller
            self.largest = max(self.largest, abs(size))

    def _value(self, node: Node) -> Value:
        op, args = node.op, node.args
        method = getattr(self, f"_{op}", None)
        if method is not None:
            return method(node)
        if op in FUNCTIONS:
            argument = self.value(args[0])
            if self.real and not in_domain(op, argument):
                raise Undefined
            return FUNCTIONS[op](ball(argument))
        return self._apply(node)

    # --- arithmetic ---------------------------------------------------------------------------------------------------

    def _number(self, node: Node) -> Value:
        whole, _, decimals = node.name.partition(".")
        return fmpq(int((whole or "0") + decimals), 10 ** len(decimals))

    def _symbol(self, node: Node) -> Value:
        name = node.name
        if name in self.point:
            return self.point[name]
        if name == "\\pi":
            return acb.pi()
        if name == "e":
            return acb(1).exp()
        if name == "i":
            return acb(0, 1)
        return random_value(name)

    def _degree(self, node: Node) -> Value:
        return acb.pi() / 180

    def _add(self, node: Node) -> Value:
        total: Value = fmpq(0)
        for arg in node.args:
            total = binary(total, self.value(arg), "+")
        return total

    def _neg(self, node: Node) -> Value:
        return -self.value(node.args[0])

    def _mul(self, node: Node) -> Value:
        result: Value = fmpq(1)
        for arg in node.args:
            result = binary(result, self.value(arg), "*")
        return result

    def _div(self, node: Node) -> Value:
        above, below = self.value(node.args[0]), self.value(node.args[1])
        if contains_zero(below):
            raise Undefined
        return binary(above, below, "/")

    def _pow(self, node: Node) -> Value:
        base = self.value(node.args[0])
        if base in (fmpq(0), fmpq(1)) and is_tower(node.args[1]):
            return base
        exponent = self.value(node.args[1])
        if isinstance(exponent, fmpq) and exponent.q == 1:
            return integer_power(base, exponent.p)
        if contains_zero(base):
            if is_zero(base) and positive(exponent):
                return fmpq(0)
            raise Undefined
        if self.real:
            if isinstance(exponent, fmpq) and exponent.q % 2 == 1 and negative(base) and not symbols(node.args[1]):
                root = (ball(exponent) * (-ball(base)).log()).exp()
                return -root if exponent.p % 2 == 1 else root
            self._check_sign(node.args[0], base)
        if isinstance(exponent, fmpq) and exponent.q == 2 and exponent.p == 1:
            return ball(base).sqrt()
        return (ball(exponent) * ball(base).log()).exp()

    def _root(self, node: Node) -> Value:
        radicand, index = self.value(node.args[0]), self.value(node.args[1])
        if not isinstance(index, fmpq) or index.q != 1 or index.p < 1:
            raise Undefined
        if is_zero(radicand):
            return fmpq(0)
        odd = int(index.p) % 2 == 1
        if odd and negative(radicand):
            return -((-ball(radicand)).log() / ball(index)).exp()
        if self.real and not odd:
            self._check_sign(node.args[0], radicand)
        if index.p == 2:
            return ball(radicand).sqrt()
        return (ball(radicand).log() / ball(index)).exp()

    def _check_sign(self, node: Node, value: Value) -> None:
        """Roots and logarithms of negative numbers are undefined, and those of a product where a factor is negative:
        nobody means the root of k/m where both are negative."""
        if not positive(value):
            raise Undefined
        factors = factors_of(node)
        if len(factors) > 1:
            for factor in factors:
                if symbols(factor) and negative(self.value(factor)):
                    raise Undefined

    def _abs(self, node: Node) -> Value:
        inner = node.args[0]
        while inner.op == "neg":
            inner = inner.args[0]
        value = self.value(inner)
        if inner.op == "apply":  # the values of unknown functions are positive only here
            return random_value("abs", key(binary(value, value, "*")))
        if isinstance(value, fmpq):
            return abs(value)
        return acb(abs(value))

    def _ln(self, node: Node) -> Value:
        return self._logarithm(node.args[0])

    def _lg(self, node: Node) -> Value:
        return self._logarithm(node.args[0]) / acb(10).log()

    def _log(self, node: Node) -> Value:
        if len(node.args) == 2:
            below = self._logarithm(node.args[1])
        elif self.log_base is not None:
            below = acb(self.log_base).log()
        else:
            return self._logarithm(node.args[0])
        if contains_zero(below):
            raise Undefined
        return self._logarithm(node.args[0]) / below

    def _logarithm(self, node: Node) -> acb:
        value = self.value(node)
        if contains_zero(value):
            raise Undefined
        if self.real:
            self._check_sign(node, value)
        return ball(value).log()

    def _factorial(self, node: Node) -> Value:
        value = self.value(node.args[0])
        if isinstance(value, fmpq) and value.q == 1 and 0 <= value.p < MAX_TERMS:
            return fmpq(math.factorial(int(value.p)))
        return (ball(value) + 1).gamma()

    def _binom(self, node: Node) -> Value:
        upper, lower = self.value(node.args[0]), self.value(node.args[1])
        if isinstance(lower, fmpq) and lower.q == 1 and 0 <= lower.p <= MAX_TERMS:
            result: Value = fmpq(1)
            for step in range(int(lower.p)):
                result = binary(result, binary(upper, fmpq(step), "-"), "*")
                result = binary(result, fmpq(step + 1), "/")
                if isinstance(result, fmpq) and result.p.bit_length() > EXACT_BITS:
                    result = ball(result)
            return result
        above, below = ball(upper), ball(lower)
        return (above + 1).gamma() * (below + 1).rgamma() * (above - below + 1).rgamma()

    def _floor(self, node: Node) -> Value:
        return self._rounded(node, acb.real_floor)

    def _ceil(self, node: Node) -> Value:
        return self._rounded(node, acb.real_ceil)

    def _rounded(self, node: Node, function: Callable[[acb], acb]) -> Value:
        found = function(ball(self.value(node.args[0]))).real.unique_fmpz()
        if found is None:
            raise Undefined
        return fmpq(found)

    def _min(self, node: Node) -> Value:
        return extreme([ball(self.value(arg)) for arg in node.args], acb.real_min)

    def _max(self, node: Node) -> Value:
        return extreme([ball(self.value(arg)) for arg in node.args], acb.real_max)

    def _cases(self, node: Node) -> Value:
        """The value of the first case whose condition holds."""
        for value, condition in zip(node.args[::2], node.args[1::2], strict=True):
            if condition.op == "otherwise" or self._holds(condition):
                return self.value(value)
        raise Undefined

    def _holds(self, condition: Node) -> bool:
        relations = condition.name.split()
        if condition.op != "apply" or len(condition.args) != len(relations) + 1:
            raise Undefined
        values = [self.value(arg) for arg in condition.args]
        return all(map(holds, values, relations, values[1:]))

    # --- what is compared, not computed -------------------------------------------------------------------------------

    def _sum(self, node: Node) -> Value:
        return self._folded(node, "+", fmpq(0))

    def _prod(self, node: Node) -> Value:
        return self._folded(node, "*", fmpq(1))

    def _folded(self, node: Node, operator: str, total: Value) -> Value:
        """Adds up a sum with few terms."""
        lower, upper, body = node.args
        ends = [self.value(compared(lower)), self.value(compared(upper))]
        outer = self.point.get(node.name)
        terms = int(ends[1].p - ends[0].p) + 1 if all(map(is_integer, ends)) else None
        if terms is None and any(symbols(end) & (self.point.keys() - self.unfolded) for end in (lower, upper)):
            raise Undefined  # a number of terms that is no integer
        try:
            if terms is not None and 0 <= terms <= MAX_TERMS:
                for step in range(terms):
                    self.point[node.name] = ends[0] + step
                    total = binary(total, self.value(body), operator)
                return total
            self.point[node.name] = random_value("bound")
            self.unfolded.add(node.name)
            return random_value(node.op, *map(key, (*ends, self.value(body))))
        finally:
            self.unfolded.discard(node.name)
            if outer is None:
                self.point.pop(node.name, None)
            else:
                self.point[node.name] = outer

    def _apply(self, node: Node) -> Value:
        """An unknown function: a number that follows from its name and the values of its arguments."""
        values = [self.value(compared(arg)) for arg in node.args]
        if node.name in OF_INTEGERS and all(map(is_integer, values)):
            found = OF_INTEGERS[node.name](*(int(value.p) for value in values))
            if found is not None:
                return fmpq(found)
        keys = [key(value) for value in values]
        return random_value(node.name or node.op, *(sorted(keys) if node.name in _UNORDERED else keys))
