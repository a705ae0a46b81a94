"""Reads the sentence around a box by a small grammar: whether it refuses the box, or makes another value of it.

What leads to the box and what continues it are read as words of closed classes, and what is beside it as a formula.
What no rule reads says nothing about the box."""

from __future__ import annotations

import re

from rewards.box_context import chinese
from rewards.box_context.bound import is_attained
from rewards.box_context.continuation import Continuation
from rewards.box_context.formula import is_operand
from rewards.box_context.lead import Lead
from rewards.box_context.tail import Tail
from rewards.box_context.words import COPULAS, any_of

_WORDS = re.compile(r"[^\d\\]*|\s*\\(?:text\w*|mbox|mathrm|mathbf)\s*\{[^{}\d]*\}\s*")


def is_denied(before: str, boxed: str, after: str) -> bool:
    """Whether the text around a box says that it is not the answer ("not 17", "17 is wrong"), or makes another value
    of it ("17 times 2"). What follows words is not read, since "B is wrong" may be what was asked for."""
    lead = Lead(before)
    if lead.denies() and not (lead.bounds and is_attained(boxed, after)):
        return True
    if chinese.refuses(before, after):
        return True
    if _WORDS.fullmatch(boxed):
        return False
    rest = Continuation(after, several="," in boxed)
    fills_in = any_of(rest.words()[:1], COPULAS, "=")
    return is_operand(before, after) or (lead.changes() and not fills_in) or rest.denies()


def tail_of(before: str, answer: str, after: str) -> Tail:
    """What the text after an answer says of it, to its end."""
    return Tail(before, answer, after, words_only=bool(_WORDS.fullmatch(answer)))


def other_value(after: str) -> str | None:
    """The other value that the sentence after a box offers, as in "or maybe 18" or "and 18"; None if there is none."""
    return Continuation(after, several=False).other_value()
