"""Reads the text after an answer clause by clause, to its end: whether it takes the answer back.

The sentence of the answer itself is read by `Continuation` up to its first clause; here follow its other clauses and
the sentences after it. A pronoun means the answer unless the sentence names another candidate."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass, replace

from rewards.box_context.clauses import Sentence, is_doubt, plain_start, sentences_of
from rewards.box_context.judgment import admits, affirms, asks_another, holds_otherwise, refuses
from rewards.box_context.lead import Lead
from rewards.box_context.stand import Earlier, Point, Setting, Stand
from rewards.box_context.subject import without_opinion
from rewards.box_context.words import ANSWERS, ASSUMPTIONS, CONTRASTS, any_of, is_filler, spelled_out

_LONGEST = 4000
"""Characters after an answer that are read."""
_NEAR = 240
"""Characters before an answer that are read."""
_LIMITS = frozenset("that if when where unless provided".split())
"""What is said before these is said of some cases."""
_CHECKS = ("check", "verif", "recheck", "recomput", "plug")
_FOUND_IT = "(?:thought|got|guessed|said|answered|calculated|computed|found|obtained|believed|had)"
_TENTATIVE = re.compile(
    r"\b(?:tempt\w+|(?:naive|quick|first|initial|hasty|obvious|intuitive)\s+(?:\w+\s+)?(?:guess|answer|thought|attempt|"
    r"instinct|idea|impression|estimate|calculation|count)|(?:might|would|may)\s+(?:naively\s+|first\s+)?(?:guess|think)|"
    rf"at\s+first\s+(?:glance|sight)|naively|(?:at\s+first|initially|originally),?\s+(?:I|we)\s+{_FOUND_IT}|"
    rf"(?:I|we)\s+(?:first|initially|originally)\s+{_FOUND_IT})\b",
    re.IGNORECASE,
)
_FIRST = re.compile(r"[^.!?;,]{0,20}\b(?:at\s+first|initially|originally)\b", re.IGNORECASE)
_WE = re.compile(r"\b(?:I|[Ww]e)\b")
_IF = re.compile(r"[\s$)\\\]]*if\b", re.IGNORECASE)
_CLAUSE_END = re.compile(r"[.,;:!?(]")
_SPLIT = re.compile(r"[.!?]\s|\n\s*\n|\b(?:but|however|though|yet)\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Tail:
    """What the text after an answer says of it."""

    taken_back: bool
    doubt: str | None
    """The text from where it begins to doubt the answer: an answer that is stated there replaces it."""
    repair: str | None
    """The text from the clause on that states another value instead."""


def read_tail(before: str, answer: str, after: str, *, words_only: bool) -> Tail:
    """What the text after an answer says of it. before: the text that leads to the answer. words_only: the answer is
    words."""
    text = spelled_out(after[:_LONGEST])
    setting = _setting(before, after, words_only=words_only)
    stand = Stand()
    for place, sentence in enumerate(sentences_of(text, answer)):
        stand = _after_sentence(stand, setting, place, sentence)
    doubt, repair = (None if start is None else text[start:] for start in (stand.since, stand.repaired))
    return Tail(stand.taken_back, doubt, repair)


def _setting(before: str, after: str, *, words_only: bool) -> Setting:
    lead = Lead(before)
    opening = _SPLIT.split(before[-_NEAR:])[-1]
    first = _WE.search(opening) and _FIRST.match(after)
    supposed = any_of(lead.words, ("would", "could")) and _IF.match(after)
    guessed = _TENTATIVE.search(opening) or _TENTATIVE.search(_CLAUSE_END.split(after[:_NEAR])[0])
    return Setting(
        tentative=lead.conditional or bool(guessed or first or supposed),
        conditioned=lead.supposes,
        words_only=words_only,
    )


def _after_sentence(stand: Stand, setting: Setting, place: int, sentence: Sentence) -> Stand:
    clauses = sentence.clauses
    everything = [word for clause in clauses for word in clause.words]
    otherwise = setting.conditioned and place <= 1 and holds_otherwise(place, clauses)
    if otherwise or asks_another(everything):
        stand = stand.withdrawn(clauses[0].start)
    earlier = Earlier()
    for count, (clause, following) in enumerate(itertools.zip_longest(clauses, clauses[1:])):
        point = Point(place, count, clause, following)
        stand = _opened(stand, setting, point)
        if sentence.ends != "?":
            stand, earlier = _after_clause(stand, earlier, setting, point)
    supposed = (stand.supposed or any_of(everything, ASSUMPTIONS)) and sentence.ends != ""
    return replace(stand, supposed=supposed, carried=place > 0 and any("if" in clause.links for clause in clauses))


def _opened(stand: Stand, setting: Setting, point: Point) -> Stand:
    """Notes a doubt or contrast with which a clause opens: "Wait", "Hmm", "But", "Let me check"."""
    clause = point.clause
    first = [word for word in clause.words[:4] if not is_filler(word) or is_doubt(word)]
    strong = any(map(is_doubt, first[: 2 if point.count else 3]))
    strong |= " ".join(first).removeprefix("on ").startswith("second thought")
    contrast = any_of(clause.links, CONTRASTS)
    if strong and stand.since is None:
        stand = replace(stand, since=clause.start)
    if (contrast or strong) and setting.tentative and point.place <= 1:
        stand = stand.withdrawn(0)
    return replace(
        stand,
        strongly=stand.strongly or strong,
        supposed=stand.supposed and not strong,
        doubted=stand.doubted or strong or contrast or any(word.startswith(_CHECKS) for word in clause.words),
    )


def _after_clause(stand: Stand, earlier: Earlier, setting: Setting, point: Point) -> tuple[Stand, Earlier]:
    clause, following = point.clause, point.following
    denied, words = without_opinion(plain_start(clause.words))
    denied |= earlier.disbelieved and "that" in clause.links
    right = affirms(words)
    limited = point.follows_at_once or (following is not None and any_of(following.links, _LIMITS))
    wrong = (denied and right) or (not setting.words_only and refuses(words, point, stand, earlier))
    stand = replace(stand, repair=stand.repair.then(clause, opens=not (point.place and point.count)))
    states = None if point.follows_at_once and any_of(clause.words, ANSWERS) else stand.repair.states  # a second answer
    if states == "other":
        stand = replace(stand.withdrawn(clause.start), repaired=clause.start)
    elif (wrong and not limited) or admits(clause, stand, words_only=setting.words_only):
        stand = stand.withdrawn(clause.start)
    elif states == "own" or (right and not denied):
        stand = stand.affirmed()
    return stand, earlier.and_then(clause, words, denied=denied)
