"""Reads what a writer says of his own work: that it has a mistake, or that he has no answer."""

from __future__ import annotations

from collections.abc import Sequence

from rewards.box_context.clauses import OWN
from rewards.box_context.subject import PREVIOUS
from rewards.box_context.words import (
    ANSWERS,
    AUXILIARIES,
    MISTAKENLY,
    NAMES,
    NEGATORS,
    VERBS,
    WITHDRAWALS,
    any_of,
    is_filler,
)

_SLIPS = frozenset("mistake error slip slips oversight miscalculation miscount blunder typo mistakes errors".split())
_USUAL = frozenset("common easy typical frequent possible no".split())
_UNDONE = frozenset("forgot overlooked mistook messed".split())
_STEPS = frozenset("flipped swapped dropped ignored skipped omitted confused inverted reversed neglected".split())
"""Steps of a calculation, and mistakes where the text doubts."""
_TOOK = frozenset("used applied took chose computed assumed solved read multiplied divided added".split())
_KNOWN = frozenset("find determine know give get have obtain provide".split())
_VALID = frozenset("valid correct right true actual final proper".split())


def admits_mistake(words: Sequence[str], *, doubted: bool) -> bool:
    """Whether a clause admits a mistake or withdraws the answer. doubted: the text doubts it already."""
    plain = [word for word in words if not is_filler(word)]
    if any_of(plain[:1], WITHDRAWALS):
        return _withdraws(plain[1:])
    if plain[:1] == ["there"] and any_of(plain[1:2], ("is", "was")):
        return is_slip(plain[2:5]) and not any_of(plain, _USUAL)
    if not any_of(plain[:1], ("i", "we")):
        return False
    count = 1
    while any_of(plain[count : count + 1], AUXILIARIES, ("was", "am", "were", "to")):
        count += 1
    auxiliaries, verb, rest = plain[1:count], "".join(plain[count : count + 1]), plain[count + 1 :]
    if any_of(auxiliaries, ("may", "might", "could", "can", "would", "do", "will")):
        return False
    if verb in WITHDRAWALS:
        return _withdraws(rest)
    if any_of(plain[1:], MISTAKENLY) or (verb in _TOOK and any_of(rest[:2], ("wrong", "incorrect"))):
        return True
    if verb in ("take", "took") and "back" in rest[:4] or (verb == "give" and rest[:1] == ["up"]):
        return True
    if verb == "made" or (verb == "make" and auxiliaries == ["did"]):
        return is_slip(rest[:3]) and not any_of(rest[:3], ("no",))
    if verb in ("wrong", "mistaken", "incorrect"):
        return any_of(auxiliaries, ("was", "am", "were"))
    return (
        (verb in _UNDONE and not any_of(rest[:2], ("nothing", "no", "none")))
        or (verb.startswith("mis") and verb.endswith(("ed", "read")))
        or (verb in _STEPS and doubted)
    )


def gives_up(words: Sequence[str], *, doubted: bool) -> bool:
    """Whether a clause says that there is no answer, or that it is not known."""
    plain = [word for word in words if not is_filler(word)]
    if any_of(plain[:1], ("i", "we", "have", "has")):
        return _has_no_answer(plain[2 if any_of(plain[1:2], ("have", "am", "was", "were")) else 1 :])
    if plain[:1] == ["no"] and any_of(plain[1:2], _VALID):
        return _has_no_answer(plain)
    if not doubted or not any_of(plain[:1], ("there", "problem", "question", "it")):
        return False
    place = next((at for at, word in enumerate(plain) if word == "no"), len(plain))
    return set(plain[1:place]) <= VERBS | {"to"} and _has_no_answer(plain[place:])


def _has_no_answer(words: Sequence[str]) -> bool:
    place = next((at for at, word in enumerate(words) if word in ("answer", "solution", "value")), None)
    if place is None or any_of(words[place + 1 : place + 2], ("of", "for", "to", "in")):
        return False
    before = words[:place]
    if before[:1] == ["no"]:
        return set(before[1:]) <= _VALID and words[place] != "value"
    unable = any_of(before, NEGATORS, ("unable",)) and any_of(before, _KNOWN)
    return unable and set(before) <= _KNOWN | NEGATORS | VERBS | _VALID | {"unable", "to"}


def _withdraws(words: Sequence[str]) -> bool:
    """Whether what is rejected is the answer: "the above answer", "that"."""
    what = [word for word in words if word not in PREVIOUS]
    pronoun = any_of(what[:1], ("that", "this")) and (len(what) == 1 or any_of(what[1:2], NAMES))
    return pronoun or any_of(what[:1], ANSWERS, (OWN,)) or list(words) == ["above"]


def is_slip(words: Sequence[str]) -> bool:
    """Whether a mistake is named, and not the error of an estimate ("an error of 3%")."""
    place = next((at for at, word in enumerate(words) if word in _SLIPS), None)
    return place is not None and list(words[place + 1 : place + 2]) != ["of"]
