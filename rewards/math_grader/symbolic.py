"""Compares two statements: expressions as numbers or at random points, equations and inequalities by their difference.

Nothing is simplified. Two expressions are equal if their balls overlap at every point, at a precision that exceeds the
magnitude of every number on the way."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from fractions import Fraction

from flint import acb, fmpq

from rewards.math_grader.expressions.balls import Undefined
from rewards.math_grader.expressions.evaluation import Evaluation
from rewards.math_grader.expressions.nodes import Node, Statement, boundaries, has_kinks, symbols
from rewards.math_grader.expressions.parser import parse
from rewards.math_grader.normalize import number
from rewards.math_grader.policy import MathPolicy
from rewards.math_grader.values import rounds_to

FIRST_PRECISION = 128
"""Bits at which two values are told apart first."""
MOST_PRECISION = 4_000_000
"""Bits beyond which two values that still overlap count as different."""
SPARE_BITS = 96
"""Bits beyond the magnitudes of all numbers on the way, at which equal values must still overlap."""
DIGITS_BITS = 64
"""Bits to which a value must be known to be a number."""
PROBES = 18
"""Points at which two expressions with symbols are compared."""
AGREEMENTS = 6
"""Minimum number of points at which both must be defined."""
RANGES = ((-3, 3), (0, 1), (1, 9))
"""Ranges of the points, used in turn: both signs, where arcsin is real, and where the square root of x - 1 is real."""
DENOMINATOR = 997
"""Denominator of every coordinate. A prime, so that no point is a typical pole, zero or kink: n, n/2, n/3, ..."""
INTEGERS = 12
"""Upper end of the integers that are tried for expressions that only integers define, such as (-1)^n."""


def readable(text: str) -> bool:
    """Whether a normalized answer is within the grammar."""
    return parse(text) is not None


def equal(gold_text: str, answer_text: str, policy: MathPolicy) -> bool:
    """Whether two statements are equal. What cannot be read equals nothing."""
    gold, answer = parse(gold_text), parse(answer_text)
    if gold is None or answer is None:
        return False
    comparison = _Comparison(gold_text, answer_text, policy)
    return any(comparison.statements(gold, answer, base) for base in _log_bases(gold_text + answer_text))


def approximate(text: str) -> Fraction | None:
    """The value of a normalized answer that is a real number, to 30 digits; None if it is none."""
    found = parse(text)
    if found is None or found.relations or symbols(found.parts[0]):
        return None
    precision = FIRST_PRECISION
    while precision <= MOST_PRECISION:
        evaluation = Evaluation({}, real=False, precision=precision)
        try:
            value = evaluation(found.parts[0])
        except Undefined:
            return None
        if not value.imag.contains(0):
            return None
        if value.real.rel_accuracy_bits() >= DIGITS_BITS:
            return Fraction(value.real.mid().str(30, radius=False))
        needed = evaluation.largest + SPARE_BITS
        if precision >= needed:
            return Fraction(0) if value.real.contains(0) else None  # as `agree` decides what is equal
        precision = needed
    return None


def _log_bases(text: str) -> tuple[int | None, ...]:
    """A logarithm without a base has the same base on both sides: e, or 10."""
    return (None, 10) if "\\log" in text else (None,)


class _Comparison:
    def __init__(self, gold_text: str, answer_text: str, policy: MathPolicy) -> None:
        self.gold_text, self.policy = gold_text, policy
        self.tolerance = fmpq(0)
        if "." in gold_text + answer_text:
            tolerance = Fraction(str(policy.relative_tolerance))
            self.tolerance = fmpq(tolerance.numerator, tolerance.denominator)
        self.log_base: int | None = None
        self.apart = False
        """Whether two sides were equal where both are defined, and one is defined elsewhere, too."""

    def statements(self, gold: Statement, answer: Statement, log_base: int | None) -> bool:
        self.log_base = log_base
        gold, answer = _same_constant(gold, answer)
        if not gold.relations and not answer.relations:
            return self.expressions(gold.parts[0], answer.parts[0])
        mirrored = answer.flipped()
        for other in (answer, *([mirrored] if mirrored else [])):
            if other.relations == gold.relations:
                if all(map(self.expressions, gold.parts, other.parts)):
                    return True
                if self.apart:  # `y = \\ln(x^2)` and `y = 2 \\ln x`
                    return False
                if len(gold.relations) == 1 and self.differences(gold, other):
                    return True
        return False

    # --- expressions --------------------------------------------------------------------------------------------------

    def expressions(self, gold: Node, answer: Node) -> bool:
        if gold == answer:
            return True
        names = symbols(gold)
        if names != symbols(answer):
            return False
        if not names:
            same = self.agree(gold, answer, {}, real=False)
            return same is True or (same is None and self.congruent(gold, answer))
        for points, real in ((_points(names), True), (_integers(names), True), (_points(names), False)):
            agreed = 0
            apart = any(self.breaks(gold, answer, point) for point in self.boundaries(names, gold, answer))
            for point in points:
                same = self.agree(gold, answer, point, real=real)
                if same is False:
                    return False
                agreed += same is True
                apart |= same is None and real and self.breaks(gold, answer, point)
            if agreed >= AGREEMENTS:
                self.apart |= apart
                return not apart
        return False

    def congruent(self, gold: Node, answer: Node) -> bool:
        """Whether two numbers that are too large to be computed are built in the same way from equal parts."""
        alike = gold.args and (gold.op, gold.name, len(gold.args)) == (answer.op, answer.name, len(answer.args))
        return bool(alike) and all(map(self.expressions, gold.args, answer.args))

    def breaks(self, gold: Node, answer: Node, point: Mapping[str, fmpq]) -> bool:
        """Whether the answer differs from the gold at a point where the gold has a real value. One without a real value
        differs if one of the two is in cases, or if it has another complex value: 2 ln x for ln(x^2) where x is
        negative."""
        same = self.agree(gold, answer, point, real=True)
        if same is not None or not self.defined(gold, point) or self.defined(answer, point):
            return same is False
        return bool(boundaries(gold) or boundaries(answer)) or self.agree(gold, answer, point, real=False) is False

    def defined(self, node: Node, point: Mapping[str, fmpq]) -> bool:
        try:
            self.evaluation(point, True, FIRST_PRECISION)(node)
        except Undefined:
            return False
        return True

    def boundaries(self, names: frozenset[str], *sides: Node) -> Iterator[dict[str, fmpq]]:
        """Points at which one case gives way to another."""
        for name, end in (pair for side in sides for pair in boundaries(side)):
            try:
                value = self.evaluation({}, True, FIRST_PRECISION).value(end)
            except Undefined:
                continue
            if isinstance(value, fmpq) and name in names:
                yield {**next(_points(names)), name: value}

    def agree(self, gold: Node, answer: Node, point: Mapping[str, fmpq], *, real: bool) -> bool | None:
        """Whether both have the same value at a point; None if one of them is undefined there, or too large."""
        precision = FIRST_PRECISION
        while True:
            left = self.evaluation(point, real, precision)
            right = self.evaluation(point, real, precision)
            try:
                values = left(gold), right(answer)
            except Undefined:
                return None
            if not values[0].overlaps(values[1]):
                return self.close(*values)
            needed = max(left.largest, right.largest) + SPARE_BITS
            if precision >= needed:
                return True
            if needed > MOST_PRECISION:
                return None
            precision = needed

    def evaluation(self, point: Mapping[str, fmpq], real: bool, precision: int) -> Evaluation:
        return Evaluation(point, real=real, precision=precision, log_base=self.log_base)

    def close(self, gold: acb, answer: acb) -> bool:
        """Whether two different values are close enough: within the tolerance if one is a decimal, or as the gold is
        rounded."""
        if self.tolerance > 0:
            scale = max(gold.abs_upper(), answer.abs_upper())
            if abs(gold - answer) <= self.tolerance * scale:
                return True
        printed = self.policy.rounding == "gold" and number(self.gold_text) is not None
        if not printed or not answer.imag.contains(0):
            return False
        return rounds_to(Fraction(answer.real.mid().str(30, radius=False)), self.gold_text)

    # --- equations and inequalities -----------------------------------------------------------------------------------

    def differences(self, gold: Statement, answer: Statement) -> bool:
        """Whether both sides' differences are the same up to a factor, which is positive for an inequality; or, for
        equations, whether they have the same solutions as one of them is solved for a symbol."""
        relation = gold.relations[0]
        if relation not in ("=", "<", ">", "\\le", "\\ge", "\\ne"):
            return False
        left, right = (Node("add", (side.parts[0], Node("neg", (side.parts[1],)))) for side in (gold, answer))
        names = symbols(left)
        if not names or names != symbols(right):
            return False
        if self.proportional(left, right, names, positive=relation not in ("=", "\\ne")):
            return True
        if relation != "=":
            return False
        return self.solved(gold, right, names) or self.solved(answer, left, names)

    def proportional(self, left: Node, right: Node, names: frozenset[str], *, positive: bool) -> bool:
        ratio: acb | None = None
        agreed = 0
        for point in _points(names):
            try:
                values = (
                    self.evaluation(point, True, FIRST_PRECISION)(left),
                    self.evaluation(point, True, FIRST_PRECISION)(right),
                )
            except Undefined:
                continue
            if values[0].contains(0) or values[1].contains(0):
                if not (values[0].contains(0) and values[1].contains(0)):
                    return False
                continue
            found = values[0] / values[1]
            if ratio is None:
                ratio = found
                if positive and not (found.imag.contains(0) and found.real > 0):
                    return False
            if not ratio.overlaps(found) and not self.close(ratio, found):
                return False
            agreed += 1
        return agreed >= AGREEMENTS

    def solved(self, explicit: Statement, difference: Node, names: frozenset[str]) -> bool:
        """Whether `y = h(x)` solves the other equation, which is linear in y, so that there is no other solution."""
        name, value = explicit.parts
        if name.op != "symbol" or name.name in symbols(value) or name.name not in names:
            return False
        if has_kinks(difference, name.name):  # |y| is linear in y only piece by piece
            return False
        agreed = 0
        for point in _points(names):
            try:
                at = self.evaluation(point, True, FIRST_PRECISION)(value)
                found = [
                    self.evaluation({**point, name.name: shift}, True, FIRST_PRECISION)(difference)
                    for shift in (fmpq(1), fmpq(2), fmpq(4))
                ]
            except Undefined:
                continue
            slope = found[1] - found[0]
            if slope.contains(0) or not (found[2] - found[1] - 2 * slope).contains(0):
                return False
            if not (found[0] + slope * (at - 1)).contains(0):
                return False
            agreed += 1
        return agreed >= AGREEMENTS


def _points(names: frozenset[str]) -> Iterator[dict[str, fmpq]]:
    rng = random.Random(0)  # a fixed seed, so that a pair is always compared at the same points
    for probe in range(PROBES):
        low, high = (end * DENOMINATOR for end in RANGES[probe % len(RANGES)])
        yield {name: fmpq(rng.randint(low + 1, high - 1), DENOMINATOR) for name in sorted(names)}


def _integers(names: frozenset[str]) -> Iterator[dict[str, fmpq]]:
    rng = random.Random(0)
    for _ in range(PROBES):
        yield {name: fmpq(rng.randint(1, INTEGERS)) for name in sorted(names)}


def _same_constant(gold: Statement, answer: Statement) -> tuple[Statement, Statement]:
    """A constant of integration may be written C or c."""
    names = [frozenset().union(*map(symbols, side.parts)) for side in (gold, answer)]
    for one, other in (("C", "c"), ("c", "C")):
        if one in names[0] and one not in names[1] and other in names[1] and other not in names[0]:
            return gold, Statement(answer.relations, tuple(_renamed(part, other, one) for part in answer.parts))
    return gold, answer


def _renamed(node: Node, old: str, new: str) -> Node:
    if node == Node("symbol", name=old):
        return Node("symbol", name=new)
    return Node(node.op, tuple(_renamed(arg, old, new) for arg in node.args), node.name)
