"""Judges what a clause after an answer says of it: that it is wrong or right, or that another one is asked for."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from rewards.box_context.admission import admits_mistake, gives_up, is_slip
from rewards.box_context.clauses import OWN, Clause, plain_start
from rewards.box_context.predicate import is_falsity, is_other_property, verb_group
from rewards.box_context.stand import Earlier, Point, Stand
from rewards.box_context.subject import Subject, is_verdict, subject_of
from rewards.box_context.words import (
    ANSWERS,
    CONCLUSIONS,
    CONSEQUENCES,
    CONTRASTS,
    COPULAS,
    ESTIMATES,
    FAILURES,
    NAMES,
    NEGATORS,
    NEUTRAL,
    REFUSALS,
    TRUE,
    TRUTHS,
    UNCERTAIN,
    VERBS,
    any_of,
    is_filler,
)

_OMISSIONS = frozenset("overcounts undercounts overlooks forgets neglects ignores omits".split())
_ASKS = frozenset("asks asked wants want wanted need needed seek sought".split())
_AFFIRMED = TRUTHS - ANSWERS - frozenset("possible this that it allowed match follow".split()) | {"fine", "consistent"}


def refuses(words: Sequence[str], point: Point, stand: Stand, earlier: Earlier) -> bool:
    """Whether a clause says of the answer that it is wrong, or that another one is right. words: the clause without its
    opening and opinion."""
    clause, place = point.clause, point.place
    conditional = earlier.conditional or any_of((*clause.links, *clause.words), UNCERTAIN)
    if conditional or ((stand.supposed or stand.carried) and not stand.strongly):
        return False
    if not clause.links and is_verdict(words) and not earlier.elsewhere:
        return place == 1 or stand.strongly
    if stand.strongly and list(words) == ["#"] and len(clause.words) > 1:  # "Actually 43"
        return True
    if stand.strongly and any_of(clause.links, CONSEQUENCES) and any_of(words[:1], NAMES) and OWN not in words:
        return any_of(words[1:2], COPULAS) and list(words[2:3]) == ["#"]  # "so the total is 43"
    if list(words[1:2]) == ["#"] and any_of(words[:1], NAMES if stand.strongly else ANSWERS):
        group, rest = verb_group(words[2:])  # "the answer 43 is right"
        plain = [word for word in rest if not is_filler(word)]
        return any_of(group, COPULAS) and not any_of(group, NEGATORS) and any_of(plain[:1], TRUE, ("answer",))
    subject, predicate = subject_of(words)
    if "which" in clause.links and (place == 0 or (earlier.pronoun and stand.doubted)):  # "negative, which is wrong"
        subject, predicate = "pronoun", words
    near = place <= 1 or stand.doubted or earlier.own
    if subject == "pronoun" and not (near and (stand.strongly or earlier.own or not earlier.other)):
        return False
    if subject is None or (subject == "own" and (clause.links or words[0] != OWN) and not stand.doubted):
        return False
    return _predicate(predicate, subject, point, stand, other=earlier.other)


def _predicate(words: Sequence[str], subject: Subject, point: Point, stand: Stand, *, other: bool) -> bool:
    """Whether a predicate of the answer refuses it. other: the sentence speaks of another candidate."""
    if any_of(words[:1], _OMISSIONS) or list(words[:2]) == ["double", "counts"]:
        return stand.doubted
    if any_of(words[:1], ("contains", "has")) and not any_of(words[1:2], ("to",)):
        return is_slip(words[1:4])
    group, rest = verb_group(words)
    plain = [word for word in rest if not is_filler(word)]
    if not group or any_of(group, ("would", "might")) or "only" in group or _is_restricted(rest):
        return False
    if any_of(group, NEGATORS):
        contrasted = any_of(point.clause.links, CONTRASTS) and not plain
        denied = contrasted or any_of(plain[:1], TRUTHS, ("what", "among")) or OWN in plain[:2]
        denied |= subject == "own" and stand.strongly and not is_other_property(group, rest, _conclusion(point))
        return denied and not any_of(plain[:1], NEUTRAL)
    if any_of(group, FAILURES) or (rest[:1] == ["no"] and plain[1:2] == ["sense"]):
        return True
    if any_of(group, COPULAS, ("be",)) and plain == ["#"] and subject != "own":  # "it is 43", "it should be 43"
        return stand.strongly or "should" in group or (subject == "answer" and not other)
    slip = any_of((*group, *rest[:1]), ("a", "an", "my", "our", "just")) and is_slip(rest[:4])
    return slip or is_falsity([word for word in rest if word not in ESTIMATES])


def admits(clause: Clause, stand: Stand, *, words_only: bool) -> bool:
    """Whether a clause admits a mistake in the answer, or gives up."""
    if any_of((*clause.links, *clause.words), UNCERTAIN):
        return False
    words = plain_start(clause.words)
    if admits_mistake(words, doubted=stand.strongly):
        return True
    return not words_only and gives_up(words, doubted=stand.doubted)


def _conclusion(point: Point) -> Sequence[str]:
    """What is concluded from a clause: the words after "so"."""
    following = point.following
    return following.words if following and any_of(following.links, CONCLUSIONS) else ()


def affirms(words: Sequence[str]) -> bool:
    """Whether a clause says of the answer that it is right."""
    if any_of(words[:1], ("yes",)) or (len(words) == 1 and any_of(words, ("correct", "right"))):
        return True
    subject, predicate = subject_of(words)
    group, rest = verb_group(predicate)
    denied = any_of(group, NEGATORS, FAILURES, ("would", "might", "should"))
    if subject is None or denied or any_of(rest, ("that", "to")):
        return False
    plain = [word for word in rest if not is_filler(word)]
    if any_of(group, VERBS):
        return any_of(plain[:1], _AFFIRMED) or (subject == "answer" and plain[:1] == [OWN])
    return any_of(predicate[:1], ("works", "checks", "holds", "fits", "satisfies"))


def holds_otherwise(place: int, clauses: Sequence[Clause]) -> bool:
    """Whether an answer that holds on a condition is followed by one on another: "and if not, it is 10"."""
    for count, clause in enumerate(clauses):
        if "if" in clause.links and clause.links[0] in ("and", "but", "while", "if"):
            negated = any_of(clause.words, NEGATORS)
            later = clauses[count if negated else count + 1 :]
            return (place == 0 or negated) and _gives_value([word for one in later for word in one.words])
    return False


def asks_another(words: Sequence[str]) -> bool:
    """Whether a sentence says that something else is asked for, and gives its value."""
    place = next((at for at, word in enumerate(words) if word in _ASKS), None)
    if place is None or any_of(words[place + 1 : place + 2], ("to", "that")):
        return False
    asking = any_of(words[:place], ("question", "problem", "we", "they", "it"))
    return asking and OWN not in words[place:] and _gives_value(words[place + 1 :])


def _gives_value(words: Sequence[str]) -> bool:
    """Whether a value follows a verb: "which is 37"."""
    return any((one in COPULAS or one == "=") and two == "#" for one, two in itertools.pairwise(words))


def _is_restricted(rest: Sequence[str]) -> bool:
    """Whether a predicate holds of some values alone ("wrong for n = 0"), or of what follows it ("wrong to say")."""
    for place, word in enumerate(rest):
        after = rest[place + 1 : place + 4]
        if word in ("for", "when", "unless") and (any_of(after, ("all", "every", "any")) or 1 in map(len, after)):
            return True
        judged = rest[place + 1 : place + 2] == ["be"] and any_of(rest[place:], TRUTHS, REFUSALS)
        if word in ("to", "that") and after and not judged:
            return True
    return False
