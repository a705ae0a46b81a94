"""Is this completion's final answer the gold answer? Strings first, Math-Verify and sympy only when strings do not decide.

`grade_answer` is pure, but sympy can take for ever: training calls it in `process_pool` workers, through `math_reward`."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field, replace
from typing import Any

from rewards.extraction import Accept, final_answer, gold_answer
from rewards.guards import too_large, unevaluated
from rewards.normalise import based, canonical, contradicts_itself, integer, is_words, normalise, rational
from rewards.verdict import Verdict

RELATIVE_TOLERANCE = 1e-5
"""Two numbers that Math-Verify calls equal (it rounds to 6 decimals) must also agree to this relative error: else every
tiny number equals every other."""


@dataclass(frozen=True, kw_only=True)
class AnswerPair:
    """A gold answer and a final answer, both normalised: all that the parser sees."""

    gold: str
    answer: str
    extracted: str = field(default="", compare=False)
    """The answer before it was normalised: only shown, so not part of what makes two pairs the same."""


def grade_answer(completion: str, gold: str, *, accept: Accept = "phrase", thinking: bool = False) -> Verdict:
    """Grade one completion against a gold answer: a bare one ("42", "\\\\frac{1}{2}"), or a solution with a box.

    Raises MemoryError where a memory limit is set; never runs code from its inputs. May take for ever: see above."""
    started = time.perf_counter()
    verdict = grade_strings(completion, gold, accept=accept, thinking=thinking)
    if isinstance(verdict, AnswerPair):
        verdict = grade_parsed(verdict)
    return replace(verdict, ms=1000 * (time.perf_counter() - started))


def grade_strings(
    completion: str, gold: str, *, accept: Accept = "phrase", thinking: bool = False
) -> Verdict | AnswerPair:
    """The part that is fast on every input: extraction, string equality, plain numbers, guards. Returns the pair that
    only the parser can decide, when there is one."""
    extracted = final_answer(completion, accept=accept, thinking=thinking)
    gold_text = normalise(gold_answer(gold))
    if not gold_text:
        return Verdict(value=None, status="gold_unparsable", extracted=_shown(extracted), detail="the gold is empty")
    if extracted is None:
        return Verdict(value=0.0, status="no_answer")
    answer = normalise(extracted)
    equal = _equal_strings(gold_text, answer)
    if equal is not None:
        return _decided(equal, extracted)
    refused = too_large(answer) or unevaluated(answer, gold_text)
    if refused:
        return Verdict(value=0.0, status="policy", extracted=_shown(extracted), detail=refused)
    refused = too_large(gold_text)
    if refused:
        return Verdict(
            value=None, status="gold_unparsable", extracted=_shown(extracted), detail=f"the gold is {refused}"
        )
    return AnswerPair(gold=gold_text, answer=answer, extracted=_shown(extracted) or "")


def grade_parsed(pair: AnswerPair) -> Verdict:
    """The verdict of Math-Verify on a pair of normalised answers. See `grade_answer` for its dangers."""
    gold = _parse(pair.gold)
    if gold is None:
        detail = f"the gold cannot be parsed: {pair.gold[:80]}"
        return Verdict(value=None, status="gold_unparsable", extracted=pair.extracted, detail=detail)
    answer = _parse(pair.answer)
    if answer is None:
        return Verdict(value=0.0, status="wrong", extracted=pair.extracted, detail="the answer cannot be parsed")
    return _decided(_equal_parsed(gold, answer), pair.extracted)


def warm_up() -> None:
    """Import the parser and run it once, so that the first item does not pay for it (about 1.5 s)."""
    grade_parsed(AnswerPair(gold="\\frac{1}{2}+x", answer="x+0.5"))


def _decided(equal: bool, extracted: str) -> Verdict:
    return Verdict(value=float(equal), status="correct" if equal else "wrong", extracted=_shown(extracted))


def _shown(extracted: str | None) -> str | None:
    """Verdicts are written to every rollout's record: an answer of a megabyte is not."""
    return extracted if extracted is None or len(extracted) <= 500 else extracted[:500] + "..."


def _equal_strings(gold: str, answer: str) -> bool | None:
    """Equality of normalised answers as far as strings and plain numbers tell it; None = ask the parser."""
    if not answer:
        return False
    if canonical(gold) == canonical(answer):
        return True
    integers = integer(gold), integer(answer)
    if None not in integers:
        return integers[0] == integers[1]
    if based(gold) or based(answer):  # the parser drops subscripts
        return based(gold) == based(answer)
    if contradicts_itself(answer):
        return False
    numbers = rational(gold), rational(answer)
    if numbers[0] is not None and numbers[1] is not None:
        (gold_value, gold_exact), (answer_value, answer_exact) = numbers
        if gold_value == answer_value:
            return True
        return False if gold_exact and answer_exact else None
    if is_words(gold) or is_words(answer):
        return False
    return None


def _parse(answer: str) -> Any | None:
    """A normalised answer as a sympy object; None when it is no formula."""
    from latex2sympy2_extended.latex2sympy2 import NormalizationConfig, normalize_latex
    from math_verify.parser import parse_latex_cached

    config = NormalizationConfig(
        basic_latex=True, units=True, malformed_operators=True, nits=True, boxed="none", equations=False
    )
    try:
        return parse_latex_cached(normalize_latex(answer, config=config))
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 - the grammar of answers is open: whatever the parser raises, this is no formula to it
        return None


def _equal_parsed(gold: Any, answer: Any) -> bool:
    from math_verify import verify

    logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns that its own timeout is off: see process_pool
    try:
        # Its timeout is a signal.alarm, which only works in a main thread: the worker's deadline replaces it.
        return verify(gold, answer, timeout_seconds=None, allow_set_relation_comp=True, raise_on_error=True) and _close(
            gold, answer
        )
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 - sympy cannot compare these two kinds of object: they are not equal
        return False


def _close(gold: Any, answer: Any) -> bool:
    """False when both are plain real numbers and far apart, relatively."""
    import sympy

    for value in (gold, answer):
        if not isinstance(value, sympy.Expr) or value.free_symbols or value.is_extended_real is False:
            return True
    pair = [sympy.N(value.doit(), 30) for value in (gold, answer)]
    if not all(isinstance(value, sympy.Float | sympy.Integer | sympy.Rational) for value in pair):
        return True
    scale = max(abs(value) for value in pair)
    return bool(abs(pair[0] - pair[1]) <= RELATIVE_TOLERANCE * scale)
