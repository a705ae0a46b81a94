"""Reads a predicate: its verbs, and whether it refuses what it is said of."""

from __future__ import annotations

from collections.abc import Sequence

from rewards.box_context.words import (
    ANSWERS,
    AUXILIARIES,
    AWAY,
    BINARY,
    COMPARATIVES,
    CONNECTIVES,
    CONTRASTS,
    COPULAS,
    FAILURES,
    FUNCTIONS,
    MULTIPLES,
    NEGATORS,
    REFUSALS,
    SUBJECTS,
    UNARY,
    VERBS,
    any_of,
    is_filler,
    is_part,
)

_FEW = 5
"""Words of a predicate among which a falsity refuses its subject."""
_SHORT = 3
"""Words that name a property."""
_ELSE = COMPARATIVES | frozenset("something anything nothing else other another different none no out".split())
_PREDICATE_ENDS = CONNECTIVES - {"and"} | {"that", "for", "if", "by", "with", "on"}


def verb_group(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """The verbs and negations with which a predicate begins, and the rest of it."""
    count = 0
    while count < len(words) and (words[count] in VERBS | NEGATORS | FAILURES or (count and is_filler(words[count]))):
        count += 1
    return list(words[:count]), list(words[count:])


def is_other_property(group: Sequence[str], rest: Sequence[str], conclusion: Sequence[str]) -> bool:
    """Whether a negated verb group denies another value ("is not zero"), or a property without which its subject has
    another one ("is not divisible by 3, so it is prime"). conclusion: the words after "so"."""
    if not any_of(group, COPULAS):
        return False
    if list(rest[:1]) == ["#"]:
        return True
    property_ = list(conclusion[2:])
    plain = [word for word in property_ if word.isalpha() and word not in ("a", "an", "the")]
    found = any_of(conclusion[:1], SUBJECTS) and any_of(conclusion[1:2], COPULAS) and 1 <= len(plain) <= _SHORT
    return found and not (is_falsity(property_) or any_of(plain, NEGATORS, AUXILIARIES, _ELSE))


def is_falsity(predicate: list[str]) -> bool:
    """Whether a predicate is a falsity ("a wrong guess", "too large") or compares its subject with the answer."""
    ends = (
        place for place, word in enumerate(predicate) if word in _PREDICATE_ENDS or not (word.isalpha() or word == "#")
    )
    head = predicate[: next(ends, len(predicate))]
    for place, word in enumerate(head):
        compared = any_of(head[:place], COMPARATIVES, MULTIPLES, FUNCTIONS) or any(map(is_part, head[:place]))
        if word in ANSWERS and (compared or any_of(head[place + 1 : place + 2], BINARY - {"to"}, UNARY)):
            return True
    turned = next((place for place, word in enumerate(predicate) if word in CONTRASTS), len(predicate))
    if any_of(predicate[turned:][:_FEW], REFUSALS):
        return True
    plain = head[: head.index("of")] if "of" in head else head
    return any_of(plain[:_FEW], REFUSALS) or any_of(plain[:1], AWAY)
