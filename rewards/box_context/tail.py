"""Reads the text after an answer clause by clause, to its end: whether it takes the answer back.

The sentence of the answer itself is read by `Continuation` up to its first clause; here follow its other clauses and
the sentences after it. A pronoun means the answer unless the sentence names another candidate."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence

from rewards.box_context.admission import admits_mistake, gives_up, is_slip
from rewards.box_context.clauses import OWN, Clause, Sentence, is_doubt, plain_start, sentences_of
from rewards.box_context.lead import Lead
from rewards.box_context.predicate import is_falsity, is_other_property, verb_group
from rewards.box_context.repair import Repair
from rewards.box_context.subject import (
    Subject,
    is_verdict,
    leads_elsewhere,
    mentions_another,
    names_another,
    subject_of,
    without_opinion,
)
from rewards.box_context.words import (
    ANSWERS,
    ASSUMPTIONS,
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
    TRUTHS,
    UNCERTAIN,
    VERBS,
    any_of,
    is_filler,
    spelled_out,
)

_LONGEST = 4000
"""Characters after an answer that are read."""
_NEAR = 240
"""Characters before an answer that are read."""
_LIMITS = frozenset("that if when where unless provided".split())
"""What is said before these is said of some cases."""
_OMISSIONS = frozenset("overcounts undercounts overlooks forgets neglects ignores omits".split())
_ASKS = frozenset("asks asked wants want wanted need needed seek sought".split())
_CHECKS = ("check", "verif", "recheck", "recomput", "plug")
_AFFIRMED = TRUTHS - ANSWERS - frozenset("possible this that it allowed match follow".split()) | {"fine", "consistent"}
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


class Tail:
    """What the text after an answer says of it.

    before: the text that leads to the answer. words_only: the answer is words, so that only first-person statements are
    about it ("No. This is false" is an answer with its reason)."""

    def __init__(self, before: str, answer: str, after: str, *, words_only: bool) -> None:
        self.taken_back = False
        self.repaired: int | None = None
        """Where the clause begins that states another value instead."""
        self._since: int | None = None
        self.text = spelled_out(after[:_LONGEST])
        self._words_only = words_only
        lead = Lead(before)
        opening = _SPLIT.split(before[-_NEAR:])[-1]
        first = _WE.search(opening) and _FIRST.match(after)
        supposed = any_of(lead.words, ("would", "could")) and _IF.match(after)
        guessed = _TENTATIVE.search(opening) or _TENTATIVE.search(_CLAUSE_END.split(after[:_NEAR])[0])
        self._tentative = lead.conditional or bool(guessed or first or supposed)
        self._conditioned = lead.supposes
        self._doubted = self._strongly = False  # by "but" or a check; by "wait"
        self._supposed = self._carried = False  # by "suppose" until the paragraph ends; by "if" in the last sentence
        self._conditional = self._other = self._refuted = self._own = self._followed = False  # in this sentence
        self._repair = Repair()
        for place, sentence in enumerate(sentences_of(self.text, answer)):
            self._read(place, sentence)

    @property
    def doubt(self) -> str | None:
        """The text from where it begins to doubt the answer: an answer that is stated there replaces it."""
        return None if self._since is None else self.text[self._since :]

    def _read(self, place: int, sentence: Sentence) -> None:
        self._conditional = self._other = self._refuted = self._own = self._followed = False
        everything = [word for clause in sentence.clauses for word in clause.words]
        if self._asks_another(everything) or self._holds_otherwise(place, sentence.clauses):
            self._take_back(sentence.clauses[0].start)
        disbelieved = False
        for count, clause in enumerate(sentence.clauses):
            self._open(place, count, clause)
            if sentence.ends == "?":
                continue
            following = sentence.clauses[count + 1].links if count + 1 < len(sentence.clauses) else ()
            self._repair = self._repair.then(clause, opens=not (place and count))
            self._conditional |= any_of((*clause.links, *clause.words), UNCERTAIN)
            conclusion = sentence.clauses[count + 1].words if any_of(following, CONCLUSIONS) else ()
            denied, words = without_opinion(plain_start(clause.words))
            denied |= disbelieved and "that" in clause.links
            affirms = self._affirms(words)
            limited = not (place or count) or any_of(following, _LIMITS)
            refused = not limited and (self._refuses(place, clause, words, conclusion) or (denied and affirms))
            stated = self._repair.states
            if place + count == 0 and any_of(clause.words, ANSWERS):
                stated = None  # a second answer, and no repair
            if stated is not None:
                self.repaired = clause.start if stated == "other" else None
            if stated == "other" or refused or self._admits(clause):
                self._take_back(clause.start)
            elif stated == "own" or (affirms and not denied):
                self.taken_back = self._doubted = self._strongly = False
                self._since = None
            disbelieved = denied and not words
            self._own |= OWN in words
            self._followed = subject_of(words)[0] == "pronoun"
            self._refuted |= leads_elsewhere(words)
            self._other |= mentions_another(clause.words) or (names_another(words) and not self._own)
        self._carried = place > 0 and any("if" in clause.links for clause in sentence.clauses)
        self._supposed |= any_of(everything, ASSUMPTIONS)
        self._supposed &= sentence.ends != ""

    def _open(self, place: int, count: int, clause: Clause) -> None:
        """Note a doubt or contrast with which a clause opens: "Wait", "Hmm", "But", "Let me check"."""
        first = [word for word in clause.words[:4] if not is_filler(word) or is_doubt(word)]
        strong = any(map(is_doubt, first[: 2 if count else 3]))
        strong |= " ".join(first).removeprefix("on ").startswith("second thought")
        contrast = any_of(clause.links, CONTRASTS)
        if strong and self._since is None:
            self._since = clause.start
        if (contrast or strong) and self._tentative and place <= 1:
            self._take_back(0)
        self._strongly |= strong
        self._supposed &= not strong
        self._doubted |= strong or contrast or any(word.startswith(_CHECKS) for word in clause.words)

    def _take_back(self, start: int) -> None:
        self.taken_back = True
        self._since = start if self._since is None else self._since

    def _refuses(self, place: int, clause: Clause, words: Sequence[str], conclusion: Sequence[str]) -> bool:
        """Whether a clause says of the answer that it is wrong, or that another one is right."""
        hypothetical = self._conditional or ((self._supposed or self._carried) and not self._strongly)
        if hypothetical or self._words_only:
            return False
        if not clause.links and is_verdict(words) and not self._refuted:
            return place == 1 or self._strongly
        if self._strongly and list(words) == ["#"] and len(clause.words) > 1:  # "Actually 43"
            return True
        if self._strongly and any_of(clause.links, CONSEQUENCES) and any_of(words[:1], NAMES) and OWN not in words:
            return any_of(words[1:2], COPULAS) and list(words[2:3]) == ["#"]  # "so the total is 43"
        subject, predicate = subject_of(words)
        if "which" in clause.links and (place == 0 or (self._followed and self._doubted)):  # "negative, which is wrong"
            subject, predicate = "pronoun", words
        near = place <= 1 or self._doubted or self._own
        if subject == "pronoun" and not (near and (self._strongly or self._own or not self._other)):
            return False
        if subject is None or (subject == "own" and (clause.links or words[0] != OWN) and not self._doubted):
            return False
        return self._predicate(predicate, subject, conclusion, contrasted=any_of(clause.links, CONTRASTS))

    def _predicate(
        self, words: Sequence[str], subject: Subject, conclusion: Sequence[str], *, contrasted: bool
    ) -> bool:
        if any_of(words[:1], _OMISSIONS) or list(words[:2]) == ["double", "counts"]:
            return self._doubted
        if any_of(words[:1], ("contains", "has")) and not any_of(words[1:2], ("to",)):
            return is_slip(words[1:4])
        group, rest = verb_group(words)
        plain = [word for word in rest if not is_filler(word)]
        if not group or any_of(group, ("would", "might")) or "only" in group or _is_restricted(rest):
            return False
        if any_of(group, NEGATORS):
            denied = any_of(plain[:1], TRUTHS, ("what", "among")) or OWN in plain[:2] or (contrasted and not plain)
            denied |= subject == "own" and self._strongly and not is_other_property(group, rest, conclusion)
            return denied and not any_of(plain[:1], NEUTRAL)
        if any_of(group, FAILURES) or (rest[:1] == ["no"] and plain[1:2] == ["sense"]):
            return True
        if any_of(group, COPULAS, ("be",)) and plain == ["#"] and subject != "own":  # "it is 43", "it should be 43"
            return self._strongly or "should" in group or (subject == "answer" and not self._other)
        slip = any_of((*group, *rest[:1]), ("a", "an", "my", "our", "just")) and is_slip(rest[:4])
        return slip or is_falsity([word for word in rest if word not in ESTIMATES])

    def _admits(self, clause: Clause) -> bool:
        if any_of((*clause.links, *clause.words), UNCERTAIN):
            return False
        words = plain_start(clause.words)
        if admits_mistake(words, doubted=self._strongly):
            return True
        return not self._words_only and gives_up(words, doubted=self._doubted)

    def _affirms(self, words: Sequence[str]) -> bool:
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

    def _holds_otherwise(self, place: int, clauses: Sequence[Clause]) -> bool:
        """Whether an answer that holds on a condition is followed by one on another: "and if not, it is 10"."""
        if not self._conditioned or place > 1:
            return False
        for count, clause in enumerate(clauses):
            if "if" in clause.links and clause.links[0] in ("and", "but", "while", "if"):
                negated = any_of(clause.words, NEGATORS)
                later = clauses[count if negated else count + 1 :]
                return (place == 0 or negated) and _gives_value([word for one in later for word in one.words])
        return False

    def _asks_another(self, words: Sequence[str]) -> bool:
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
