"""Integer arithmetic in several steps: the small task that the tiny checkpoint and the quickstart are about.

A problem is a left-nested chain such as `((7+5)*3)-2`. A solution works it out line by line and ends in a box; a *careful*
line does one operation, a hasty one two at once:

    7+5=12          (7+5)*3=36
    12*3=36         36-2=34
    36-2=34         \\boxed{34}
    \\boxed{34}

Problems are split by a hash of their text, so what is held out stays held out, whatever draws it.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from ouro_rl.tasks.held_out import is_held_out

LARGEST = 99
"""Every intermediate result lies in 0..LARGEST."""
EXHAUSTED = 2000
"""Draws without a new problem after which there are no more to be had."""


@dataclass(frozen=True, kw_only=True)
class Problem:
    """`start` and a chain of (operator, operand)."""

    start: int
    chain: tuple[tuple[str, int], ...]

    @property
    def text(self) -> str:
        return expression(str(self.start), self.chain)

    @property
    def answer(self) -> int:
        return self.values[-1]

    @property
    def values(self) -> list[int]:
        """Result after each operation."""
        values = [self.start]
        for operator, operand in self.chain:
            values.append(apply(operator, values[-1], operand))
        return values[1:]


def apply(operator: str, left: int, right: int) -> int:
    return {"+": left + right, "-": left - right, "*": left * right}[operator]


def expression(start: str, chain: tuple[tuple[str, int], ...]) -> str:
    """`((a+b)*c)-d`: parentheses around everything but the last operation."""
    text = start
    for index, (operator, operand) in enumerate(chain):
        text = f"({text})" if index else text
        text = f"{text}{operator}{operand}"
    return text


def draw_problem(rng: random.Random, operations: int) -> Problem:
    """A random problem whose intermediate results all lie in 0..LARGEST."""
    while True:
        start = rng.randint(2, 20)
        chain = tuple(
            (operator, rng.randint(2, 9) if operator == "*" else rng.randint(2, 20))
            for operator in rng.choices("+-*", k=operations)
        )
        problem = Problem(start=start, chain=chain)
        if all(0 <= value <= LARGEST for value in problem.values):
            return problem


def problems(seed: int, operations: Sequence[int], *, held_out: bool) -> Iterator[Problem]:
    """An endless stream of one side of the split, the numbers of operations in turn. Texts may repeat; see `distinct`."""
    rng = random.Random(seed)
    for count in itertools.cycle(operations):
        while is_held_out((problem := draw_problem(rng, count)).text) != held_out:
            pass
        yield problem


def distinct(stream: Iterable[Problem]) -> Iterator[Problem]:
    """The first problem of every text. Short chains are few: it ends after `EXHAUSTED` repeats in a row."""
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


def solution(problem: Problem, careful: float, rng: random.Random) -> str:
    """A demonstration: each line does one operation with chance `careful`, otherwise two (while two are left)."""
    lines, value, done, values = [], problem.start, 0, problem.values
    while done < len(problem.chain):
        take = 1 if rng.random() < careful else min(2, len(problem.chain) - done)
        result = values[done + take - 1]
        lines.append(f"{expression(str(value), problem.chain[done : done + take])}={result}")
        value, done = result, done + take
    return "\n".join([*lines, f"\\boxed{{{problem.answer}}}"])


def demonstrations(seed: int, operations: Sequence[int], careful: float) -> Iterator[tuple[str, str]]:
    """An endless stream of training problems, each with a solution."""
    rng = random.Random(seed)
    for problem in problems(seed, operations, held_out=False):
        yield problem.text, solution(problem, careful, rng)
