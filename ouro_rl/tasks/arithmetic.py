"""Integer arithmetic in several steps: the task of the tiny checkpoint and the quickstart.

A problem is a left-nested chain such as `((7+5)*3)-2`. A solution computes it line by line and ends with a box; a
*careful* line does one operation, a hasty line two at once:

    7+5=12          (7+5)*3=36
    12*3=36         36-2=34
    36-2=34         \\boxed{34}
    \\boxed{34}

Problems are split by a hash of their text, so that a held-out problem is held out for every seed.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ouro_rl.tasks.held_out import one_side

LARGEST = 99
"""Every intermediate result is in 0..LARGEST."""


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
    def difficulty(self) -> int:
        """Number of operations."""
        return len(self.chain)

    @property
    def needed_loops(self) -> None:
        """Not known for this task."""
        return None

    @property
    def values(self) -> list[int]:
        """The result after each operation."""
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
    """A random problem whose intermediate results are all in 0..LARGEST."""
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
    """An endless stream of problems from one side of the split, cycling through the numbers of operations. Problems may
    repeat: there are few short chains."""
    return one_side(draw_problem, seed, operations, held_out=held_out)


def solution(problem: Problem, careful: float, rng: random.Random) -> str:
    """A demonstration: each line does one operation with probability `careful`, else two (while two are left)."""
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
