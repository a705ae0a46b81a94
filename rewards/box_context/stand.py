"""How an answer stands while the text after it is read: immutable values, one for every step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from rewards.box_context.clauses import OWN, Clause
from rewards.box_context.repair import Repair
from rewards.box_context.subject import leads_elsewhere, mentions_another, names_another, subject_of
from rewards.box_context.words import UNCERTAIN, any_of


@dataclass(frozen=True, slots=True)
class Setting:
    """How the text leads to the answer."""

    tentative: bool
    """It is a first guess."""
    conditioned: bool
    """It holds on a condition."""
    words_only: bool
    """The answer is words, so that only first-person statements are about it ("No. This is false" is an answer with its
    reason)."""


@dataclass(frozen=True, slots=True)
class Stand:
    """What the text has said of the answer so far."""

    taken_back: bool = False
    since: int | None = None
    """Where it began to doubt the answer."""
    repaired: int | None = None
    """Where the clause begins that states another value instead."""
    doubted: bool = False
    """It doubts the answer, by "but" or a check."""
    strongly: bool = False
    """It does so by "wait"."""
    supposed: bool = False
    """By "suppose", until the paragraph ends."""
    carried: bool = False
    """By "if" in the last sentence."""
    repair: Repair = Repair()

    def withdrawn(self, start: int) -> Stand:
        return replace(self, taken_back=True, since=start if self.since is None else self.since)

    def affirmed(self) -> Stand:
        return replace(self, taken_back=False, since=None, repaired=None, doubted=False, strongly=False)


@dataclass(frozen=True, slots=True)
class Point:
    """A clause and its place: which sentence after the answer, and which clause of it."""

    place: int
    count: int
    clause: Clause
    following: Clause | None

    @property
    def follows_at_once(self) -> bool:
        """Whether it is the clause that goes on after the answer, which `Continuation` reads."""
        return self.place == self.count == 0


@dataclass(frozen=True, slots=True)
class Earlier:
    """What the clauses of a sentence before the current one speak of."""

    conditional: bool = False
    own: bool = False
    """The answer by its value."""
    other: bool = False
    """Another candidate."""
    elsewhere: bool = False
    """What another candidate leads to."""
    pronoun: bool = False
    """The last one is about a pronoun."""
    disbelieved: bool = False
    """The last one is "I do not think"."""

    def and_then(self, clause: Clause, words: Sequence[str], *, denied: bool) -> Earlier:
        """With one more clause. words: the clause without its opening and opinion; denied: the opinion is denied."""
        own = self.own or OWN in words
        return Earlier(
            conditional=self.conditional or any_of((*clause.links, *clause.words), UNCERTAIN),
            own=own,
            other=self.other or mentions_another(clause.words) or (names_another(words) and not own),
            elsewhere=self.elsewhere or leads_elsewhere(words),
            pronoun=subject_of(words)[0] == "pronoun",
            disbelieved=denied and not words,
        )
