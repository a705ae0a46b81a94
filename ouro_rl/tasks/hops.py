"""Repeated application of a permutation: a task whose needed depth is known.

    2845319670 f3(9)

The ten digits are f(0), f(1), ..., f(9), and the answer is f(f(f(9))): 9 -> 0 -> 2 -> 4. A model that looks up one
image in a loop needs as many loops as there are hops, which the problem says: an oracle exists.

Nothing but the hops leads to the answer. Every problem and every answer has the same number of characters. f is a
single cycle through all digits, so that f^1(x), ..., f^9(x) differ from one another and from x, no power of f is a
shorter way round (f^4 would be the inverse of f in a cycle of 5), and, over problems, every digit is as often the
answer for every number of hops.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ouro_rl.tasks.held_out import one_side

DIGITS = 10
"""f permutes 0..9."""
MOST_HOPS = DIGITS - 1
"""After as many hops as there are digits, f is back where it started."""
BOXES = tuple(f"\\boxed{{{digit}}}" for digit in range(DIGITS))
"""The possible answers. Each is one token of this task's tokenizer."""
ANSWER_END = "}"
"""As a stop string, it ends an answer with its one token; otherwise an end of turn follows, whose depth counts too."""


@dataclass(frozen=True, kw_only=True)
class Problem:
    """`images` is f(0), ..., f(9); the answer is f, applied `difficulty` times to `start`."""

    images: tuple[int, ...]
    start: int
    difficulty: int
    """Number of hops."""

    @property
    def text(self) -> str:
        return f"{''.join(map(str, self.images))} f{self.difficulty}({self.start})"

    @property
    def answer(self) -> int:
        return self.after(self.difficulty)

    @property
    def needed_loops(self) -> int:
        """One per hop, for the one token of the answer."""
        return self.difficulty

    def after(self, loops: int) -> int:
        """Where one hop per loop has led after `loops` loops: the answer, once they are as many as the hops."""
        value = self.start
        for _ in range(min(loops, self.difficulty)):
            value = self.images[value]
        return value


def draw_problem(rng: random.Random, hops: int) -> Problem:
    """A random cycle through all digits, and a random start."""
    cycle = rng.sample(range(DIGITS), DIGITS)
    images = dict(zip(cycle, cycle[1:] + cycle[:1], strict=True))
    return Problem(images=tuple(images[digit] for digit in range(DIGITS)), start=rng.randrange(DIGITS), difficulty=hops)


def problems(seed: int, hops: Sequence[int], *, held_out: bool) -> Iterator[Problem]:
    """An endless stream of problems from one side of the split, cycling through the numbers of hops."""
    return one_side(draw_problem, seed, hops, held_out=held_out)


def demonstrations(seed: int, hops: Sequence[int], loops: int) -> Iterator[tuple[str, ...]]:
    """An endless stream of training problems, each with what loop 1, 2, ... `loops` should answer: where the hops have
    led so far, and the answer from then on."""
    for problem in problems(seed, hops, held_out=False):
        yield problem.text, *(BOXES[problem.after(loop)] for loop in range(1, loops + 1))
