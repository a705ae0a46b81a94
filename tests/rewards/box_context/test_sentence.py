"""The sentence around a box: every template with every value."""

import itertools

import pytest

from rewards.extraction import final_answer

VALUES = ["17", "\\frac{3}{4}", "-5", "2\\sqrt{3}", "0.25"]

REFUSED = {
    "a negated verb group after": [
        "$BOX$ is not the answer.",
        "$BOX$ isn't it.",
        "$BOX$ does not lie in the range.",
        "$BOX$, which doesn't satisfy the equation.",
        "$BOX$ cannot possibly be right.",
        "$BOX$ can't be it.",
        "BOX never works.",
        "$BOX$ was not what we wanted.",
        "\\[BOX\\] It isn't the answer.",
        "$BOX$ cm is not possible.",
        "$BOX$ won't do.",
        "$BOX$ has not been shown to be right.",
        "$BOX$, but it does not divide 12.",
        "$BOX$ hardly fits.",
        "$BOX$. It isn't correct.",
        "$BOX$. But this cannot be the answer.",
        "$BOX$ (not the answer)",
        "$BOX$, not really the solution.",
    ],
    "a falsity after": [
        "$BOX$ is wrong.",
        "$BOX$ would be a wrong answer.",
        "$BOX$ seems incorrect.",
        "$BOX$ (incorrect)",
        "$BOX$: false.",
        "$BOX$ -- wrong",
        "$BOX$ is actually an invalid choice.",
        "$BOX$ must be excluded.",
        "$BOX$ is too large.",
        "$BOX$ is out of range.",
        "$BOX$ is off by one.",
        "$BOX$ fails.",
        "$BOX$ contradicts the condition.",
        "$BOX$, though this value is extraneous.",
        "$BOX$, which is clearly impossible.",
        "$BOX$. No.",
        "$BOX$. Wrong!",
        "$BOX$. That is a mistake.",
        "Could it be $BOX$?",
        "$BOX$, but I'm not sure.",
        "$BOX$ was ruled out.",
    ],
    "another value after": [
        "$BOX$ times 2.",
        "$BOX$ plus one.",
        "$BOX$ divided by $3$.",
        "$BOX$ squared.",
        "$BOX$ thousand.",
        "BOX million dollars",
        "$BOX$ dozen eggs.",
        "$BOX$ and a half.",
        "$BOX$ percent of 200.",
        "$BOX$ more than the answer.",
        "$BOX$ less than $40$.",
        "$BOX$ is twice the answer.",
        "$BOX$ is one more than the answer.",
        "$BOX$ is close to the answer.",
        "$BOX$ or more.",
        "$BOX$ or so.",
        "$BOX$ at most.",
        "$BOX$ or its reciprocal.",
        "$BOX + 1$",
        "$BOX \\cdot 2$",
        "$BOX^2$",
        "$BOX!$",
        "$BOX/2$",
        "$BOX x$",
        "$BOX\\pi$",
        "$x = BOX + 1$",
    ],
    "a hedge after": [
        "$BOX$ or maybe not.",
        "$BOX$ unless $n$ is odd.",
        "$BOX$ if $n$ is even, otherwise $40$.",
        "$BOX$ if $n$ is even and $40$ if $n$ is odd.",
        "$BOX$ (if not, then 40).",
        "$BOX$ when $n$ is even, else $40$.",
        "$BOX$, but $40$ also works.",
        "$BOX$; perhaps $40$.",
        "$BOX$, though 40 is more likely.",
    ],
    "a negated verb group before": [
        "The answer is not $BOX$.",
        "It isn't BOX.",
        "It cannot possibly be $BOX$.",
        "It is never equal to $BOX$.",
        "The answer is definitely not the number $BOX$.",
        "We do not get $BOX$.",
        "The answer is no longer $BOX$.",
        "The answer is not $x = BOX$.",
        "The answer is neither $40$ nor $BOX$.",
        "I do not think that the answer is $BOX$.",
        "There is no reason to believe the answer is $BOX$.",
        "It is not true that the answer is $BOX$.",
        "I doubt that it is $BOX$.",
        "It is wrong to say $BOX$.",
        "The answer is not: $BOX$",
    ],
    "an exception, a bound or a mistake before": [
        "The answer is anything but $BOX$.",
        "The answer is any number except $BOX$.",
        "The answer is some number other than $BOX$.",
        "Use $40$ rather than $BOX$.",
        "The answer is different from $BOX$.",
        "The answer is less than $BOX$.",
        "The answer is 3 more than $BOX$.",
        "It is at most $BOX$.",
        "The answer is above $BOX$.",
        "The answer is close to $BOX$.",
        "$x < BOX$",
        "$x \\ne BOX$",
        "A wrong answer would be $BOX$.",
        "One common mistake is $BOX$.",
        "The incorrect value $BOX$",
        "I mistakenly answered $BOX$.",
        "If it were even, the answer would be $BOX$. However, it is odd.",
    ],
    "another value before": [
        "The answer is twice $BOX$.",
        "The answer is half of $BOX$.",
        "The answer is two thirds of $BOX$.",
        "The answer is the square of $BOX$.",
        "The answer is the square root of $BOX$.",
        "The answer is 2 times $BOX$.",
        "The answer is 100 divided by $BOX$.",
        "The answer is 40 minus $BOX$.",
        "The answer is negative $BOX$.",
        "$2 \\cdot BOX$",
        "$40 - BOX$",
        "-BOX",
        "$\\frac{1}{BOX}$",
        "$\\sqrt{BOX}$",
        "$2^{BOX}$",
        "$x = 2 \\cdot BOX$",
        "$x = -BOX$",
        "$3 BOX$",
    ],
}

OFFERED = [
    "$BOX$ or $40$.",
    "$BOX$ or 40",
    "$BOX$, or possibly $40$.",
    "$BOX$ (or $40$)",
    "$BOX$ or maybe it could be 40.",
    "$BOX$ and $40$",
    "$BOX$, 40.",
    "$BOX$ or $x=40$",
    "Between $BOX$ and $40$.",
    "$BOX \\text{ or } 40$",
]

CONFIRMED = [
    "$BOX$.",
    "**BOX**",
    "- BOX",
    "So the answer is $x = BOX$.",
    "$BOX$ is the number of ways such that no two are adjacent.",
    "$BOX$, not $40$.",
    "$BOX$ and not $40$.",
    "$BOX$, but not $40$.",
    "$BOX$ rather than $40$.",
    "$BOX$ where $x$ is not $0$.",
    "$BOX$, since it cannot be $40$.",
    "$BOX$, because $40$ is wrong.",
    "$BOX$, so $40$ is not an answer.",
    "$BOX$, which is correct.",
    "$BOX$, which does not depend on $n$.",
    "$BOX$ is the only possible value.",
    "$BOX$ works and no value less than it works.",
    "$BOX$. It is not hard to check.",
    "$BOX$. No other value is possible.",
    "$BOX$. This does not depend on $n$.",
    "$BOX$ for all $n \\ge 5$.",
    "$BOX$ if $n > 0$.",
    "$BOX$ centimeters.",
    "$BOX$ percent.",
    "$BOX$ more than Susan.",
    "$BOX$ feet less than Martha.",
    "$BOX$ times.",
    "$BOX$ students do not like mathematics.",
    "$BOX$ answers are wrong.",
    "$BOX$ of the answers are not right.",
    "$BOX$ to the nearest dollar.",
    "$BOX$ or, in words, that number.",
    "$BOX$, right?",
    "$BOX$? Yes.",
    "$BOX$, independent of $k$.",
    "$BOX$, and $y = 6$.",
    "$BOX = x$",
    "$BOX + 3 = 40$",
    "$40 = 3 + BOX$",
    "$BOX \\pmod 7$",
    "$BOX^\\circ$",
    "$BOX$, plus or minus nothing.",
    "Zach can have at most $BOX$ pencils left over.",
    "Because $x$ cannot be $0$, $x=BOX$.",
    "It is not hard to see that the answer is $BOX$.",
    "It is not difficult to get $BOX$.",
    "Do not forget that the answer is $BOX$.",
    "It's not $40$ but $BOX$.",
    "It is not 40; it is $BOX$.",
    "We do not have any additional terms: $M=BOX$.",
    "The answer is none other than $BOX$.",
    "There are no solutions other than $BOX$.",
    "The number of wrong answers is $BOX$.",
    "The probability of a wrong answer is $BOX$.",
    "There is no doubt that the answer is $BOX$.",
    "The smallest number greater than $40$ is $BOX$.",
    "$4 + 5$ is 5 more than 4, which is $BOX$.",
    "The sum is a total of $BOX$.",
    "We reject the negative root and get $BOX$.",
    "By the chain rule, $BOX$.",
    "It decreased by $BOX$ percent.",
    "Therefore $BD^2 > BOX$.",
    "First I got 40, but that is wrong. The answer is $BOX$.",
    "Twice $BOX$ is $40$.",
]


def filled(templates: list[str]) -> list[tuple[str, str]]:
    """Every template with every value."""
    return [(text.replace("BOX", f"\\boxed{{{value}}}"), value) for text, value in itertools.product(templates, VALUES)]


@pytest.mark.parametrize("kind", REFUSED)
def test_a_sentence_that_refuses_its_box_or_makes_another_value_of_it(kind: str) -> None:
    paid = [text for text, value in filled(REFUSED[kind]) if final_answer(text) == value]
    assert paid == []


def test_another_value_that_the_sentence_offers_is_part_of_the_answer() -> None:
    wrong = [text for text, value in filled(OFFERED) if final_answer(text) != f"{value}, 40"]
    assert wrong == []


def test_a_sentence_that_leaves_its_box_alone() -> None:
    refused = [(text, final_answer(text)) for text, value in filled(CONFIRMED) if final_answer(text) != value]
    assert refused == []


def test_the_same_value_in_another_form_is_no_other_answer() -> None:
    assert final_answer("$\\boxed{120}$ minutes or $2$ hours") == "120"
    assert final_answer("$\\boxed{0.5}$ or $50\\%$") == "0.5"
    assert final_answer("$\\boxed{\\frac13}$ or approximately $0.33$") == "\\frac13"


def test_words_may_be_called_wrong() -> None:
    assert final_answer("$\\boxed{\\text{B}}$ is wrong.") == "\\text{B}"
    assert final_answer("The answer is not $\\boxed{\\text{B}}$.") is None
