"""The sentence around a box: every sentence of `sentences.txt` with every value."""

from itertools import product
from pathlib import Path

import pytest

from rewards.box_context.unit import SIGN_AFTER
from rewards.extraction import final_answer

VALUES = ["17", "\\frac{3}{4}", "-5", "2\\sqrt{3}", "0.25"]


def sentences() -> dict[str, list[tuple[str, str]]]:
    """By kind, sentences with `BOX` for a box, `VALUE` for its value, and `¶` for the end of a paragraph; `-`: they
    refuse it, `=`: they offer 40 as well, `+`: neither."""
    kinds: dict[str, list[tuple[str, str]]] = {}
    for line in (Path(__file__).parent / "sentences.txt").read_text(encoding="utf-8").splitlines():
        mark, sentence = line.split(" ", 1)
        if mark == "#":
            kinds[sentence] = found = []
        else:
            found.append((mark, sentence))
    return kinds


SENTENCES = sentences()


@pytest.mark.parametrize("kind", SENTENCES)
def test_every_sentence_of_a_kind(kind: str) -> None:
    wrong = []
    for (mark, sentence), value in product(SENTENCES[kind], VALUES):
        text = sentence.replace("¶", "\n\n").replace("VALUE", value)
        answer = final_answer(text.replace("BOX", f"\\boxed{{{value}}}"))
        answer = answer and answer.partition("\\text{")[0].removesuffix(SIGN_AFTER)  # without what is measured
        if mark == "-":
            right = answer not in (value, f"{value}, 40")
        else:
            right = answer == (value if mark == "+" else f"{value}, 40")
        if not right:
            wrong.append((mark, sentence, value, answer))
    assert wrong == []


def test_the_same_value_in_another_form_is_no_other_answer() -> None:
    assert final_answer("$\\boxed{120}$ minutes or $2$ hours") == "120\\text{ minutes}"
    assert final_answer("$\\boxed{0.5}$ or $50\\%$") == "0.5"
    assert final_answer("$\\boxed{\\frac13}$ or approximately $0.33$") == "\\frac13"


def test_words_may_be_called_wrong() -> None:
    assert final_answer("$\\boxed{\\text{B}}$ is wrong.") == "\\text{B}"
    assert final_answer("The answer is not $\\boxed{\\text{B}}$.") is None


def test_a_list_of_values_is_a_subject_of_plural_verbs() -> None:
    assert final_answer("$\\boxed{3}$ are wrong.") == "3"
    assert final_answer("$\\boxed{3, 5}$ are wrong.") is None


def test_a_hedge_joins_two_boxes_whatever_but_says() -> None:
    assert final_answer("It is $\\boxed{17}$, but it could also be $\\boxed{40}$.") == "17, 40"
    assert final_answer("It is $\\boxed{17}$, unless it is $\\boxed{40}$.") == "17, 40"
    assert final_answer("I thought of $\\boxed{17}$, but it is $\\boxed{40}$.") == "40"
