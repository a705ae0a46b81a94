"""The reward of configs/walks.yaml: the share of an answer's steps that are right."""

import re

_PAIR, _ASKED, _START = re.compile(r"(\w)>(\w);"), re.compile(r"f(\d)\(\?\)=\?;"), re.compile(r"(\w);$")
_STEP, _LAST = re.compile(r"f(\d)\((\w)\)=(\w);"), re.compile(r"f(\d)\((\w)\)=\\boxed\{(\w)\}$")
ROUNDS = 4


def right_steps(prompts, completions, **columns):
    """A step is right if it takes the hops that the schedule asks for, from the letter that the answer itself gave
    before, and leads where they lead: one mistake costs one step. The first thing that is no step ends the answer."""
    return [
        _share(prompt[-1]["content"], answer[0]["content"]) for prompt, answer in zip(prompts, completions, strict=True)
    ]


def _share(problem, answer):
    images = dict(_PAIR.findall(problem))
    asked = [int(hops) for hops in _ASKED.findall(problem)] * ROUNDS
    (before,) = _START.findall(problem)
    right = place = 0
    for number, hops in enumerate(asked, start=1):
        step = (_LAST if number == len(asked) else _STEP).match(answer, place)
        if step is None:
            break
        given, place = step[3], step.end()
        right += int(step[1]) == hops and step[2] == before and given == _after(images, before, hops)
        before = given
    return right / len(asked)


def _after(images, letter, hops):
    for _ in range(hops):
        letter = images.get(letter)
    return letter
