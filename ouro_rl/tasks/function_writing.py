"""Generated tasks of writing tiny functions, for the `code` reward.

    task      f(a,b): 3 times a minus b
    solution  def f(a,b):
               return 3*a-b

`python -m ouro_rl.tasks.function_writing FILE.jsonl` writes the data set of `configs/code_example.yaml`. Some
demonstrations for the warm start are *careless*: one operator or one number is wrong. A model trained on them can write
every program but is often wrong, which RL can improve. Tasks are split by a hash of their text."""

from __future__ import annotations

import itertools
import json
import random
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ouro_rl.tasks.held_out import is_held_out

_PHRASES = {
    "plus": ("{} plus {}", "{}+{}"),
    "minus": ("{} minus {}", "{}-{}"),
    "larger": ("the larger of {} and {}", "max({},{})"),
    "smaller": ("the smaller of {} and {}", "min({},{})"),
}
_MISTAKES = {"plus": "minus", "minus": "plus", "larger": "smaller", "smaller": "larger"}
_NUMBERS = range(2, 10)
_CASES = 5
CARELESS = 0.5
"""Probability that a demonstration of the warm start contains a mistake."""


@dataclass(frozen=True, kw_only=True)
class Term:
    """`number` times `variable`, or one of them alone."""

    number: int | None
    variable: str | None

    @property
    def words(self) -> str:
        return " times ".join(str(part) for part in (self.number, self.variable) if part is not None)

    @property
    def code(self) -> str:
        return "*".join(str(part) for part in (self.number, self.variable) if part is not None)

    def value(self, variables: dict[str, int]) -> int:
        return (1 if self.number is None else self.number) * (1 if self.variable is None else variables[self.variable])


@dataclass(frozen=True, kw_only=True)
class Task:
    """A function f(a,b) of two terms."""

    operation: str
    left: Term
    right: Term

    @property
    def text(self) -> str:
        return "f(a,b): " + _PHRASES[self.operation][0].format(self.left.words, self.right.words)

    @property
    def program(self) -> str:
        return "def f(a,b):\n return " + _PHRASES[self.operation][1].format(self.left.code, self.right.code)

    def value(self, a: int, b: int) -> int:
        left, right = (term.value({"a": a, "b": b}) for term in (self.left, self.right))
        return {"plus": left + right, "minus": left - right, "larger": max(left, right), "smaller": min(left, right)}[
            self.operation
        ]

    def row(self, rng: random.Random) -> dict[str, Any]:
        """A row of a data set: `problem`, and `tests` with random arguments."""
        arguments = [[rng.randint(-20, 20), rng.randint(-20, 20)] for _ in range(_CASES)]
        cases = [{"args": pair, "expected": self.value(*pair)} for pair in arguments]
        return {"problem": self.text, "tests": {"entry_point": "f", "cases": cases}}


def all_tasks() -> list[Task]:
    """Every task, in a fixed order."""
    products = [Term(number=number, variable=name) for name in "ab" for number in (None, *_NUMBERS)]
    numbers = [Term(number=number, variable=None) for number in _NUMBERS]
    return [
        Task(operation=operation, left=left, right=right)
        for operation, left, right in itertools.product(_PHRASES, products, [*products, *numbers])
        if left.variable != right.variable
    ]


def tasks(seed: int, *, held_out: bool) -> Iterator[Task]:
    """An endless stream of the tasks on one side of the split, reshuffled on every pass."""
    pool = [task for task in all_tasks() if is_held_out(task.text) == held_out]
    rng = random.Random(seed)
    while True:
        rng.shuffle(pool)
        yield from pool


def held_out_tasks() -> list[Task]:
    """Every held-out task, in a fixed shuffled order."""
    count = sum(is_held_out(task.text) for task in all_tasks())
    return list(itertools.islice(tasks(0, held_out=True), count))


def demonstrations(seed: int) -> Iterator[tuple[str, str]]:
    """An endless stream of training tasks, each with a program that may be careless."""
    rng = random.Random(seed)
    for task in tasks(seed, held_out=False):
        yield task.text, demonstration(task, CARELESS, rng)


def demonstration(task: Task, careless: float, rng: random.Random) -> str:
    """A program for a task; with probability `careless`, one that contains a mistake."""
    return (_with_mistake(task, rng) if rng.random() < careless else task).program


def _with_mistake(task: Task, rng: random.Random) -> Task:
    sides = [side for side in ("left", "right") if getattr(task, side).number is not None]
    side = rng.choice(["operation", *sides])
    if side == "operation":
        return replace(task, operation=_MISTAKES[task.operation])
    term: Term = getattr(task, side)
    other = rng.choice([number for number in _NUMBERS if number != term.number])
    wrong = replace(term, number=other)
    return replace(task, left=wrong) if side == "left" else replace(task, right=wrong)


def main(path: str, count: int = 1000) -> None:
    """Write `count` training tasks as a data set."""
    rng = random.Random(0)
    rows = [task.row(rng) for task in itertools.islice(tasks(0, held_out=False), count)]
    Path(path).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
