"""Reads how a writer puts right what he has just said: "17, no wait, 18", "17. I mean 18", "17. Final answer: 18".

A repair is a value among words that say nothing of their own, one of which announces it."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from typing import Literal

from rewards.box_context.clauses import OWN, Clause, is_doubt
from rewards.box_context.words import (
    ANSWERS,
    AUXILIARIES,
    COPULAS,
    CORRECTIONS,
    HYPOTHETICAL,
    INTERJECTIONS,
    NAMES,
    REVISIONS,
    TRUE,
    VERBS,
    WITHDRAWALS,
    is_filler,
)

Repaired = Literal["other", "own"]
"""What a repair states: another value, or the answer once more."""

_ANNOUNCES = ANSWERS | WITHDRAWALS | CORRECTIONS | REVISIONS
_NAMED = frozenset("x n = -".split())
_EMPTY = (AUXILIARIES | COPULAS | INTERJECTIONS | NAMES | TRUE | _NAMED) - HYPOTHETICAL | frozenset(
    "it that this in i we me myself let s d ll or to on with go take write said written second final now thus "
    "therefore instead rather".split()
)
_BRACKETS = frozenset("()[]<>\"'`\u2018\u2019\u201c\u201d|")
_SOUND = re.compile("e+r+m*|u+[hm]+")


@dataclass(frozen=True, slots=True)
class Repair:
    """A run of clauses that say nothing but that a repair follows: "Oh, wait, sorry"."""

    goes_on: bool = True
    announced: bool = False
    states: Repaired | None = None
    """What its last clause states."""

    def then(self, clause: Clause, *, opens: bool) -> Repair:
        """The run with one more clause. opens: a run may begin here, at the beginning of a sentence; elsewhere, what is
        put right is another value of the sentence."""
        if not (opens or self.goes_on):
            return Repair(goes_on=False)
        words = [word for word in (*clause.links, *clause.words) if _counts(word)]
        place = next((at for at, word in enumerate(words) if word in ("#", OWN)), len(words))
        before, value, after = words[:place], words[place : place + 1], words[place + 1 :]
        object_of = next((word for word in reversed(before) if word not in _NAMED), "")
        if words[:1] == ["to"] or object_of in WITHDRAWALS or not all(map(_is_empty, before)):
            return Repair(goes_on=False)
        announced = self.goes_on and self.announced or any(map(_announces, before)) or "instead" in after
        if not value:
            return Repair(announced=announced)
        noun = [word for word in itertools.dropwhile("#".__eq__, after) if word not in _ANNOUNCES]
        if not announced or len(noun) > 1 or any(word in VERBS or not word.isalpha() for word in noun):
            return Repair(goes_on=False)
        return Repair(goes_on=False, states="own" if value == [OWN] else "other")


def _counts(word: str) -> bool:
    """Whether a word is more than an article, an adverb, a bracket or a quotation mark."""
    return _announces(word) or not (word in _BRACKETS or is_filler(word))


def _announces(word: str) -> bool:
    return word in _ANNOUNCES or is_doubt(word) or bool(_SOUND.fullmatch(word))


def _is_empty(word: str) -> bool:
    return word in _EMPTY or _announces(word)
