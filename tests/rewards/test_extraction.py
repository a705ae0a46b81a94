"""Boxes in texts of any size and shape: parsed as by a simple reference parser, and fast for texts of any length."""

import random
import re
import time

import pytest

from rewards import extraction
from rewards.extraction import boxes, final_answer, last_boxed
from rewards.math_grader.grading import grade_strings
from tests.references.math_grading import grade_answer

SIZE = 13_000_000
PIECES = [
    "\\boxed{",
    "\\fbox {",
    "\\framebox{",
    "\\boxed",
    "boxed{",
    "{",
    "}",
    "}",
    "}",
    "\\",
    "\\\\",
    "\\{",
    "\\}",
    "5",
    " or ",
    ", ",
    " ",
    "\\a",
    "<|end|>",
]


def plainly(text: str) -> list[tuple[int, int, str]]:
    """Reference for `boxes`: parses the whole text."""
    found, stack = [], []
    for token in re.finditer(r"\\(?:boxed|fbox|framebox)\s*\{|\\.|[{}]", text, re.DOTALL):
        if token.group() == "}":
            box = stack.pop() if stack else None
            if box is not None:
                found = [one for one in found if one[0] < box[0]]
                found.append((box[0], token.end(), text[box[1] : token.start()]))
        elif token.group() == "{":
            stack.append(None)
        elif len(token.group()) > 2:
            stack.append((token.start(), token.end()))
    return found


def test_boxes_of_random_texts():
    draw = random.Random(0)
    for _ in range(20_000):
        text = "".join(draw.choices(PIECES, k=draw.randrange(1, 30)))
        assert boxes(text) == plainly(text), text


def test_in_a_long_text_only_boxes_near_the_last_one_are_parsed(monkeypatch):
    monkeypatch.setattr(extraction, "_REACH", 40)
    draw = random.Random(1)
    for _ in range(20_000):
        text = "".join(draw.choices(PIECES, k=draw.randrange(1, 60)))
        last = max(map(text.rfind, extraction.BOXES))
        run = len(text[: max(0, last - 40)]) - len(text[: max(0, last - 40)].rstrip("\\"))
        near = text[max(0, last - 40) + run % 2 : last + 40] if last >= 0 else ""
        assert [content for *_, content in boxes(text)] == [content for *_, content in plainly(near)], text


def repeated(piece: str) -> str:
    return (piece * (SIZE // len(piece) + 1))[:SIZE]


@pytest.mark.parametrize(
    ("completion", "answer"),
    [
        (lambda: repeated("so it goes "), None),
        (lambda: repeated("{"), None),
        (lambda: repeated("}"), None),
        (lambda: repeated("\\boxed{"), None),
        (lambda: repeated("\\boxed{41} ") + "so \\boxed{42}", "42"),
        (lambda: "\\boxed{42}" + repeated("{x}"), "42"),
        (lambda: "\\boxed{42} " + repeated("\\text{so} "), "42"),
        (lambda: repeated("\\frac{1}{2}") + "\\boxed{42}", "42"),
        (lambda: "\\boxed{41}" + repeated(" ") + "</think> \\boxed{42}", "42"),
        (lambda: "\\boxed{41} " + repeated("x{y} ") + "\\boxed{42} and more", "42"),
        (lambda: "\\boxed{41" + repeated("{}") + " \\boxed{42}", "42"),
        (lambda: "\\boxed{41}" + repeated(" ") + "\\boxed{42}", "42"),
        (lambda: "\\boxed{42}<|im_end|>" + repeated("\\boxed{41}"), "42"),
        (lambda: repeated("<|") + "\\boxed{42}", "42"),
        (lambda: "\\boxed{" * (SIZE // 8) + "}" * (SIZE // 8), "too long"),
        (lambda: "(" * SIZE + "\\boxed{42}" + ")" * SIZE, "42"),
        (lambda: "\\boxed" + " " * 20_000 + "\\boxed{42}", "42"),
        (lambda: "\\boxed 41" + " " * 20_000 + "\\boxed{42}", "42"),
        (lambda: "\\boxed -" + " " * 20_000 + "\\boxed 42$", "42"),
        (lambda: "The answer is 42.\nAnswer" + "\n" * 4000, None),
        (lambda: "".join(f"not \\boxed{{{count}}}. " for count in range(20_000)), None),
    ],
)
def test_megabytes_take_a_moment(completion, answer):
    text = completion()
    started = time.thread_time()
    verdict = grade_strings(text, "42")
    assert time.thread_time() - started < 1.5  # about 0.2 s on an idle machine; formerly 3 to 5 s, or minutes
    assert verdict.status == {None: "no_answer", "42": "correct", "too long": "policy"}[answer]


@pytest.mark.parametrize("content", ["", "$", "+".join("x" * 200)])
def test_a_text_may_end_in_an_unfinished_box(content: str) -> None:
    assert final_answer(f"\\boxed{{{content}}}. Also \\boxed{{", accept="box") == (content or None)


def test_boxes_separated_by_long_whitespace_are_a_list():
    between = " \n\\quad " * 20_000
    assert last_boxed(f"\\boxed{{41}}{between}or{between}\\boxed{{42}}") == "41, 42"
    assert final_answer(f"\\boxed{{41}}{between}x{between}\\boxed{{42}}") == "42"


@pytest.mark.parametrize(
    "text",
    [
        "\\boxed{17}, which is wrong.",
        "\\boxed{17} (wrong units)",
        "\\boxed{17}: wrong",
        "Is it \\boxed{17}? No.",
        "\\boxed{17} is not possible.",
        "$\\boxed{17}$ is extraneous.",
        "\\boxed{17} must be rejected.",
        "\\boxed{17}, but that is impossible.",
    ],
)
def test_a_box_that_the_text_refuses_is_not_paid(text: str) -> None:
    assert final_answer(text) is None


@pytest.mark.parametrize(
    "text",
    [
        "\\boxed{17}, which is correct.",
        "There are \\boxed{17} wrong answers.",
        "\\boxed{17}, which is the smallest possible.",
        "$\\boxed{17}$. It is not hard to check.",
        "$\\boxed{17}$: no more than that is needed.",
        "\\boxed{17}. No other value is possible.",
    ],
)
def test_a_box_that_the_text_confirms_is_paid(text: str) -> None:
    assert final_answer(text) == "17"


@pytest.mark.parametrize(
    "aside",
    ["the candidate 3 makes the denominator vanish", "this counts both endpoints", "not counting the two ends",
     "about 15.00", "rounded to the nearest thousand", "nearest tenth", "in minutes", "as required"],
)  # fmt: skip
def test_parentheses_after_a_stated_value_are_a_sentence_of_their_own(aside: str) -> None:
    assert grade_answer(f"The answer is $15$ ({aside}).", "15").value == 1.0


@pytest.mark.parametrize(
    "aside",
    ["or maybe 17", "it could also be 17", "two dozen", "in units of one thousand", "multiplied by two",
     "times the days", "plus any multiple of 7", "this is merely a guess", "in thousands", "up to sign, minus fifteen",
     "the actual value is 17", "this is wrong, it should be 17",
     "only when repetition is allowed, which it is not", "about twelve million people", "in dozens",
     "roughly two thirds of it"],
)  # fmt: skip
def test_parentheses_that_may_change_a_stated_value_leave_it_unpaid(aside: str) -> None:
    assert grade_answer(f"The answer is 15 ({aside}).", "15").value == 0.0


@pytest.mark.parametrize("end", [" instead.", " instead of 17.", ", instead of $17$.", " apples instead."])
def test_instead_after_a_stated_value_is_no_part_of_it(end: str) -> None:
    assert grade_answer(f"The answer is 15{end}", "15").value == 1.0
    assert grade_answer(f"The answer is 17. No, it is 15{end}", "15").value == 1.0
    assert grade_answer(f"The answer is 15{end}", "17").value == 0.0


@pytest.mark.parametrize(
    ("heading", "answer"),
    [("Answer\n42", "42"), ("**Answer:**\n\n42", "42"), ("## Final answer \n \n**42**", "42"),
     ("Answer.\r\n$42$", "42"), ("Answer\n", None), ("The answer\n\n***\n", None)],
)  # fmt: skip
def test_an_answer_stands_under_its_heading(heading: str, answer: str | None) -> None:
    assert final_answer(heading) == answer


@pytest.mark.parametrize("kind", ["align*", "equation", "gather*"])
def test_a_displayed_environment_under_a_statement_is_its_answer(kind: str) -> None:
    assert final_answer(f"The final answer is\n\n\\begin{{{kind}}}\n17\n\\end{{{kind}}}") == "17"


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("So the answer is \\boxed 5.", "5"),
        ("It is \\boxed 5\nThank you.", "5"),
        ("\\boxed x", "x"),
        ("\\boxed 5 or 6", None),
        ("\\boxed 5^2", None),
        ("\\boxed 5 thousand.", None),
    ],
)
def test_a_box_without_braces_ends_with_its_line(text, answer):
    assert final_answer(text, accept="box") == answer


def test_a_negative_space_ends_no_sentence():
    assert final_answer("#### 11,\\! 111,\\! 100") == "11,\\! 111,\\! 100"
    assert final_answer("The answer is 5! It is.") == "5"
