"""Compares two expressions with Math-Verify and sympy. Runs in killable workers, since it may take forever."""

from __future__ import annotations

import logging
import random
from fractions import Fraction
from typing import Any

from rewards.math_grader.normalize import number
from rewards.math_grader.policy import MathPolicy
from rewards.math_grader.values import rounds_to

DIGITS = 40
"""Decimal digits to which irrational numbers are evaluated."""
LOST_DIGITS = 4
"""Number of `DIGITS` that intermediate rounding may make wrong."""

PROBES = 12
"""Number of points at which two expressions are compared if sympy cannot simplify one to the other."""
AGREEMENTS = 6
"""Minimum number of points at which both expressions must be defined."""
PROBE_RANGES = ((-3, 3), (0, 1), (1, 9))
"""Ranges of the points, used in turn: both signs, where arcsin is real, and where the square root of x - 1 is real."""
PROBE_DENOMINATOR = 997
"""Denominator of every coordinate. A prime, so that no point is a typical pole, zero or kink: n, n/2, n/3, ..."""
PROBE_DIGITS = 25
"""Decimal digits to which the expressions are evaluated at a point; sympy uses up to `MOST_DIGITS` internally."""
MOST_DIGITS = 60
PROBE_TOLERANCE = "1e-18"
"""Relative difference at a point that counts as rounding error: far above the error of 25 digits, and far below the
difference of distinct expressions."""
IMAGINARY_NOISE = 1e-20
"""Imaginary parts below this count as zero, since evaluation leaves small ones."""


def parse(answer: str) -> Any | None:
    """A normalized answer as a sympy object; None if it cannot be parsed."""
    from latex2sympy2_extended.latex2sympy2 import NormalizationConfig, normalize_latex
    from math_verify.parser import parse_latex_cached

    # We handle units ourselves: Math-Verify reads the m of `n + m/2` as meters.
    config = NormalizationConfig(
        basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="none", equations=False
    )
    try:
        return parse_latex_cached(normalize_latex(answer, config=config))
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 - answers can be anything: whatever the parser raises, it cannot read this one
        return None


def equal(gold_text: str, answer_text: str, policy: MathPolicy) -> bool:
    """Whether two expressions are equal. An expression that cannot be parsed equals nothing."""
    from math_verify import verify

    # It warns that its own timeout is off, which rewards.processes.pool replaces.
    logging.getLogger("math_verify").setLevel(logging.ERROR)
    gold, answer = parse(gold_text), parse(answer_text)
    if gold is None or answer is None:
        return False
    relations = policy.inequalities == "interval"
    try:
        # Its timeout uses signal.alarm, which works only in a main thread. The worker's deadline replaces it.
        same = verify(
            gold,
            answer,
            timeout_seconds=None,
            allow_set_relation_comp=relations,
            raise_on_error=True,
            strict=policy.sets == "strict",
        )
        numbers = _numbers(gold, answer)
        if numbers:
            rounded = "." in gold_text + answer_text
            return _close(numbers, gold_text, policy, exact=not rounded)
        return same or _agree_everywhere(gold, answer)
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 - sympy cannot compare these two kinds of objects, so they are not equal
        return False


def _numbers(*values: Any) -> list[Any] | None:
    """The values as numbers: exact if rational, else evaluated to `DIGITS` digits. The symbol `i` is the imaginary
    unit. None unless all of them are numbers."""
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
    """Whether two numbers are equal: up to rounding in the last `LOST_DIGITS` of `DIGITS` if both are `exact`, else up
    to the policy's tolerance."""
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
    """Whether two expressions in the same symbols agree at random points where both are defined. sympy cannot prove
    some identities, such as `2 arcsin(sqrt a)` = `arccos(1 - 2a)`."""
    import sympy

    if not all(isinstance(value, sympy.Expr) and not isinstance(value, sympy.MatrixBase) for value in (gold, answer)):
        return False
    # Compare symbols by name: the parser gives a letter different assumptions in different contexts.
    names = sorted({str(symbol) for symbol in gold.free_symbols})
    if not names or names != sorted({str(symbol) for symbol in answer.free_symbols}):
        return False
    rng = random.Random(0)  # a fixed seed, so that a pair is always compared at the same points
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
