"""Grades a final answer against the gold answer: with strings first, and in ball arithmetic if needed.

`grade_strings` decides most answers. `grade_parsed` evaluates the others, within bounds, and runs in worker processes
(`rewards.math_grader.reward`), so that it slows down nothing else."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from fractions import Fraction

from rewards.box_context.unit import SIGN_AFTER, without_half
from rewards.extraction import BOXES, Accept, final_answer, gold_answer
from rewards.math_grader.brackets import split_top
from rewards.math_grader.compare import Comparison
from rewards.math_grader.guards import MAX_CHARS, too_large, unevaluated
from rewards.math_grader.integers import with_same_integer
from rewards.math_grader.measures import split_measure, without_remark
from rewards.math_grader.normalize import based, choice_of, clock, integer, is_words, labeled_value, normalize, number
from rewards.math_grader.policy import DEFAULT_POLICY, MathPolicy
from rewards.math_grader.structure import shape_of
from rewards.math_grader.values import unfinished
from rewards.verdict import Verdict

_OPERATION = re.compile(r"[+*/^!-]|\\(?:frac|cdot|times|div|binom|sqrt)(?![a-zA-Z])")


@dataclass(frozen=True, kw_only=True)
class AnswerPair:
    """A gold answer and a final answer, both normalized: the only input of the parser."""

    gold: str
    answer: str
    extracted: str = field(default="", compare=False)
    """The answer before normalization. Only displayed, so not part of the equality of pairs."""


def grade_strings(
    completion: str,
    gold: str,
    *,
    accept: Accept = "phrase",
    thinking: bool = False,
    policy: MathPolicy = DEFAULT_POLICY,
    question: str = "",
) -> Verdict | AnswerPair:
    """The part that is fast on every input: extraction, guards, and all comparisons that strings and plain numbers can
    decide. Returns an AnswerPair if only the parser can decide.

    gold: a bare answer ("42", "\\\\frac{1}{2}"), or a solution with a box. question: the question, whose own expression
    does not count as an answer."""
    extracted = final_answer(completion, accept=accept, thinking=thinking, several_boxes=policy.several_boxes)
    gold_text = normalize(gold_answer(gold), plain_text=policy.plain_text)
    if not gold_text:
        return Verdict(value=None, status="gold_unparsable", extracted=_shown(extracted), detail="the gold is empty")
    if extracted is None:
        return Verdict(value=0.0, status="no_answer")
    if not gold_text.endswith("%"):
        extracted = extracted.removesuffix(SIGN_AFTER)
    if clock(gold_text) is None:
        extracted = without_half(extracted)
    answer = normalize(with_same_integer(gold_answer(gold), extracted), plain_text=policy.plain_text)
    if not any(box in completion for box in BOXES):
        answer = without_remark(answer)
    digits = integer(gold_text), integer(answer)  # strings, so of any length
    if answer == gold_text or None not in digits:
        return _decided(answer == gold_text or digits[0] == digits[1], extracted)
    refused = too_large(answer)
    if refused:
        return Verdict(value=0.0, status="policy", extracted=_shown(extracted), detail=refused)
    refused = too_large(gold_text)
    if refused:
        detail = f"the gold is {refused}"
        return Verdict(value=None, status="gold_unparsable", extracted=_shown(extracted), detail=detail)
    refused = _not_evaluated(answer, gold_text, question) if policy.evaluated else None
    if refused:
        return Verdict(value=0.0, status="policy", extracted=_shown(extracted), detail=refused)
    equal = Comparison(policy, _undecided, _plain_value).equal(gold_text, answer)
    if equal is not None:
        return _decided(equal, extracted)
    return AnswerPair(gold=gold_text, answer=answer, extracted=_shown(extracted) or "")


def grade_parsed(pair: AnswerPair, policy: MathPolicy = DEFAULT_POLICY) -> Verdict:
    """The verdict of the parser and of the arithmetic. Never runs code from its inputs."""
    from rewards.math_grader import symbolic  # in a worker alone: it needs python-flint

    if Comparison(policy, symbolic.equal, symbolic.approximate).equal(pair.gold, pair.answer):
        return _decided(True, pair.extracted)
    if not readable(pair.gold):
        detail = f"the gold cannot be parsed: {pair.gold[:80]}"
        return Verdict(value=None, status="gold_unparsable", extracted=pair.extracted, detail=detail)
    return _decided(False, pair.extracted)


def grade_gold(gold: str) -> Verdict:
    """The verdict on a normalized gold as its own answer, without string equality: `correct` if the parser can read
    it, else `gold_unparsable`."""
    if readable(gold):
        return _decided(True, gold)
    return Verdict(
        value=None, status="gold_unparsable", extracted=gold[:80], detail=f"the gold cannot be parsed: {gold[:80]}"
    )


def is_plain(gold: str) -> bool:
    """Whether a normalized gold can be graded with strings alone: a number, words, or an option letter."""
    value = split_measure(gold).value
    return (
        number(value) is not None
        or based(value) is not None
        or is_words(gold)
        or choice_of(gold, bare=True) is not None
    )


def readable(gold: str) -> bool:
    """Whether the parser can read a gold or any of its parts. If not, `wrong` would not be the model's fault."""
    from rewards.math_grader import symbolic

    parts = [part for part in re.split(r"[=,;]|\\(?:cup|text\s*\{\s*(?:and|or)\s*\})", gold) if part.strip()]
    parts += [item for item in shape_of(gold).items if item != gold]
    return symbolic.readable(gold) or any(symbolic.readable(split_measure(part).value) for part in parts)


def warm_up() -> None:
    """Import the parser and run it once, so that the first item does not include that time (about 0.1 s)."""
    grade_parsed(AnswerPair(gold="\\frac{1}{2}+x", answer="x+0.5"))


def _undecided(*_: object) -> None:
    """The leaf of the fast pass: always None."""


def _plain_value(text: str) -> Fraction | None:
    """The value of a plain number."""
    found = number(text)
    return found[0] if found else None


def _not_evaluated(answer: str, gold: str, question: str) -> str | None:
    """Why an answer counts as unevaluated; None if it is evaluated."""
    last = split_measure(split_top(answer, {"="})[-1]).value
    refused = unevaluated(last, gold)
    if refused:
        return refused
    last = labeled_value(last) or last
    known = number(split_measure(gold).value)
    if known is not None and len(split_top(last, {","})) == 1 and unfinished(last, exact=known[1]):
        parts = split_top(last, {"\\approx"})
        if len(parts) == 1 or all(unfinished(part, exact=known[1]) for part in parts):
            return f"not evaluated: {last[:80]}"
    if question and _OPERATION.search(last.lstrip("- ")) and last == answer:
        own, golds = _bare(last), {_bare(part) for part in split_top(gold, {"=", ","})}
        spelt = r"\s*".join(map(re.escape, own))
        asked = re.sub(r"[{}$]|\\[()\[\]]", "", normalize(question[-MAX_CHARS:]))
        if own not in golds and re.search(rf"(?<![\w\\]){spelt}(?![\w^])", asked):
            return f"the question's own expression: {last[:80]}"
    return None


def _bare(text: str) -> str:
    return re.sub(r"[\s{}$]|\\[()\[\]]", "", text)


def _decided(equal: bool, extracted: str) -> Verdict:
    return Verdict(value=float(equal), status="correct" if equal else "wrong", extracted=_shown(extracted))


def _shown(extracted: str | None) -> str | None:
    """The answer, truncated, since verdicts are written to the record of every rollout."""
    return extracted if extracted is None or len(extracted) <= 500 else extracted[:500] + "..."
