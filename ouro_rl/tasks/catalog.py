"""The generated tasks that prompts can come from, by name."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ouro_rl.tasks import arithmetic, hops, walks
from ouro_rl.tasks.held_out import HasText, distinct


class GradedProblem(HasText, Protocol):
    @property
    def answer(self) -> int | str: ...
    @property
    def difficulty(self) -> int: ...
    @property
    def needed_loops(self) -> int | None:
        """Of the whole answer, with every token at the depth that it needs; None where that is not known."""


class Problems(Protocol):
    def __call__(self, seed: int, difficulties: Sequence[int], /, *, held_out: bool) -> Iterator[GradedProblem]: ...


@dataclass(frozen=True, kw_only=True)
class GeneratedTask:
    """A task with an endless stream of problems, split by a hash of their text."""

    about: str
    """One line."""
    problems: Problems
    difficulties: tuple[int, ...]
    """The difficulties that are drawn in turn if none are asked for."""


GENERATED = {
    "arithmetic": GeneratedTask(
        about="generated integer arithmetic, held out of every training run and warm start",
        problems=arithmetic.problems,
        difficulties=(2, 3, 4),
    ),
    "hops": GeneratedTask(
        about="generated: a permutation, applied k times; held out, and solved by k loops of configs/hops_ouro",
        problems=hops.problems,
        difficulties=(1, 2, 3, 4),
    ),
    "walks": GeneratedTask(
        about=f"generated: {walks.STEPS} steps along a permutation; held out, and solved by configs/walks_ouro",
        problems=walks.problems,
        difficulties=(1, 2, 3, 4),
    ),
}


def generated_rows(
    name: str, seed: int, difficulties: Sequence[int] | None, count: int, *, held_out: bool
) -> Iterator[dict[str, Any]]:
    """`count` distinct problems from one side of the split, with the columns `problem`, `answer` and `difficulty`
    (fewer if there are no more), and `needed_loops` where that is known."""
    task = GENERATED[name]
    stream = task.problems(seed, difficulties or task.difficulties, held_out=held_out)
    for problem in itertools.islice(distinct(stream), count):
        row = {"problem": problem.text, "answer": str(problem.answer), "difficulty": problem.difficulty}
        yield row if problem.needed_loops is None else row | {"needed_loops": problem.needed_loops}
