"""Reads the text after an answer clause by clause, to its end: whether it takes the answer back.

The sentence of the answer itself is read by `Continuation` up to its first clause; here follow its other clauses and
the sentences after it. A pronoun means the answer unless the sentence names another candidate."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence

from rewards.box_context.admission import PREVIOUS, admits_mistake, gives_up, is_slip
from rewards.box_context.clauses import OWN, Clause, Sentence, is_doubt, plain_start, sentences_of
from rewards.box_context.lead import Lead
from rewards.box_context.predicate import is_falsity, verb_group
from rewards.box_context.words import (
    ANSWERS,
    CONTRASTS,
    COPULAS,
    FAILURES,
    FALSITY,
    NAMES,
    NEGATORS,
    NEUTRAL,
    TRUTHS,
    VERBS,
    any_of,
    is_filler,
    spelled_out,
)

_LONGEST = 4000
"""Characters after an answer that are read."""
_NEAR = 240
"""Characters before an answer that are read."""
_WHETHER = frozenset("if provided unless whether suppose assume assuming otherwise general".split())
"""A clause with one of these says nothing of the answer as it is."""
_LIMITS = frozenset("that if when where unless provided".split())
"""What is said before these is said of some cases."""
_OTHERS = frozenset(
    "other others another remaining latter former second root roots case cases candidate candidates option options".split()
)
_FOUND = frozenset(
    "get gets got give gives gave giving yields yield obtain obtains take taking try trying for say saying guess think".split()
)
_OMISSIONS = frozenset("overcounts undercounts overlooks forgets neglects ignores omits".split())
_ASKS = frozenset("asks asked wants want need seek".split())
_AFFIRMED = TRUTHS - {"possible", "this", "that", "it", "allowed", "match", "follow"} | {
    "fine",
    "consistent",
    "confirmed",
}
_FOUND_IT = "(?:thought|got|guessed|said|answered|calculated|computed|found|obtained|believed|had)"
_TENTATIVE = re.compile(
    r"\b(?:tempt\w+|(?:naive|quick|first|initial|hasty|obvious|intuitive)\s+(?:\w+\s+)?(?:guess|answer|thought|attempt|"
    r"instinct|idea|impression|estimate)|(?:might|would|may)\s+(?:naively\s+|first\s+)?(?:guess|think)|"
    rf"at\s+first\s+(?:glance|sight)|naively|(?:at\s+first|initially|originally),?\s+(?:I|we)\s+{_FOUND_IT}|"
    rf"(?:I|we)\s+(?:first|initially|originally)\s+{_FOUND_IT})\b",
    re.IGNORECASE,
)
_FIRST = re.compile(r"[^.!?;,]{0,20}\b(?:at\s+first|initially|originally)\b", re.IGNORECASE)
_WE = re.compile(r"\b(?:I|[Ww]e)\b")
_SPLIT = re.compile(r"[.!?]\s|\n\s*\n|\b(?:but|however|though|yet)\b", re.IGNORECASE)


class Tail:
    """What the text after an answer says of it.

    before: the text that leads to the answer. words_only: the answer is words, so that only first-person statements are
    about it ("No. This is false" is an answer with its reason)."""

    def __init__(self, before: str, answer: str, after: str, *, words_only: bool) -> None:
        self.taken_back = False
        self._since: int | None = None
        self._text = spelled_out(after[:_LONGEST])
        self.words_only = words_only
        self.doubted = self.strongly = self.supposed = self.carried = False
        lead = Lead(before)
        opening = _SPLIT.split(before[-_NEAR:])[-1]
        self.tentative = lead.conditional or bool(
            _TENTATIVE.search(opening) or (_WE.search(opening) and _FIRST.match(after))
        )
        self.supposes = lead.supposes
        for place, sentence in enumerate(sentences_of(self._text, answer)):
            self._read(place, sentence)

    @property
    def doubt(self) -> str | None:
        """The text from where it begins to doubt the answer: an answer that is stated there replaces it."""
        return None if self._since is None else self._text[self._since :]

    def _read(self, place: int, sentence: Sentence) -> None:
        self.other = self.own = self.conditional = False
        everything = [word for clause in sentence.clauses for word in clause.words]
        if self._asks_another(everything) or self._supposes_else(place, sentence.clauses):
            self._take_back(sentence.clauses[0].start)
        for count, clause in enumerate(sentence.clauses):
            self._opens(place, count, clause)
            if sentence.ends == "?":
                continue
            words = plain_start(clause.words)
            self.conditional |= any_of((*clause.links, *clause.words), _WHETHER)
            following = sentence.clauses[count + 1].links if count + 1 < len(sentence.clauses) else ()
            refused = (place or count) and not any_of(following, _LIMITS) and self._refuses(place, clause, words)
            if refused or self._admits(clause, words):
                self._take_back(clause.start)
            elif self._affirms(words):
                self.taken_back = self.doubted = self.strongly = False
                self._since = None
            self.own |= OWN in words
            self.other |= any_of(words, _OTHERS) or (_names_another(words) and not self.own)
        self.carried = any("if" in clause.links for clause in sentence.clauses)
        self.supposed |= any_of(everything, ("suppose", "assume", "assuming"))
        self.supposed &= sentence.ends != ""

    def _opens(self, place: int, count: int, clause: Clause) -> None:
        """Note a doubt or contrast with which a clause opens: "Wait", "Hmm", "But", "Let me check"."""
        first = [word for word in clause.words[:4] if not is_filler(word) or is_doubt(word)]
        strong = any(map(is_doubt, first[: 2 if count else 3]))
        strong |= first[:2] == ["second", "thought"] or first[:3] == ["on", "second", "thought"]
        contrast = any_of(clause.links, CONTRASTS)
        if strong and self._since is None:
            self._since = clause.start
        if (contrast or strong) and self.tentative and place <= 1:
            self._take_back(0)
        self.strongly |= strong
        self.supposed &= not strong
        checks = any(word.startswith(("check", "verif", "recheck", "recomput", "plug")) for word in clause.words)
        self.doubted |= strong or contrast or checks

    def _take_back(self, start: int) -> None:
        self.taken_back = True
        self._since = start if self._since is None else self._since

    def _refuses(self, place: int, clause: Clause, words: Sequence[str]) -> bool:
        """Whether a clause says of the answer that it is wrong."""
        if self.conditional or ((self.supposed or self.carried) and not self.strongly):
            return False
        if self.words_only:
            return False
        if not clause.links and _is_verdict(words):
            return place == 1 or self.strongly
        if self.strongly and words == ("#",) and clause.words != words:  # "Actually 43"
            return True
        subject, predicate = _subject(words)
        if subject == "pronoun" and not self._means_answer(place):
            return False
        if subject == "check":
            group, rest = verb_group(predicate)
            return any_of(group, FAILURES) or (any_of(group, NEGATORS) and any_of(rest[:1], TRUTHS))
        if subject is None or (subject == "own" and not self.doubted):
            return False
        return self._predicate(predicate, own=subject == "own")

    def _means_answer(self, place: int) -> bool:
        near = place <= 1 or self.doubted or self.own
        return near and (self.strongly or self.own or not self.other)

    def _predicate(self, words: Sequence[str], *, own: bool) -> bool:
        if any_of(words[:1], _OMISSIONS) or list(words[:2]) == ["double", "counts"]:
            return self.doubted
        group, rest = verb_group(words)
        plain = [word for word in rest if not is_filler(word)]
        if not group or any_of(group, ("would", "might")) or "only" in group or _is_restricted(rest):
            return False
        if any_of(group, NEGATORS):
            denied = any_of(plain[:1], TRUTHS, ("what",)) or OWN in plain[:2] or (own and self.strongly)
            return denied and not any_of(plain[:1], NEUTRAL)
        if self.strongly and not own and any_of(group, COPULAS) and plain == ["#"]:  # "No, it is 43"
            return True
        if any_of(group, FAILURES) or rest[:1] == ["no"] and any_of(plain[1:2], ("sense",)):
            return True
        slip = any_of((*group, *rest[:1]), ("a", "an", "my", "our", "just")) and is_slip(rest[:4])
        return slip or is_falsity([word for word in rest if word not in ("approximation", "estimate")])

    def _admits(self, clause: Clause, words: Sequence[str]) -> bool:
        if any_of((*clause.links, *clause.words), _WHETHER):
            return False
        if admits_mistake(words, doubted=self.strongly):
            return True
        return not self.words_only and gives_up(words, doubted=self.doubted)

    def _affirms(self, words: Sequence[str]) -> bool:
        """Whether a clause says of the answer that it is right."""
        if words[:1] == ("yes",) or words in (("correct",), ("right",)):
            return True
        subject, predicate = _subject(words)
        group, rest = verb_group(predicate)
        plain = [word for word in rest if not is_filler(word)]
        if (
            subject is None
            or any_of(group, NEGATORS, FAILURES, ("would", "might", "should"))
            or any_of(rest, ("that", "to"))
        ):
            return False
        if any_of(group, VERBS):
            return any_of(plain[:1], _AFFIRMED - ANSWERS) or (subject == "answer" and plain[:1] == [OWN])
        return any_of(predicate[:1], ("works", "checks", "holds", "fits", "satisfies"))

    def _supposes_else(self, place: int, clauses: Sequence[Clause]) -> bool:
        """Whether an answer that holds on a condition is followed by one on another: "and if not, it is 10"."""
        if not self.supposes or place > 1:
            return False
        for count, clause in enumerate(clauses):
            if "if" in clause.links and (clause.links[0] in ("and", "but", "while", "if")):
                words = [word for later in clauses[count:] for word in later.words]
                negated = any_of(clause.words, NEGATORS)
                words = words if negated else words[len(clause.words) :]
                valued = any(any_of((one,), COPULAS, "=") and two == "#" for one, two in itertools.pairwise(words))
                return valued and (place == 0 or negated)
        return False

    def _asks_another(self, words: Sequence[str]) -> bool:
        """Whether a sentence says that something else is asked for, and gives its value."""
        place = next((at for at, word in enumerate(words) if word in _ASKS), None)
        if place is None or any_of(words[place + 1 : place + 2], ("to", "that")):
            return False
        asking = any_of(words[:place], ("question", "problem", "we", "they", "it"))
        rest = words[place + 1 :]
        valued = any(one in ("is", "equals", "=") and two == "#" for one, two in itertools.pairwise(rest))
        return asking and valued and OWN not in rest


def _subject(words: Sequence[str]) -> tuple[str | None, Sequence[str]]:
    """Whether a clause is about the answer (answer, own, pronoun) or a check of it, and its predicate."""
    place = 0
    while any_of(words[place : place + 1], PREVIOUS, ("this", "that")):
        place += 1
    head = words[place] if place < len(words) else ""
    if head in ANSWERS - {"answers"} or head == "value":
        rest = words[place + 1 :]
        rest = rest[1:] if any_of(rest[:1], (OWN, "above")) else rest
        return "answer", rest
    if head in ("verification", "check"):
        return "check", words[place + 1 :]
    if any_of(words[:1], ("this", "that", "it")):
        return "pronoun", words[2:] if any_of(words[1:2], NAMES) else words[1:]
    if words[:1] == (OWN,):
        return "own", words[1:]
    return ("own", words[3:]) if words[1:3] == ("=", OWN) else (None, words)


def _names_another(words: Sequence[str]) -> bool:
    """Whether a clause names another candidate: "40 would be", "x = 40", "for 40", "we get 40"."""
    if words[:1] == ("#",) and not any_of(words[1:2], ("/", "=", "+", "-", "<", ">", "#")):
        return True
    for one, two, three in zip(("", *words), words, (*words[1:], ""), strict=False):
        if three == "#" and (two in _FOUND or (two == "=" and len(one) == 1 and one.isalpha())):
            return True
    return False


def _is_verdict(words: Sequence[str]) -> bool:
    """Whether a clause is nothing but a refusal: "No", "Wrong", "Not correct"."""
    plain = [word for word in words if not is_filler(word)]
    if plain[:1] == ["not"]:
        return "only" not in words and (len(plain) == 1 or (len(plain) == 2 and plain[1] in TRUTHS))
    return len(plain) == 1 and "the" not in words and plain[0] in FALSITY | {"no", "nope", "nah"}


def _is_restricted(rest: Sequence[str]) -> bool:
    """Whether a predicate holds of some values alone ("wrong for n = 0"), or of what follows it ("wrong to say")."""
    for place, word in enumerate(rest):
        if word in ("for", "when", "unless") and any(
            len(other) == 1 or other in ("all", "every", "any") for other in rest[place + 1 : place + 4]
        ):
            return True
        if word in ("to", "that") and not (rest[place + 1 : place + 2] == ["be"] and any_of(rest[place:], TRUTHS)):
            return True
    return False
