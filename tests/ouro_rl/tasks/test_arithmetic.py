"""Problems and demonstrations are correct, within bounds, and split consistently."""

from __future__ import annotations

import itertools
import random
import re

import pytest

from ouro_rl.tasks.arithmetic import LARGEST, problems, solution
from ouro_rl.tasks.held_out import distinct, is_held_out


def take(count: int, seed: int, *, held_out: bool, operations: tuple[int, ...] = (2, 3, 4)):
    return list(itertools.islice(problems(seed, operations, held_out=held_out), count))


def test_answers_equal_what_python_computes() -> None:
    for problem in take(2000, 1, held_out=False, operations=(1, 2, 3, 4, 5)):
        assert problem.answer == eval(problem.text)
        assert all(0 <= value <= LARGEST for value in problem.values)


def test_the_numbers_of_operations_alternate() -> None:
    assert [len(problem.chain) for problem in take(6, 0, held_out=False)] == [2, 3, 4, 2, 3, 4]


@pytest.mark.parametrize("careful", [0.0, 0.4, 1.0])
def test_every_line_of_a_demonstration_is_true(careful: float) -> None:
    rng = random.Random(0)
    for problem in take(500, 2, held_out=False):
        *lines, box = solution(problem, careful, rng).splitlines()
        assert box == f"\\boxed{{{problem.answer}}}"
        carried = str(problem.start)
        for line in lines:
            left, right = line.split("=")
            assert eval(left) == int(right)
            assert re.match(r"\(*(\d+)", left)[1] == carried, "a line goes on from the result of the one before"
            carried = right
        assert int(carried) == problem.answer
        if careful == 1.0:
            assert len(lines) == len(problem.chain)
        if careful == 0.0:
            assert len(lines) == (len(problem.chain) + 1) // 2


def test_held_out_problems_are_never_trained_on() -> None:
    held_out = {problem.text for seed in range(3) for problem in take(1000, seed, held_out=True)}
    trained = {problem.text for seed in range(3) for problem in take(5000, seed, held_out=False)}
    assert not held_out & trained
    assert all(is_held_out(text) for text in held_out) and not any(is_held_out(text) for text in trained)


def test_a_seed_fixes_the_stream_and_distinct_drops_repeats() -> None:
    assert take(50, 7, held_out=True) == take(50, 7, held_out=True)
    assert take(50, 7, held_out=True) != take(50, 8, held_out=True)
    stream = take(20, 7, held_out=True)
    texts = [problem.text for problem in distinct(iter(stream + stream))]
    assert texts == list(dict.fromkeys(problem.text for problem in stream))
