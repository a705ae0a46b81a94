"""Hops: right answers, a cycle through all digits, and nothing that gives an answer away."""

from __future__ import annotations

import itertools
import re
from collections import Counter

import pytest

from ouro_rl.model.tiny_tokenizer import make_tokenizer
from ouro_rl.tasks.held_out import is_held_out
from ouro_rl.tasks.hops import ANSWER_END, BOXES, DIGITS, MOST_HOPS, Problem, demonstrations, problems

CHI_SQUARED_9 = 27.9
"""0.1% quantile of the chi-squared distribution with 9 degrees of freedom."""
PROBLEM = Problem(images=(2, 8, 4, 5, 3, 1, 9, 6, 7, 0), start=9, difficulty=3)
HOPS = (1, 2, 3, 4)


def take(count: int, seed: int = 0, *, held_out: bool = False, hops: tuple[int, ...] = HOPS) -> list[Problem]:
    return list(itertools.islice(problems(seed, hops, held_out=held_out), count))


def test_a_problem_is_its_permutation_and_its_question() -> None:
    assert PROBLEM.text == "2845319670 f3(9)"
    assert [PROBLEM.after(loops) for loops in range(6)] == [9, 0, 2, 4, 4, 4]
    assert PROBLEM.answer == 4


def test_answers_follow_from_the_text() -> None:
    for problem in take(400, hops=(1, 2, 3, 4, 9)):
        images, hops, value = re.fullmatch(r"(\d{10}) f(\d)\((\d)\)", problem.text).groups()
        for _ in range(int(hops)):
            value = images[int(value)]
        assert problem.answer == int(value) and problem.difficulty == int(hops)


def test_the_permutation_is_one_cycle_so_that_no_hop_leads_back() -> None:
    for problem in take(200, hops=(MOST_HOPS,)):
        path = [problem.after(loops) for loops in range(MOST_HOPS + 1)]
        assert sorted(path) == list(range(DIGITS))
        assert problem.images[path[-1]] == problem.start


@pytest.mark.parametrize("hops", HOPS)
def test_every_digit_is_as_often_the_answer_and_the_start_and_says_nothing_of_it(hops: int) -> None:
    found = take(20_000, hops=(hops,))
    answers, starts = Counter(p.answer for p in found), Counter(p.start for p in found)
    steps = Counter((p.answer - p.start) % DIGITS for p in found)
    places = Counter(p.images.index(p.answer) for p in found)
    assert steps.pop(0, 0) == 0, "no problem ends where it starts"
    for counts in (answers, starts, steps, places):
        expected = len(found) / len(counts)
        assert sum((count - expected) ** 2 / expected for count in counts.values()) < CHI_SQUARED_9
    assert len(answers) == len(starts) == DIGITS and len(steps) == DIGITS - 1


def test_the_length_in_tokens_says_nothing() -> None:
    tokenizer = make_tokenizer(BOXES)
    assert {len(tokenizer(problem.text)["input_ids"]) for problem in take(200)} == {16}
    assert [len(tokenizer(box)["input_ids"]) for box in BOXES] == [1] * DIGITS
    assert all(box.endswith(ANSWER_END) and box.count(ANSWER_END) == 1 for box in BOXES)
    assert tokenizer("\\boxed{12}")["input_ids"] == make_tokenizer()("\\boxed{12}")["input_ids"], "other texts as ever"


def test_a_loop_is_taught_what_one_hop_per_loop_leads_to() -> None:
    for (text, *answers), problem in zip(demonstrations(3, HOPS, 4), take(40, 3), strict=False):
        assert text == problem.text and answers[-1] == BOXES[problem.answer]
        assert answers == [BOXES[problem.after(loop)] for loop in (1, 2, 3, 4)]
        assert len(set(answers)) == problem.difficulty


def test_held_out_problems_are_never_trained_on() -> None:
    held_out, trained = ({p.text for p in take(2000, 5, held_out=side)} for side in (True, False))
    assert all(map(is_held_out, held_out)) and not any(map(is_held_out, trained))


def test_a_seed_fixes_the_stream_and_the_hops_alternate() -> None:
    assert take(50, 7, held_out=True) == take(50, 7, held_out=True) != take(50, 8, held_out=True)
    assert [problem.difficulty for problem in take(6)] == [1, 2, 3, 4, 1, 2]
