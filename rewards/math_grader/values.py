"""Compares single values: numbers, units, percentages, ratios, bases. Results have three values: see `compare`."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction

from rewards.math_grader.brackets import split_top, unwrap
from rewards.math_grader.measures import Measure, compound, split_measure
from rewards.math_grader.normalize import based, canonical, clock, integer, is_24_hour, is_words, number
from rewards.math_grader.policy import MathPolicy
from rewards.vocabulary.units import Suffix, Unit, changes_value, same_unit

Leaf = Callable[[str, str, MathPolicy], bool | None]
"""(gold, answer, policy) -> whether they are equal, or None. Decides what strings and plain numbers cannot."""

Evaluate = Callable[[str], Fraction | None]
"""The value of a normalized answer that is a real number; None if it is none, or if only the parser knows."""

_NUMERIC_COMMANDS = re.compile(
    r"\\(?:frac|sqrt|pi|cdot|times|div|circ|left|right|text\s*\{[^{}]*\}|mathrm\s*\{[^{}]*\})(?![a-zA-Z])"
)
_ARITHMETIC = re.compile(
    r"(?<=[\d)}!%])\s*[+*]|(?<=[\d)}!%])\s*-|\\cdot(?![a-zA-Z])|\\times(?![a-zA-Z])|\\div(?![a-zA-Z])|!|\||"
    r"\\(?:[dt]?binom|log|ln|cis|sin|cos|tan|cot|sec|csc|arcsin|arccos|arctan|max|min|lfloor|lceil|gcd|lcm|bmod|mod)(?![a-zA-Z])|"
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

    def __init__(self, policy: MathPolicy, leaf: Leaf, evaluate: Evaluate) -> None:
        self.policy, self.leaf, self.evaluate = policy, leaf, evaluate

    def ask(self, gold: str, answer: str) -> bool | None:
        if not self.policy.mixed_numbers:
            gold, answer = (re.sub(r"(?<=\d)\s*(?=\\frac)", r" \\cdot ", text) for text in (gold, answer))
        return self.leaf(gold, answer, self.policy)

    def value(self, gold: str, answer: str) -> bool | None:
        """Whether two single values are equal."""
        if canonical(gold) == canonical(answer):
            return True
        gold, answer = _without_base_ten(gold), _without_base_ten(answer)
        bases = based(gold), based(answer)
        if any(bases):
            return bases[0] == bases[1] or (
                self.policy.bases == "ignore" and bases[0] is not None and bases[0][0] == answer
            )
        times = clock(gold), clock(answer)
        if times[0] and times[1] and (times[0][2] or times[1][2] or _is_time(gold) or _is_time(answer)):
            same_digits = times[0][:2] == times[1][:2] and is_24_hour(gold)  # 6:40 for 06:40
            return same_digits or same_time(times[0], times[1])
        if times[0] and times[0][2] and not times[1]:
            return False  # the hour alone leaves the half of the day open
        ratio = self.ratio(gold, answer)
        if ratio is not None:
            return ratio[0]
        measured = self.measures(gold, answer)
        return self.plain(gold, answer) if measured is None else measured[0]

    # --- units --------------------------------------------------------------------------------------------------------

    def measures(self, gold: str, answer: str) -> tuple[bool | None] | None:
        """Compare values with units, multipliers or nouns; the result is wrapped in a tuple. None without any."""
        parts = compound(gold), compound(answer)
        if all(parts):
            return (self.totals(parts[0] or [], parts[1] or []),)
        if any(parts):
            side = 0 if parts[0] else 1
            other = split_measure((gold, answer)[1 - side], single=True)
            if other.suffix.unit is None or other.suffix.rest:
                return (False,)
            pair = (parts[side] or [], [other])
            return (self.totals(*(pair if side == 0 else pair[::-1])),)
        left = split_measure(gold, single=False)
        right = split_measure(answer, single=left.suffix.words and not left.plain or "text" in gold)
        if not left.suffix.words and right.suffix.unit is not None and not right.plain:
            left = split_measure(gold, single=True)
        if left.suffix == right.suffix == Suffix():
            return None
        return (self.measure(left, right),)

    def measure(self, gold: Measure, answer: Measure) -> bool | None:
        left, right = gold.suffix, answer.suffix
        turned = self.degrees(gold, answer)
        if turned is not None:
            return turned[0]
        if self.policy.units != "ignore" and not self.same_kind(left, right):
            return False
        scale = left.factor / right.factor
        return self.scaled(gold.value, answer.value, scale)

    def same_kind(self, gold: Suffix, answer: Suffix) -> bool:
        """Whether what stands after two numbers can be the same: units that can be converted, nouns that share a word.
        A unit or noun may be left out; text that is not understood has to be the same."""
        if answer.rest or (gold.rest and changes_value(gold.rest)):
            return gold.rest == answer.rest and (gold.unit is None or answer.unit is None or gold.unit == answer.unit)
        if gold.rest and (answer.nouns or (answer.unit is not None and answer.unit != gold.unit)):
            return False
        if self.policy.units == "require" and gold.unit is not None and answer.unit is None:
            return False
        if gold.unit is not None and answer.unit is not None:
            return same_unit(gold.unit, answer.unit)
        if gold.nouns and answer.nouns:
            return bool(set(gold.nouns) & set(answer.nouns) - {"of", "and", "the", "in", "per"})
        return not ((gold.unit and answer.nouns) or (gold.nouns and answer.unit)) or _is_generic(
            gold.unit or answer.unit
        )

    def scaled(self, gold: str, answer: str, scale: Fraction) -> bool | None:
        """Whether gold x scale = answer."""
        if scale == 1:
            return self.plain(gold, answer)
        numbers = [number(text, mixed=self.policy.mixed_numbers) for text in (gold, answer)]
        if numbers[0] and numbers[1]:
            (left, left_exact), (right, right_exact) = numbers[0], numbers[1]
            return self.numbers(gold, (left * scale, left_exact and right_exact), (right, right_exact))
        return self.ask(f"({gold})\\cdot\\frac{{{scale.numerator}}}{{{scale.denominator}}}", answer)

    def totals(self, gold: Sequence[Measure], answer: Sequence[Measure]) -> bool | None:
        """Whether two sums of measures of one kind are the same."""
        sums: list[Fraction] = []
        for side in (gold, answer):
            total = Fraction(0)
            for measure in side:
                value = number(measure.value)
                if value is None or measure.suffix.unit is None:
                    return False
                total += value[0] * measure.suffix.factor * measure.suffix.unit.factor
            sums.append(total)
        kinds = {measure.suffix.unit.dimensions for measure in (*gold, *answer) if measure.suffix.unit}
        return len(kinds) == 1 and sums[0] == sums[1]

    def degrees(self, gold: Measure, answer: Measure) -> tuple[bool | None] | None:
        """Compare degrees with radians; the result is wrapped in a tuple. None if it is not such a pair."""
        turned = [_is_angle(side, "degree") for side in (gold, answer)]
        if turned[0] == turned[1] or not self.policy.degrees:
            return None
        other = answer if turned[0] else gold
        if not (_is_angle(other, "radian") or ("\\pi" in other.value and not other.suffix.words)):
            return None
        values = [
            f"\\frac{{({side.value})\\pi}}{{180}}" if degrees else side.value
            for side, degrees in zip((gold, answer), turned, strict=True)
        ]
        return (self.ask(*values),)

    # --- numbers ------------------------------------------------------------------------------------------------------

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


def same_time(gold: tuple[int, int, bool], answer: tuple[int, int, bool]) -> bool:
    """Whether two times of day agree; without a.m. or p.m. on one side, both of its halves of the day count."""
    if gold[2] and answer[2]:
        return gold[:2] == answer[:2]
    return gold[0] % 12 == answer[0] % 12 and gold[1] == answer[1] and not (gold[2] and not answer[2])


def _is_time(text: str) -> bool:
    """Whether `h:mm` is no ratio: with words, minutes such as 05, or terms with a common factor."""
    found = re.fullmatch(r"\s*(\d{1,2}):(\d{2})\s*(.*)", text, re.DOTALL)
    if not found:
        return True
    hour, minute = int(found.group(1)), int(found.group(2))
    return bool(found.group(3)) or found.group(2)[0] == "0" or math.gcd(hour, minute) > 1


def _without_base_ten(text: str) -> str:
    found = based(text)
    return found[0] if found and found[1] == "10" else text


def _is_angle(measure: Measure, unit: str) -> bool:
    """Whether a measure is in degrees, or in radians, and in nothing else."""
    suffix = measure.suffix
    return suffix.unit is not None and suffix.unit.dimensions == ((unit, 1),) and not suffix.rest


def _is_generic(unit: Unit | None) -> bool:
    return unit is not None and "unit" in dict(unit.dimensions)


def unfinished(answer: str, *, exact: bool) -> bool:
    """Whether an answer that should be a number contains unevaluated arithmetic: `5+7`, `\\binom{5}{2}`, `\\log_2 8`.
    If the gold is a decimal (not `exact`), irrational expressions such as `5+2\\sqrt{3}` are accepted."""
    text = _SCIENTIFIC.sub("1", unwrap(answer).lstrip("+- "))
    return bool(_ARITHMETIC.search(text)) and (exact or not _IRRATIONAL.search(text))


def is_numeric(text: str) -> bool:
    """Whether a text consists of numbers and arithmetic only, without symbols."""
    rest = _NUMERIC_COMMANDS.sub("", split_measure(text).value)
    return bool(re.search(r"\d|\\pi", text)) and not re.search(r"[a-zA-Z\\<>]", rest)


def rounds_to(value: Fraction, printed: str) -> bool:
    """Whether `value` rounds to the printed decimal, to its number of decimal places."""
    found = re.search(r"\.(\d+)", printed)
    places = len(found.group(1)) if found else 0
    scale = 10**places * (100 if printed.rstrip().endswith("%") else 1)
    parsed = number(printed)
    assert parsed is not None, f"{printed!r} was read as a number before"
    return abs(value - parsed[0]) * scale <= Fraction(1, 2)
