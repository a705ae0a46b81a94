"""Reads whether a bound is attained, so that it is the answer: "at most 8, and 8 is attained"."""

from __future__ import annotations

from collections.abc import Sequence

from rewards.box_context.clauses import OWN, sentences_of
from rewards.box_context.predicate import verb_group
from rewards.box_context.words import (
    ANSWERS,
    COPULAS,
    FAILURES,
    NEGATORS,
    REFUSALS,
    UNCERTAIN,
    VERBS,
    any_of,
    is_filler,
    spelled_out,
)

_LONGEST = 4000
"""Characters after a bound that are read."""
_EXTREMA = frozenset("maximum minimum max min maximal minimal largest smallest greatest least most fewest".split())
_ATTAINED = frozenset(
    "attained attainable achieved achievable reached reachable realized possible sufficient enough".split()
)
_SUPPOSED = UNCERTAIN | {"when", "would", "could"}


def is_attained(answer: str, after: str) -> bool:
    """Whether the text after a bound states its value as the answer, as an extremum, or as attained."""
    for sentence in sentences_of(spelled_out(after[:_LONGEST]), answer):
        words = [word for clause in sentence.clauses for word in (*clause.links, *clause.words)]
        if sentence.ends != "?" and not any_of(words, _SUPPOSED):
            if any(_attains(clause.words) for clause in sentence.clauses):
                return True
    return False


def _attains(words: Sequence[str]) -> bool:
    """Whether a clause is "the maximum is 8", "8 is the answer" or "8 can be attained"."""
    if OWN not in words or any_of(words, NEGATORS, FAILURES, REFUSALS):
        return False
    place = words.index(OWN)
    if any_of(words[max(0, place - 1) : place], COPULAS, "="):
        return any_of(words[: place - 1], _EXTREMA, ANSWERS)
    group, rest = verb_group(words[place + 1 :])
    plain = [word for word in rest if not is_filler(word)]
    return any_of(group, VERBS) and any_of(plain[:1], _ATTAINED, _EXTREMA, ANSWERS)
