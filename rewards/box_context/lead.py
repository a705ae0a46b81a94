"""Reads the words of a clause that lead to a box."""

from __future__ import annotations

import re

from rewards.box_context.words import (
    ANSWERS,
    ASSUMPTIONS,
    BOUNDS,
    COMPARATIVES,
    CONNECTIVES,
    COPULAS,
    DENIALS,
    DIFFERS,
    FUNCTIONS,
    MISTAKENLY,
    MULTIPLES,
    NAMES,
    NEGATORS,
    NEUTRAL,
    OPINIONS,
    PRONOUNS,
    REFUSALS,
    VERBS,
    any_of,
    is_filler,
    is_part,
    spelled_out,
    tokens,
)
from rewards.vocabulary.number_words import is_number_word

_NEAR = 240
"""Characters before a box that are read."""
_FEW = 5
"""Words between a negation and what it denies."""
_NAMED = re.compile(r"[A-Za-z]\w{0,2}\s*=[\s$(\[\\{]*$")
"""Matches `x =` before a box."""
_BEFORE_NAMES = {"that", "out", "it", "whether", "previous", "above", "earlier", "first", "initial"}
_PAIRS = (["other", "than"], ["except", "for"], ["apart", "from"], ["aside", "from"], ["different", "from"])


class Lead:
    """The words of a clause that lead to a box. Values among them are `#`."""

    def __init__(self, before: str) -> None:
        text = spelled_out(before[-_NEAR:])
        named = _NAMED.search(text)
        found = tokens(text[: named.start()] if named else text)
        self.colon = bool(found) and found[-1].text == ":"
        found = found[:-1] if self.colon else found
        sentence = start = len(found)
        while start and found[start - 1].kind in ("word", "value"):
            start -= 1
        while sentence and found[sentence - 1].kind != "stop":
            sentence -= 1
        before_it = {token.text for token in found[sentence:]}
        self.supposes = any_of(before_it, ASSUMPTIONS, ("if",))
        """The sentence begins with a condition."""
        self.conditional = self.supposes and any_of(before_it, ("would", "could"))
        words = ["#" if token.kind == "value" else token.text for token in found[start:]]
        while words and (is_filler(words[-1]) or words[-2:] == ["#", "or"]):  # "not 18 or 17"
            words = words[: -1 if is_filler(words[-1]) else -2]
        self.words = words

    def denies(self) -> bool:
        """Whether the box is what a negation, an exception, a bound or a falsity is about."""
        if not self.words:
            return False
        exception = self._is_exception()
        if exception is not None:
            return exception
        return self._is_bound() or self._is_negated() or self._is_disbelieved() or self._is_mistake()

    def changes(self) -> bool:
        """Whether the box is an operand of an operation in words: "half of 17", "2 times 17"."""
        words = self.words
        of = words[-1:] == ["of"]
        head = (words[:-1] if of else words)[-1:]
        if any_of(head, MULTIPLES) or (of and (any_of(head, FUNCTIONS) or any(map(is_part, head)))):
            return True
        if words[-1:] == ["times"] or words[-2:] in (["divided", "by"], ["multiplied", "by"]):
            first = words[: -1 if words[-1] == "times" else -2][-1:]
            return any_of(first, ANSWERS, "#") or any(map(is_number_word, first))
        return words[-1:] in (["plus"], ["minus"], ["negative"])

    def _is_exception(self) -> bool | None:
        """Whether the box is an exception ("other than 17") and not one from a negation ("none other than 17"); None
        if it is neither."""
        words = self.words
        if words[-1] in ("except", "besides", "but") or words[-2:] in _PAIRS:
            if words[-1] == "but" and not any(word.startswith(("any", "every", "all")) for word in words):
                return False
            return not any_of(words[:-1], NEGATORS, ("no", "none", "nothing"))
        alike = words[-2:] in (["rather", "than"], ["instead", "of"], ["but", "not"])
        return True if alike or words[-1] in ("unlike", "excluding", "without") else None

    @property
    def bounds(self) -> bool:
        """Whether the box is a bound, which may be attained: "is at most 17", "cannot exceed 17"."""
        return bool(self.words) and (self._is_bound() or self.words[-1] == "exceed")

    def _is_bound(self) -> bool:
        """Whether the box bounds the answer: "is at most 17", "less than or equal to 17", "at least as large as 17"."""
        words = self.words
        if words[-3:] == ["or", "equal", "to"]:
            words = words[:-3]
        elif words[-3:-1] == ["at", "or"]:
            words = [*words[:-3], words[-1]]
        if words[-5:-2] in (["at", "least", "as"], ["at", "most", "as"]) and words[-1] == "as":
            return True
        if not words:
            return False
        if words[-1] == "than" and any_of(words[-2:-1], BOUNDS):
            return any_of(words[-5:-2], COPULAS) or not any_of(words[-5:-2], NEGATORS, ("no",))
        before = None
        if words in (["at", "most"], ["at", "least"]):
            return True
        if words[-2:] in (["at", "most"], ["at", "least"], ["up", "to"], ["close", "to"]):
            before = words[:-2]
        elif words[-1] in COMPARATIVES:
            before = words[:-1]
        if before is None:
            return words[-1] in DIFFERS or any_of(words[-2:-1] if words[-1] == "from" else (), DIFFERS)
        return any_of([word for word in before if not is_filler(word)][-1:], COPULAS)

    def _is_negated(self) -> bool:
        """Whether a negated verb group leads to the box, with no clause between: "cannot possibly be 17"."""
        words = self.words
        for count in range(min(len(words), _FEW + 1)):
            word, left = words[-1 - count], words[: len(words) - 1 - count]
            if word in NEGATORS or (word == "longer" and left[-1:] == ["no"]):
                return True
            if word in CONNECTIVES | PRONOUNS | NEUTRAL | {"#", "than"}:
                return False
            if self.colon and word not in VERBS | NAMES and not is_filler(word):
                return False
            finite = word in VERBS and word not in ("be", "been", "equal", "have")
            if finite and left and left[-1] not in NEGATORS and not is_filler(left[-1]):
                return False
        return False

    def _is_disbelieved(self) -> bool:
        """Whether the clause is what somebody does not believe: "I do not think that the answer is 17"."""
        words = self.words
        for place, word in enumerate(words):
            rest = words[place + 1 :]
            if any_of(rest, CONNECTIVES, "#"):
                continue
            if word in NEGATORS | {"no"} and any_of(rest[:3], OPINIONS) and not any_of(rest, NEUTRAL):
                return True
            if word in MISTAKENLY or (word in REFUSALS and any_of(rest[:1], ("that", "to"))):
                return True
            if word not in DENIALS or any_of(words[place - 1 : place], NEGATORS, ("no",)):
                continue
            plain = {other for other in rest if not is_filler(other)}
            if plain <= VERBS | NAMES | _BEFORE_NAMES and ("out" in plain or word[:4] != "rule"):
                return True
        return False

    def _is_mistake(self) -> bool:
        """Whether the box is called a mistake: "a wrong guess would be 17". What is counted is none: "the number of
        wrong answers is 5", "the probability of a wrong answer is"."""
        words = self.words
        for place, word in enumerate(words):
            rest = words[place + 1 :]
            if word in ("common", "easy", "typical", "frequent") and any_of(rest[:1], ("mistake", "error")):
                rest = ["answer", *rest[1:]]
            elif word not in REFUSALS or any_of(words[max(0, place - 3) : place], "of for with many".split()):
                continue
            if self.colon and not place and not rest:
                return True
            plain = [other for other in rest if not is_filler(other)]
            if any_of(plain[:1], NAMES - {"answers"}) and all(other in VERBS | {"to"} for other in plain[1:]):
                return True
        return False
