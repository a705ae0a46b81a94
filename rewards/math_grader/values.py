"""Compares single values: numbers, units, percentages, ratios, bases. Results have three values: see `compare`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from fractions import Fraction

from rewards.math_grader.normalize import based, canonical, integer, is_words, number
from rewards.math_grader.policy import MathPolicy
from rewards.math_grader.structure import split_top, unwrap
from rewards.math_grader.units import contradict, is_measure, split_unit

Leaf = Callable[[str, str, MathPolicy], bool | None]
"""(gold, answer, policy) -> whether they are equal, or None. Decides what strings and plain numbers cannot."""

_NUMERIC_COMMANDS = re.compile(
    r"\\(?:frac|sqrt|pi|cdot|times|div|circ|left|right|text\s*\{[^{}]*\}|mathrm\s*\{[^{}]*\})(?![a-zA-Z])"
)
_ARITHMETIC = re.compile(
    r"(?<=[\d)}!%])\s*[+*]|(?<=[\d)}!%])\s*-|\\cdot(?![a-zA-Z])|\\times(?![a-zA-Z])|\\div(?![a-zA-Z])|!|\||"
    r"\\(?:[dt]?binom|log|ln|sin|cos|tan|cot|sec|csc|arcsin|arccos|arctan|max|min|lfloor|lceil|gcd|lcm|bmod|mod)(?![a-zA-Z])|"
    r"(?<=\))\s*\(|(?<=\d)\s*\(|(?<=[\d)}])\s*/\s*\("
)
_IRRATIONAL = re.compile(r"\\(?:sqrt|pi)(?![a-zA-Z])|(?<![a-zA-Z\\])e(?![a-zA-Z])")
_SCIENTIFIC = re.compile(r"-?[\d.,]+\s*(?:\\cdot|\\times)\s*10\s*\^\s*(?:\{[^{}]*\}|\d)")


def every(values: Iterable[bool | None]) -> bool | None:
    """Three-valued `all`; stops at the first False."""
    unknown = False
    for value in values:
        if value is False:
            return False
        unknown |= value is None
    return None if unknown else True


def some(values: Iterable[bool | None]) -> bool | None:
    """Three-valued `any`; stops at the first True."""
    unknown = False
    for value in values:
        if value:
            return True
        unknown |= value is None
    return None if unknown else False


class Values:
    """Compares values, with one policy and one leaf."""

    def __init__(self, policy: MathPolicy, leaf: Leaf) -> None:
        self.policy, self.leaf = policy, leaf

    def ask(self, gold: str, answer: str) -> bool | None:
        if not self.policy.mixed_numbers:
            gold, answer = (re.sub(r"(?<=\d)\s*(?=\\frac)", r" \\cdot ", text) for text in (gold, answer))
        return self.leaf(gold, answer, self.policy)

    def value(self, gold: str, answer: str) -> bool | None:
        """Whether two single values are equal."""
        if canonical(gold) == canonical(answer):
            return True
        bases = based(gold), based(answer)
        if any(bases):
            return bases[0] == bases[1] or (
                self.policy.bases == "ignore" and bases[0] is not None and bases[0][0] == answer
            )
        ratio = self.ratio(gold, answer)
        if ratio is not None:
            return ratio[0]
        (gold_value, gold_unit), (value, unit) = split_unit(gold), split_unit(answer)
        policy = self.policy
        if policy.units != "ignore" and contradict(gold_unit, unit):
            return False
        if policy.units == "require" and is_measure(gold_unit) and gold_unit != unit:
            return False
        turned = self.degrees(gold_value, gold_unit, value, unit)
        if turned is not None:
            return turned[0]
        return self.plain(gold_value, value)

    def plain(self, gold: str, answer: str) -> bool | None:
        """Whether two values without units are equal."""
        if canonical(gold) == canonical(answer):
            return True
        integers = integer(gold), integer(answer)
        if None not in integers:
            return integers[0] == integers[1]
        gold_number, answer_number = (number(text, mixed=self.policy.mixed_numbers) for text in (gold, answer))
        if gold_number and answer_number:
            return self.numbers(gold, gold_number, answer_number)
        if self.policy.percent == "either" and gold.endswith("%") != answer.endswith("%"):
            return some([self.plain_values(gold, answer), self.plain(gold.rstrip("% "), answer.rstrip("% "))])
        if gold_number and self.policy.evaluated and unfinished(answer, exact=gold_number[1]):
            return False
        return self.plain_values(gold, answer)

    def plain_values(self, gold: str, answer: str) -> bool | None:
        if is_words(gold) or is_words(answer):
            return False
        return self.ask(gold, answer)

    def numbers(self, text: str, gold: tuple[Fraction, bool], answer: tuple[Fraction, bool]) -> bool:
        (left, left_exact), (right, right_exact) = gold, answer
        if left == right:
            return True
        if self.policy.percent == "either" and (left == 100 * right or 100 * left == right):
            return True
        if self.policy.rounding == "gold" and not left_exact and rounds_to(right, text):
            return True
        if left_exact and right_exact:
            return False
        tolerance = Fraction(str(self.policy.relative_tolerance))
        return abs(left - right) <= tolerance * max(abs(left), abs(right))

    def ratio(self, gold: str, answer: str) -> tuple[bool | None] | None:
        """Compare ratios `a:b:c`; the result is wrapped in a tuple. None if neither is a ratio."""
        sides = [split_top(text, {":"}) for text in (gold, answer)]
        if max(map(len, sides)) == 1 or not all(all(side) for side in sides):
            return None
        if len(sides[0]) == len(sides[1]):
            (first, *rest), (other, *others) = sides
            pairs = zip(rest, others, strict=True)
            return (every(self.value(f"\\frac{{{first}}}{{{a}}}", f"\\frac{{{other}}}{{{b}}}") for a, b in pairs),)
        whole, parts = (0, sides[1]) if len(sides[0]) == 1 else (1, sides[0])
        if {len(side) for side in sides} != {1, 2} or self.policy.ratios == "strict" or integer(sides[whole][0]):
            return (False,)
        fraction = f"\\frac{{{parts[0]}}}{{{parts[1]}}}"
        return (self.plain(fraction, sides[0][0]) if whole == 0 else self.plain(fraction, sides[1][0]),)

    def degrees(self, gold: str, gold_unit, answer: str, unit) -> tuple[bool | None] | None:
        """Compare degrees with radians; the result is wrapped in a tuple. None if it is not such a pair."""
        turned = (gold_unit == ("degree",)) != (unit == ("degree",))
        if not turned or not self.policy.degrees:
            return None
        if gold_unit == ("degree",) and "\\pi" in answer:
            return (self.ask(f"\\frac{{({gold})\\pi}}{{180}}", answer),)
        if unit == ("degree",) and "\\pi" in gold:
            return (self.ask(gold, f"\\frac{{({answer})\\pi}}{{180}}"),)
        return None


def unfinished(answer: str, *, exact: bool) -> bool:
    """Whether an answer that should be a number contains unevaluated arithmetic: `5+7`, `\\binom{5}{2}`, `\\log_2 8`.
    If the gold is a decimal (not `exact`), irrational expressions such as `5+2\\sqrt{3}` are accepted."""
    text = _SCIENTIFIC.sub("1", unwrap(answer).lstrip("+- "))
    return bool(_ARITHMETIC.search(text)) and (exact or not _IRRATIONAL.search(text))


def is_numeric(text: str) -> bool:
    """Whether a text consists of numbers and arithmetic only, without symbols."""
    rest = _NUMERIC_COMMANDS.sub("", split_unit(text)[0])
    return bool(re.search(r"\d|\\pi", text)) and not re.search(r"[a-zA-Z\\<>]", rest)


def rounds_to(value: Fraction, printed: str) -> bool:
    """Whether `value` rounds to the printed decimal, to its number of decimal places."""
    found = re.search(r"\.(\d+)", printed)
    places = len(found.group(1)) if found else 0
    scale = 10**places * (100 if printed.rstrip().endswith("%") else 1)
    parsed = number(printed)
    assert parsed is not None, f"{printed!r} was read as a number before"
    return abs(value - parsed[0]) * scale <= Fraction(1, 2)
