"""The words and values around a box as tokens, and the closed classes of English words that its grammar knows."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from rewards.vocabulary.number_words import factor_of, is_number_word

AUXILIARIES = frozenset(
    "does do did can could may might must shall should will would has have had having need needs ca wo sha".split()
)
HYPOTHETICAL = frozenset("would could might may can".split())
COPULAS = frozenset(
    "is are was were be been being am equals equal seems seem looks look appears appear becomes remains proves gets "
    "gives yields makes lies leads".split()
)
VERBS = AUXILIARIES | COPULAS
PLURALS = frozenset("are were do have".split())
"""Verbs of which a number alone is no subject: "3 are wrong" counts."""
NEGATORS = frozenset("not never neither nor hardly scarcely barely".split())
FALSITY = frozenset(
    "wrong incorrect false invalid impossible inadmissible unacceptable infeasible implausible extraneous spurious "
    "bogus mistaken erroneous inaccurate untrue absurd nonsense misleading inconsistent contradictory contradiction "
    "incompatible inapplicable unusable".split()
)
DOUBTFUL = frozenset("unlikely doubtful dubious uncertain questionable".split())
TRAPS = frozenset("mistake blunder trap decoy distractor".split())
ESTIMATES = frozenset("approximation estimate".split())
DISCARDED = frozenset(
    "reject rejected discarded excluded dismissed eliminated ruled thrown disproved disproven refuted disallowed "
    "forbidden prohibited".split()
)
REFUSALS = FALSITY | DOUBTFUL | TRAPS | ESTIMATES | DISCARDED
"""What a predicate says of a box that is not the answer."""
AWAY = frozenset("off out too far short".split())
"""The same, after a copula alone: "is off by one", "is too large"."""
MISTAKENLY = frozenset("wrongly incorrectly falsely mistakenly erroneously".split())
FAILURES = frozenset(
    "fails fail failed contradicts contradict contradicted violates violate violated breaks misses lacks disagrees "
    "conflicts".split()
)
DENIALS = frozenset(
    "doubt doubts deny denies reject rejects rejected discard discards discarded exclude excludes excluded refute "
    "refutes disregard ignore dispute disputes rule rules ruled dismiss dismisses dismissed eliminate eliminated "
    "avoid".split()
)
OPINIONS = frozenset(
    "think believe say said claim suggest mean conclude sure certain clear true assert expect suppose suspect case "
    "reason convinced way".split()
)
"""With a negation before them, they deny the clause that follows: "I do not think that the answer is"."""
TRUTHS = frozenset(
    "correct right valid true possible acceptable allowed admissible answer solution it this that work works fit fits "
    "hold holds satisfy satisfies check match follow suffice make".split()
)
NEUTRAL = frozenset(
    "hard difficult surprising necessary needed required bad depend affect change matter require involve forget "
    "counting including".split()
)
"""With a negation before them, they say nothing about an answer: "it does not depend on n"."""
DIFFERS = frozenset("exceeds overshoots undershoots surpasses differs".split())
TRUE = frozenset("correct real actual true right".split())
"""What the answer is called that is stated instead of another one."""
ANSWERS = frozenset("answer answers solution result guess".split())
NAMES = ANSWERS | frozenset("value total count number choice attempt one root".split())
SUBJECTS = frozenset("which that this it these those".split())
BOUNDS = frozenset("less more fewer greater larger smaller higher lower bigger".split())
COMPARATIVES = BOUNDS | AWAY | frozenset("above below under over beyond near nearly almost close away within".split())
MULTIPLES = frozenset("twice thrice double triple quadruple half".split())
FUNCTIONS = frozenset("square cube root inverse reciprocal negative opposite negation logarithm factorial".split())
UNARY = frozenset("squared cubed factorial doubled halved tripled negated inverted raised".split())
BINARY = frozenset("times plus minus over to".split())
DOUBTS = frozenset("wait actually correction sorry oops whoops hold apologies unfortunately".split())
"""A clause that begins with one of these doubts what was said."""
INTERJECTIONS = frozenset("oh well please ah so and but".split())
"""Words before a clause that say nothing."""
WITHDRAWALS = frozenset("disregard ignore discard reject scratch retract withdraw strike cancel forget".split())
CORRECTIONS = frozenset("make change correct fix".split())
"""Verbs with which a writer takes his answer back ("scratch that") or puts it right ("make that 18")."""
REVISIONS = frozenset(
    "no nope nah well rather instead edit typo new corrected revised updated update better really ugh fact bad mistake "
    "reflection thought thoughts mean meant say back should".split()
)
"""Words that announce another value: "I mean 18", "Revised: 18"."""
HEDGES = frozenset("maybe perhaps possibly probably potentially alternatively otherwise else".split())
OFFERS = HEDGES | frozenset("or either unless possible possibility alternative".split())
"""Words that offer a second answer beside the first."""
CONTRASTS = frozenset("but however although though yet".split())
CONDITIONS = frozenset("if when for provided".split())
ASSUMPTIONS = frozenset("suppose assume assuming".split())
UNCERTAIN = ASSUMPTIONS | frozenset("if provided unless whether otherwise general".split())
"""A clause with one of these says nothing of the answer as it is."""
APPROXIMATE = frozenset("about approximately roughly around approx nearly almost".split())
CONCLUSIONS = frozenset("so hence thus therefore".split())
CONSEQUENCES = CONCLUSIONS | frozenset("then because since as".split())
CONNECTIVES = CONSEQUENCES | CONTRASTS | frozenset("and or where which who when while until rather instead".split())
"""Words at which a new clause begins."""
PRONOUNS = frozenset("that we i you he she it they there with".split())
_FILLERS = frozenset(
    "the a an my our its their just even still also indeed again only such nowhere quite very exactly always".split()
)
_TELLING = NEGATORS | HEDGES | MISTAKENLY | APPROXIMATE | REFUSALS
"""Adverbs and words like them that change something."""
Kind = Literal["word", "value", "mark", "stop"]
_TOKEN = re.compile(
    r"(?P<stop>\n\s*\n|[.!?](?=[\s$*)\]}\\]|$))"
    r"|(?P<skip>\s+|\$+|\\[()\[\],;:! ]|\\q?quad(?![a-z])|\\(?:text\w*|mbox|mathrm|mathbf|emph)\s*\{|[{}*_`&]|\\\\)"
    r"|(?P<value>\d[\d.,/]*(?<![.,/])|\\[A-Za-z]+|[b-hj-zB-HJ-Z](?![A-Za-z]))"
    r"|(?P<word>[A-Za-z]+)|(?P<mark>\S)"
)
_SHORT_FORMS = (
    (re.compile(r"n['\u2019]t\b", re.IGNORECASE), " not"),  # "ca not" and "wo not" are known, too
    (re.compile(r"\bcannot\b", re.IGNORECASE), "can not"),
    (re.compile(r"\b(it|that|this|there|which|i|we)['\u2019](?:s|m|re)\b", re.IGNORECASE), r"\1 is"),
    (re.compile(r"\bturn(?:s|ed)\s+out\s+to\s+be\b", re.IGNORECASE), "is"),
    (re.compile(r"\bvs\.", re.IGNORECASE), "versus"),
    (re.compile(r"\b(?:i\.e\.|e\.g\.)"), "namely"),
)


@dataclass(frozen=True, slots=True)
class Token:
    """A word in lower case, a value (a number, command or single letter), a mark, or the end of a sentence."""

    kind: Kind
    text: str
    start: int


def spelled_out(text: str) -> str:
    """A text with contractions as words: "isn't" as "is not"."""
    for pattern, full in _SHORT_FORMS:
        text = pattern.sub(full, text)
    return text


def tokens(text: str) -> list[Token]:
    """The tokens of a text that is spelled out, without markup and spaces."""
    found = [(match.lastgroup, match.group(), match.start()) for match in _TOKEN.finditer(text)]
    return [Token(kind, word.lower(), start) for kind, word, start in found if kind != "skip"]  # type: ignore[arg-type]


def is_filler(word: str) -> bool:
    """Whether a word is an article or adverb, which changes nothing."""
    return word in _FILLERS or (word.endswith("ly") and word not in _TELLING)


def multiplies(word: str) -> bool:
    """Whether a word after a number multiplies it: "thousand", "thirds". Quarters, scores and third graders are
    counted."""
    factor = factor_of(word)
    if factor is None or word.startswith(("quarter", "score")):
        return False
    return factor > 1 or word.endswith("s") or word == "half"


def is_part(word: str) -> bool:
    """Whether a word names a part, as in "a third", "two quarters"."""
    factor = factor_of(word)
    return factor is not None and factor < 1


def is_value(token: Token) -> bool:
    """Whether a token is a value, or a number in words that stands alone: no multiple, such as "twice"."""
    if token.kind != "word":
        return token.kind == "value"
    return is_number_word(token.text) and token.text not in MULTIPLES and factor_of(token.text) is None


def any_of(words: Iterable[str], *classes: Iterable[str]) -> bool:
    """Whether a word is in one of the classes."""
    found = set(words)
    return any(not found.isdisjoint(known) for known in classes)
