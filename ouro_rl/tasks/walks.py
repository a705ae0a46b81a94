"""Walks along a permutation: long answers whose needed depth is known, token by token.

    a>o;b>i;c>l;d>c;e>h; ... s>e;f3(?)=?;f1(?)=?;f1(?)=?;f2(?)=?;f2(?)=?;d;

The pairs are f: f(a) = o, f(b) = i, and so on. From d on, every step applies f to the letter of the step before, as
often as the schedule says, which starts again at its end; the last letter is the answer:

    f3(d)=r;f1(r)=a;f1(a)=o;f2(o)=s; ... f2(m)=\\boxed{b}

A step is three tokens: the number of hops, which one loop can copy from the schedule, the letter of the step before,
which it can copy, too, and the letter that the hops lead to. A model that looks up one image in a loop needs k loops
for the last letter of a step of k hops, and one for everything else: an oracle exists. (Of a model that reuses nothing:
5 to 8 % of the steps repeat an earlier one and could be copied.) Answers are longer than their prompts, which run all
loops: at four loops for every token, the answer is 58 % of the whole.

f is a single cycle through all letters, so that no power of it is a shorter way round, and the hops of one round of the
schedule add up to a number without a common divisor with that of the letters, so that no letter is at the same place of
two rounds. f is one-to-one, so that one wrong step is never made good: only a second one can do that.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, cycle, islice

from ouro_rl.tasks.held_out import one_side

LETTERS = "abcdefghijklmnopqrs"
"""f permutes them: nearly as many as there are steps, since a step that was there before could be copied."""
ROUND, ROUNDS = 5, 4
"""Steps of the schedule, and how often a walk goes through it."""
STEPS = ROUND * ROUNDS
TOKENS_PER_STEP = 3
WORDS = (
    *(f"{letter}>{image};" for letter in LETTERS for image in LETTERS),
    *(f"f{hops}(" for hops in range(1, 10)),
    *(f"{letter})=" for letter in (*LETTERS, "?")),
    *(f"{letter};" for letter in (*LETTERS, "?")),
    *(f"\\boxed{{{letter}}}" for letter in LETTERS),
)
"""Each is one token of this task's tokenizer."""


@dataclass(frozen=True, kw_only=True)
class Problem:
    """The walk starts at `start` and takes `schedule[i % ROUND]` hops in step i."""

    images: Mapping[str, str]
    """f, a single cycle, by letter."""
    schedule: tuple[int, ...]
    start: str

    @property
    def text(self) -> str:
        pairs = "".join(f"{letter}>{image};" for letter, image in self.images.items())
        return f"{pairs}{''.join(f'f{hops}(?)=?;' for hops in self.schedule)}{self.start};"

    @property
    def difficulty(self) -> int:
        """The most hops in a step."""
        return max(self.schedule)

    @property
    def steps(self) -> tuple[int, ...]:
        """Hops by step."""
        return tuple(islice(cycle(self.schedule), STEPS))

    @property
    def values(self) -> tuple[str, ...]:
        """By step."""
        return tuple(accumulate(self.steps, self.after, initial=self.start))[1:]

    @property
    def answer(self) -> str:
        return self.values[-1]

    @property
    def needed_loops(self) -> int:
        """Sum over the tokens of the answer."""
        return sum(TOKENS_PER_STEP - 1 + hops for hops in self.steps)

    def after(self, value: str, hops: int) -> str:
        """f^hops(value)."""
        for _ in range(hops):
            value = self.images[value]
        return value

    def answer_text(self, loops: int) -> str:
        """The whole answer, in which every value is where one hop per loop has led from the right one after `loops`
        loops: the right one, once they are as many as its hops."""
        before = (self.start, *self.values[:-1])
        found = [self.after(value, min(loops, hops)) for value, hops in zip(before, self.steps, strict=True)]
        texts = [*(f"{value};" for value in found[:-1]), f"\\boxed{{{found[-1]}}}"]
        return "".join(f"f{hops}({value})={text}" for hops, value, text in zip(self.steps, before, texts, strict=True))


def draw_problem(rng: random.Random, difficulty: int, letters: int = len(LETTERS)) -> Problem:
    """A random cycle through so many letters, a random start, and a schedule of 1 to `difficulty` hops."""
    order = rng.sample(LETTERS, letters)
    images = dict(sorted(zip(order, order[1:] + order[:1], strict=True)))
    schedule = [0]
    while max(schedule) < difficulty or math.gcd(sum(schedule), len(LETTERS)) > 1:
        schedule = [rng.randint(1, difficulty) for _ in range(ROUND)]
    return Problem(images=images, schedule=tuple(schedule), start=rng.choice(order))


def problems(seed: int, difficulties: Sequence[int], *, held_out: bool) -> Iterator[Problem]:
    """An endless stream of problems from one side of the split, cycling through the difficulties."""
    return one_side(draw_problem, seed, difficulties, held_out=held_out)


def demonstrations(seed: int, difficulties: Sequence[int], loops: int) -> Iterator[tuple[str, ...]]:
    """An endless stream of training problems, each with what loop 1, 2, ... `loops` should answer.

    f has two letters to all of them. With all of them in every problem, a model would hardly find the first step of
    learning to look one up: as long as it looks at all pairs alike, it would see the same letters in every problem."""

    def draw(rng: random.Random, difficulty: int) -> Problem:
        return draw_problem(rng, difficulty, rng.randint(2, len(LETTERS)))

    for problem in one_side(draw, seed, difficulties, held_out=False):
        yield problem.text, *(problem.answer_text(loop) for loop in range(1, loops + 1))
