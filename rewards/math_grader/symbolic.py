"""What only a parser can tell: Math-Verify and sympy, asked about one pair of expressions. Runs in killable workers."""

from __future__ import annotations

import logging
import random
from fractions import Fraction
from typing import Any

from rewards.math_grader.normalize import number
from rewards.math_grader.policy import MathPolicy
from rewards.math_grader.values import rounds_to

DIGITS = 40
"""To which numbers that are not rational are evaluated."""
LOST_DIGITS = 4
"""Of `DIGITS`, to rounding on the way."""

PROBES = 12
"""Points at which two expressions are compared that sympy cannot simplify to each other."""
AGREEMENTS = 6
"""Points that must be defined on both sides."""
PROBE_RANGES = ((-3, 3), (0, 1), (1, 9))
"""Where the points lie, in turn: of both signs, where arcsin is real, and where the root of x - 1 is."""
PROBE_DENOMINATOR = 997
"""Of every coordinate. A prime, so that no point is where answers have their poles, zeros and kinks: n, n/2, n/3, ..."""
PROBE_DIGITS = 25
"""To which the expressions are evaluated at a point; sympy takes up to `MOST_DIGITS` on the way there."""
MOST_DIGITS = 60
PROBE_TOLERANCE = "1e-18"
"""Relative difference at a point that is rounding: far above 25 digits' own, far below what different expressions differ by."""
IMAGINARY_NOISE = 1e-20
"""Imaginary part below which a value is real: evaluation leaves some behind."""


def parse(answer: str) -> Any | None:
    """A normalised answer as a sympy object; None when it is no formula."""
    from latex2sympy2_extended.latex2sympy2 import NormalizationConfig, normalize_latex
    from math_verify.parser import parse_latex_cached

    # Units are ours: theirs takes the m of `n + m/2` for metres.
    config = NormalizationConfig(
        basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="none", equations=False
    )
    try:
        return parse_latex_cached(normalize_latex(answer, config=config))
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 - the grammar of answers is open: whatever the parser raises, this is no formula to it
        return None


def equal(gold_text: str, answer_text: str, policy: MathPolicy) -> bool:
    """Whether two parsed expressions are the same. An expression that cannot be parsed equals nothing."""
    from math_verify import verify

    logging.getLogger("math_verify").setLevel(
        logging.ERROR
    )  # it warns that its own timeout is off: see rewards.processes.pool
    gold, answer = parse(gold_text), parse(answer_text)
    if gold is None or answer is None:
        return False
    relations = policy.inequalities == "interval"
    try:
        # Its timeout is a signal.alarm, which only works in a main thread: the worker's deadline replaces it.
        same = verify(
            gold, answer, timeout_seconds=None, allow_set_relation_comp=relations, raise_on_error=True,
            strict=policy.sets == "strict",
        )  # fmt: skip
        numbers = _numbers(gold, answer)
        if numbers:
            rounded = "." in gold_text + answer_text
            return _close(numbers, gold_text, policy, exact=not rounded)
        return same or _agree_everywhere(gold, answer)
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 - sympy cannot compare these two kinds of object: they are not equal
        return False


def _numbers(*values: Any) -> list[Any] | None:
    """Both exactly where they are rational, else to `DIGITS`; None unless both are numbers (`i` being the imaginary unit)."""
    import sympy

    found = []
    for value in values:
        if not isinstance(value, sympy.Expr) or {str(symbol) for symbol in value.free_symbols} - {"i"}:
            return None
        value = value.subs({symbol: sympy.I for symbol in value.free_symbols}).doit()
        if not value.is_Rational:
            value = sympy.N(value, DIGITS)
        if not value.is_number or value.is_finite is False:
            return None
        found.append(value)
    return found


def _close(pair: list[Any], gold_text: str, policy: MathPolicy, *, exact: bool) -> bool:
    """Two numbers: up to rounding in the last of `DIGITS` where both are exact, else up to the policy's tolerance."""
    gold, answer = pair
    scale = max(abs(gold), abs(answer))
    if exact and gold.is_Rational and answer.is_Rational:
        return bool(gold == answer)
    tolerance = 10.0 ** (LOST_DIGITS - DIGITS) if exact else policy.relative_tolerance
    if abs(gold - answer) <= tolerance * scale:
        return True
    if policy.rounding != "gold" or number(gold_text) is None or not answer.is_real:
        return False
    return rounds_to(Fraction(str(answer)), gold_text)


def _agree_everywhere(gold: Any, answer: Any) -> bool:
    """Two expressions in the same symbols that agree wherever both are defined: `2 arcsin(sqrt a)` and
    `arccos(1 - 2a)` do, which sympy does not see."""
    import sympy

    if not all(isinstance(value, sympy.Expr) and not isinstance(value, sympy.MatrixBase) for value in (gold, answer)):
        return False
    # By name: the parser gives one letter different assumptions in different surroundings.
    names = sorted({str(symbol) for symbol in gold.free_symbols})
    if not names or names != sorted({str(symbol) for symbol in answer.free_symbols}):
        return False
    rng = random.Random(0)  # the same points for the same pair, always
    agreed = 0
    for probe in range(PROBES):
        low, high = (end * PROBE_DENOMINATOR for end in PROBE_RANGES[probe % len(PROBE_RANGES)])
        point = {name: sympy.Rational(rng.randint(low + 1, high - 1), PROBE_DENOMINATOR) for name in names}
        values = [
            sympy.N(
                value.subs({symbol: point[str(symbol)] for symbol in value.free_symbols}),
                PROBE_DIGITS,
                maxn=MOST_DIGITS,
            )
            for value in (gold, answer)
        ]
        if not all(value.is_number and value.is_finite for value in values):
            continue
        real = [abs(sympy.im(value)) < IMAGINARY_NOISE for value in values]
        if real[0] != real[1]:
            return False
        scale = max(1, abs(values[0]), abs(values[1]))
        if abs(values[0] - values[1]) > sympy.Float(PROBE_TOLERANCE) * scale:
            return False
        agreed += 1
    return agreed >= AGREEMENTS
