"""Walks: right answers, whose needed loops are known, and nothing that gives a step away."""

from __future__ import annotations

import importlib.util
import itertools
import re
from collections import Counter

import pytest

from ouro_rl.data.prompts import load_benchmark
from ouro_rl.model.tiny_tokenizer import make_tokenizer
from ouro_rl.tasks.held_out import is_held_out
from ouro_rl.tasks.walks import LETTERS, ROUND, ROUNDS, STEPS, WORDS, Problem, demonstrations, problems
from tests.references.places import REPOSITORY

CHI_SQUARED_18 = 42.3
"""0.1% quantile of the chi-squared distribution with 18 degrees of freedom."""
LEVELS = (1, 2, 3, 4)
PROBLEM = Problem(images=dict(zip(LETTERS, LETTERS[1:] + "a", strict=True)), schedule=(3, 1, 2, 1, 1), start="d")
"""Every letter leads to the next."""


def take(count: int, seed: int = 0, *, held_out: bool = False, levels: tuple[int, ...] = LEVELS) -> list[Problem]:
    return list(itertools.islice(problems(seed, levels, held_out=held_out), count))


def test_a_problem_is_its_permutation_its_schedule_and_its_start() -> None:
    assert PROBLEM.text.startswith("a>b;b>c;")
    assert PROBLEM.text.endswith("s>a;f3(?)=?;f1(?)=?;f2(?)=?;f1(?)=?;f1(?)=?;d;")
    assert PROBLEM.answer_text(4).startswith("f3(d)=g;f1(g)=h;f2(h)=j;f1(j)=k;f1(k)=l;f3(l)=o;")
    assert PROBLEM.answer_text(4).endswith(f"f1(p)=\\boxed{{{PROBLEM.answer}}}")
    assert PROBLEM.answer == "q" == LETTERS[(3 + 8 * ROUNDS) % len(LETTERS)]
    assert PROBLEM.difficulty == 3 and PROBLEM.needed_loops == 2 * STEPS + 8 * ROUNDS


def test_answers_follow_from_the_text() -> None:
    for problem in take(200):
        images = dict(re.findall(r"(\w)>(\w);", problem.text))
        value, hops = problem.text[-2], [int(digit) for digit in re.findall(r"f(\d)\(\?\)=\?;", problem.text)]
        for step in range(STEPS):
            for _ in range(hops[step % ROUND]):
                value = images[value]
        assert problem.answer == value and problem.difficulty == max(hops)


def test_the_permutation_is_one_cycle_and_no_round_repeats_another() -> None:
    for problem in take(200):
        assert len({problem.after("a", hops) for hops in range(len(LETTERS))}) == len(LETTERS)
        for place in range(ROUND):
            assert len(set(problem.values[place::ROUND])) == ROUNDS


@pytest.mark.parametrize("level", LEVELS)
def test_all_letters_are_equally_likely_answers_wherever_they_stand(level: int) -> None:
    found = take(6_000, levels=(level,))
    answers, starts = Counter(one.answer for one in found), Counter(one.start for one in found)
    places = Counter([*one.images.values()].index(one.answer) for one in found)
    for counts in (answers, starts, places):
        expected = len(found) / len(LETTERS)
        assert sum((count - expected) ** 2 / expected for count in counts.values()) < CHI_SQUARED_18
        assert len(counts) == len(LETTERS)


def test_a_step_is_three_tokens_and_all_texts_are_of_one_length() -> None:
    tokenizer = make_tokenizer(WORDS)
    found = take(100)
    assert {len(tokenizer(one.text)["input_ids"]) for one in found} == {len(LETTERS) + 3 * ROUND + 1}
    assert {len(tokenizer(one.answer_text(loops))["input_ids"]) for one in found for loops in LEVELS} == {3 * STEPS}


def test_a_loop_is_taught_where_one_hop_per_loop_leads_from_the_right_step_before() -> None:
    letters = set()
    for text, *answers in itertools.islice(demonstrations(3, LEVELS, 4), 400):
        images = dict(re.findall(r"(\w)>(\w);", text))
        hops = tuple(int(digit) for digit in re.findall(r"f(\d)\(\?\)=\?;", text))
        problem = Problem(images=images, schedule=hops, start=text[-2])
        assert text == problem.text and answers == [problem.answer_text(loops) for loops in LEVELS]
        assert not is_held_out(text)
        letters.add(len(images))
        steps = [re.findall(r"f(\d)\((\w)\)=(?:\\boxed\{)?(\w)", answer) for answer in answers]
        before = problem.start
        for step, count in enumerate(problem.steps):
            for loops in LEVELS:
                expected = (str(count), before, problem.after(before, min(loops, count)))
                assert steps[loops - 1][step] == expected
            before = problem.values[step]
    assert letters == set(range(2, len(LETTERS) + 1))


def test_held_out_problems_are_never_trained_on_and_a_seed_fixes_the_stream() -> None:
    held_out, trained = ({p.text for p in take(1000, 5, held_out=side)} for side in (True, False))
    assert all(map(is_held_out, held_out)) and not any(map(is_held_out, trained))
    assert take(20, 7) == take(20, 7) != take(20, 8)
    assert [problem.difficulty for problem in take(6)] == [1, 2, 3, 4, 1, 2]


def test_rows_say_the_loops_that_their_answers_need() -> None:
    for prompt in load_benchmark("walks", tokenizer=make_tokenizer(WORDS), limit=8):
        asked = [int(hops) for hops in re.findall(r"f(\d)\(\?\)=\?;", prompt.messages[-1]["content"])]
        assert prompt.columns["needed_loops"] == 2 * STEPS + ROUNDS * sum(asked)


@pytest.fixture(scope="module")
def right_steps():
    spec = importlib.util.spec_from_file_location("walks_rewards", REPOSITORY / "configs/walks_rewards.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return lambda problem, text: module.right_steps([[{"content": problem.text}]], [[{"content": text}]])[0]


def test_the_reward_counts_right_steps(right_steps) -> None:
    right = PROBLEM.answer_text(4)
    assert right_steps(PROBLEM, right) == 1.0
    assert right_steps(PROBLEM, right[:83]) == 10 / STEPS, "cut off"
    assert right_steps(PROBLEM, right.replace("\\boxed{q}", "q;")) == (STEPS - 1) / STEPS, "no box"
    assert right_steps(PROBLEM, right.replace("=h;", "=\\boxed{h}", 1)) == 1 / STEPS, "a box too early"
    assert right_steps(PROBLEM, right + " and more") == (STEPS - 1) / STEPS, "a box is the end"
    assert right_steps(PROBLEM, right.replace("=g;f1(g)", "=f;f1(g)", 1)) == (STEPS - 2) / STEPS, "not what was given"
    wrong = right.replace("f1(g)=h;f2(h)=j;", "f1(g)=i;f2(i)=k;f1(k)=l;", 1).replace("f1(j)=k;", "", 1)
    assert right_steps(PROBLEM, wrong) == (STEPS - 2) / STEPS, "right from there on, until the next is not"
    assert right_steps(PROBLEM, right.replace("f3", "f2")) == (STEPS - ROUNDS) / STEPS, "another number of hops"
    assert right_steps(PROBLEM, right.replace(";", "; ", 1)) == 1 / STEPS and right_steps(PROBLEM, "") == 0.0
    assert right_steps(PROBLEM, PROBLEM.answer_text(1)) < 1.0
    for problem in take(40):
        assert right_steps(problem, problem.answer_text(problem.difficulty)) == 1.0
