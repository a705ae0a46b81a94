"""Which tasks are held out from training: a split by a hash of the text, so it does not depend on how tasks are
drawn."""

from __future__ import annotations

import hashlib
import itertools
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol, TypeVar

HELD_OUT_SHARE = 0.1
_HASHES = 2**64
"""Number of values of the eight hash bytes that are used."""
EXHAUSTED = 2000
"""After this many draws without a new problem, there are taken to be no more."""


class HasText(Protocol):
    @property
    def text(self) -> str: ...


P = TypeVar("P", bound=HasText)


def is_held_out(text: str) -> bool:
    digest = hashlib.sha256(text.encode()).digest()
    return int.from_bytes(digest[:8], "big") < HELD_OUT_SHARE * _HASHES


def one_side(
    draw: Callable[[random.Random, int], P], seed: int, difficulties: Sequence[int], *, held_out: bool
) -> Iterator[P]:
    """An endless stream of random problems from one side of the split, cycling through the difficulties. Problems may
    repeat; see `distinct`."""
    rng = random.Random(seed)
    for difficulty in itertools.cycle(difficulties):
        while is_held_out((problem := draw(rng, difficulty)).text) != held_out:
            pass
        yield problem


def distinct(stream: Iterable[P]) -> Iterator[P]:
    """Drop repeated problems. There may be few, so the stream ends after `EXHAUSTED` repeats in a row."""
    seen: set[str] = set()
    repeats = 0
    for problem in stream:
        repeats += 1
        if problem.text not in seen:
            seen.add(problem.text)
            repeats = 0
            yield problem
        if repeats == EXHAUSTED:
            return
