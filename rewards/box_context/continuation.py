"""Reads how the sentence goes on after a box."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence

from rewards.box_context.predicate import is_falsity, is_other_property, verb_group
from rewards.box_context.subject import mentions_another
from rewards.box_context.words import (
    ANSWERS,
    APPROXIMATE,
    BINARY,
    COMPARATIVES,
    CONCLUSIONS,
    CONDITIONS,
    CONNECTIVES,
    CONSEQUENCES,
    CONTRASTS,
    DIFFERS,
    FAILURES,
    HEDGES,
    NAMES,
    NEGATORS,
    NEUTRAL,
    PLURALS,
    PRONOUNS,
    REFUSALS,
    SUBJECTS,
    TRUTHS,
    UNARY,
    VERBS,
    Token,
    any_of,
    is_filler,
    is_part,
    is_value,
    multiplies,
    spelled_out,
    tokens,
)
from rewards.vocabulary.number_words import is_number_word
from rewards.vocabulary.units import changes_value, is_plural, unit_named

_NEAR = 240
"""Characters after a box that are read."""
_MOST_NOUNS = 4
"""Words of which the last one is the noun that is counted."""
_MOST_ASKED = 5
"""Words and marks between a box and a question mark that is about it."""
_FEW = 4
"""Words of a subject."""
_END = Token("stop", "", -1)
_OPENED = re.compile(r"[^\w=+*<>^%~|\\]")
_PERCENT = ("\\", "%", "percent")
_JOINING = {"or", "and", ",", ";", "(", "/", "versus"} | HEDGES
_BETWEEN = {"it", "could", "might", "may", "be", "is", "answer"}
_VALUE = re.compile(r"(-?(?:\d[\d.,/]*(?<![.,/])|\\(?:[dt]?frac|sqrt|pi)(?![a-z])(?:\s*\{[^{}$\n]*\})*))([^$\n.,;\\]*)")
_NO_NOUNS = VERBS | CONNECTIVES | PRONOUNS | REFUSALS | SUBJECTS | FAILURES | NEGATORS | DIFFERS
_CONFIRMED = {"right", "yes", "correct", "indeed"}


class Continuation:
    """A reader over what follows a box. several: the box holds several values."""

    def __init__(self, after: str, *, several: bool) -> None:
        self.text = spelled_out(after[:_NEAR])
        self.tokens = tokens(self.text)
        self.several = several
        opening = self._skip(0, (")", "]"))
        units = self._skip(opening, _PERCENT)
        self.percent = units > opening
        self.start, self.counted = self._after_nouns(units)
        """Where the sentence goes on after the unit or the nouns that are counted, and whether there are such nouns."""
        self.measured = self.start > opening

    def token(self, place: int) -> Token:
        """The token at a place; an end of a sentence after the last one."""
        return self.tokens[place] if place < len(self.tokens) else _END

    def words(self, start: int | None = None) -> list[str]:
        """The rest of the sentence from a place on, with values as `#`. By default, all after what is counted."""
        rest = self.tokens[self.start if start is None else start :]
        found = itertools.takewhile(lambda token: token.kind != "stop", rest)
        return ["#" if is_value(token) else token.text for token in found]

    def _skip(self, place: int, marks: Sequence[str]) -> int:
        while self.token(place).text in marks:
            place += 1
        return place

    def denies(self) -> bool:
        """Whether the box is refused, doubted, or an operand of what follows."""
        if self._is_question():
            return True
        place = self.start
        while self.token(place).kind != "stop" and _opens(self.token(place).text):
            if self.token(place).text == "and" and self._is_fraction(place + 1):
                return True
            place += 1
        strict = all(token.text != "and" for token in self.tokens[self.start : place])
        words = self.words(place)
        if not words or words[0] in CONSEQUENCES:
            return False
        if words[0] in CONTRASTS:
            return self._contrasted(words[1:])
        return self._refused(words, place, strict=strict) or self._calculated(words) or self._hedged(words)

    def other_value(self) -> str | None:
        """The other value that the sentence offers, as in "or maybe 18"; None if there is none. A value with a unit of
        its own is the same value in another unit."""
        place = self._joined()
        found = _VALUE.match(self.text, self.tokens[place].start) if place is not None else None
        if place is None or found is None or "=" in found.group(2):
            return None
        following = self.tokens[place + 1] if place + 1 < len(self.tokens) else _END
        unit = unit_named(following.text, single=False) if following.kind == "word" else None
        own = unit_named(self.tokens[0].text, single=False) if self.measured else None
        if following.text in ("%", "\\") or (unit is not None and unit != own):
            return None
        return found.group().strip() if self.text[: found.start()].endswith(("$", "\\(")) else found.group(1)

    def _joined(self) -> int | None:
        """The place of the value that "or", "and", a comma or a hedge joins to the box; None without one."""
        joined: set[str] = set()
        place = self.start
        while place < len(self.tokens) and (token := self.tokens[place]).kind != "stop":
            following = self.tokens[place + 1] if place + 1 < len(self.tokens) else _END
            if token.kind == "value":
                if len(token.text) == 1 and token.text.isalpha() and following.text == "=" and "or" in joined:
                    place += 2  # `or x = 6`
                    continue
                ended = following.kind == "stop" or following.text in (",", "and", "or")
                if not joined or (joined <= {",", ";"} and not ended) or ("and" in joined and self.measured):
                    return None
                return place
            if token.text in _JOINING:
                joined.add(token.text)
            elif token.text in APPROXIMATE or not (token.text in _BETWEEN or is_filler(token.text)):
                return None
            place += 1
        return None

    def _after_nouns(self, place: int) -> tuple[int, bool]:
        """The place after a unit or after the nouns that are counted, and whether there are such nouns."""
        word = self.token(place)
        if word.kind == "word" and unit_named(word.text, single=False) and word.text not in ("in", "are"):
            return place + 1, False
        for end in range(place, place + _MOST_NOUNS):
            token = self.token(end)
            if token.kind != "word" or token.text in _NO_NOUNS or changes_value([token.text]):
                return place, False
            if is_plural(token.text):
                return end + 1, True
        return place, False

    def _is_fraction(self, place: int) -> bool:
        """Whether "a half" follows."""
        one, two = self.token(place), self.token(place + 1)
        return is_part(one.text) or (is_part(two.text) and (one.text == "a" or is_number_word(one.text)))

    def _is_question(self) -> bool:
        """Whether the sentence is a question, which ends here or soon, and is not answered with yes."""
        end = next((place for place, token in enumerate(self.tokens) if token.kind == "stop"), None)
        if end is None or self.tokens[end].text != "?" or end > _MOST_ASKED:
            return False
        confirmed = self.tokens[end + 1 : end + 2]
        if end > 1 and self.tokens[end - 2].text == ",":  # ", right?"
            confirmed = self.tokens[end - 1 : end]
        return not any_of((token.text for token in confirmed), _CONFIRMED)

    def _contrasted(self, words: list[str]) -> bool:
        """Whether what follows "but" takes the box back: another value, a negation or a falsity."""
        if any_of(words[:1], NEGATORS):  # "but not 18"
            return words[1:2] != ["#"]
        if mentions_another(words[:_FEW]):  # "but the other root has to be discarded"
            return "#" in words or (any_of(words, TRUTHS) and not any_of(words, NEGATORS, REFUSALS, FAILURES))
        return any_of(words, NEGATORS, REFUSALS, FAILURES, "#")

    def _refused(self, words: list[str], place: int, *, strict: bool) -> bool:
        """Whether the box is the subject of a predicate that refuses it, or beside such a predicate: ", which is
        wrong", "(wrong)". words: those from a place on."""
        if words[0] in NEGATORS:  # "not 18" is a contrast
            plain = [word for word in words[1:] if not is_filler(word) and word.isalpha()]
            return len(words) == 1 or any_of(plain[:1], TRUTHS, REFUSALS)
        if words[0] in REFUSALS or words[:2] == ["no", ","]:
            return place > 0 or not any(map(is_plural, words[1:2]))  # "5 wrong answers" are counted
        if words[0] in SUBJECTS:
            words = words[2 if any_of(words[1:2], NAMES) else 1 :]
        return self._predicate(words, strict=strict)

    def _predicate(self, words: list[str], *, strict: bool) -> bool:
        """Whether a verb group with its predicate refuses the box. strict: any negation does; else only that of a word
        such as "correct"."""
        first = "".join(words[:1])
        if strict and (
            (first in PLURALS and not self.several) or (self.counted and first not in ("is", "was", "does"))
        ):
            return False
        group, predicate = verb_group(words)
        if any_of(group, FAILURES) or (not group and first in DIFFERS):
            return True
        if not any_of(group, VERBS):
            return False
        if any_of(group, ("would", "could")) and any_of(predicate, ("if", "had", "unless")):
            return True
        if "should" in group and "been" in group:
            return True
        if any_of(group, NEGATORS):
            if any_of(predicate[:1], TRUTHS) or not strict:
                return any_of(predicate[:1], TRUTHS)
            so = next((place for place, word in enumerate(predicate) if word in CONCLUSIONS), len(predicate))
            other = is_other_property(group, predicate, predicate[so + 1 :])
            return not (other or any_of(predicate[:1], NEUTRAL))
        return is_falsity(predicate)

    def _calculated(self, words: list[str]) -> bool:
        """Whether an operation follows: "times 2", "thousand", "more than 3"."""
        first, near = words[0], words[1:5]
        if first in ("squared", "cubed", "over") and self.measured:  # "meters squared", "points over the year"
            return False
        plain = [word for word in near if not is_filler(word)]
        if first in UNARY or multiplies(first) or (first == "at" and any_of(plain[:1], ("most", "least"))):
            return True
        if first == "of" and self.percent:  # "percent of 200"
            return near[:1] == ["#"]
        if first.endswith("ed") and near[:1] in (["by"], ["from"], ["to"]):
            return near[1:2] == ["#"] and first not in ("rounded", "converted")
        if first in BINARY or words[:3] == ["give", "or", "take"]:
            operand = [word for word in plain if word not in ("of", "or", "take", "minus")]
            return operand[:1] in (["#"], ["itself"]) or any_of(near[:3], ANSWERS, ("power",))
        return first in COMPARATIVES and (any_of(near, ANSWERS) or plain[:2] == ["than", "#"])

    def _hedged(self, words: list[str]) -> bool:
        """Whether the sentence offers something else, or holds only on a condition."""
        if words[0] == "or":
            plain = [word for word in words[1:4] if word not in APPROXIMATE and word.isalpha()]
            if self.other_value() is not None:
                return False
            return (
                words[1:2] == ["-"]
                or changes_value(plain)
                or any_of(plain, NEGATORS, HEDGES, ("so", "something", "any", "thereabouts"))
            )
        if words[0] == "unless":
            return True
        if words[0] in CONDITIONS:
            refuted = any_of(words[1:2], NEGATORS, REFUSALS) and "," in words
            cases = any(
                link in ("and", "but") and value == "#" and condition in CONDITIONS
                for link, value, condition in zip(words, words[1:], words[2:], strict=False)
            )
            open_ended = any_of(words, CONTRASTS) and any_of(words, ("could", "might", "may"))
            return refuted or cases or open_ended or any_of(words, HEDGES)
        return words[0] in HEDGES and "#" in words[1:4]


def is_refusal(predicate: str) -> bool:
    """Whether a text is a predicate that calls its subject wrong, as in "is wrong", and no answer in words, such as
    "cannot be determined"."""
    words = Continuation(predicate, several=False).words(0)
    told = any_of(words[:1], VERBS) and any_of(words, TRUTHS, REFUSALS)
    return told and Continuation(predicate, several=False).denies()


def _opens(word: str) -> bool:
    """Whether a word or mark before a predicate changes nothing."""
    return bool(_OPENED.fullmatch(word)) or word == "and" or is_filler(word)
