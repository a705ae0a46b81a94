"""The work on an answer is bounded: what blows up a grader is decided as quickly as anything else."""

import time

import pytest

from tests.references.math_grading import grade_answer

LONG_S = 2.0
"""Seconds of processor time for one answer: a hundred times what it takes."""


@pytest.mark.parametrize(
    "answer",
    [
        "10^{10^{8}}",
        "\\exp(\\exp(\\exp(100)))",
        "exp(exp(exp(100)))",
        "e^{2e^{2e^{99}}}",
        "\\cosh\\left({\\exp{(3+e^{99})}}\\right)",
        "e^e^e^99",
        "1e999999999",
        "x + 3.e-999999",
        "(x+7)^{7^{9}}",
        "\\sqrt{2}^{10^{9}}",
        "\\frac{1}{2}^{10^{9}}",
        "{7}^{{7}^{{7}^{7}}}",
        "|x|^{10^{12}}",
        "(((9!)!)!)!",
        "\\binom{10^{12}}{10^{11}}",
        "\\Gamma(10^{30})",
        "\\sum_{i=1}^{1000}\\sum_{j=1}^{1000}\\sum_{k=1}^{1000} x^{ijk}",
        "\\prod_{i=1}^{999} i^{i^{i}}",
        "x" + "!" * 900,
        "x" + "^x" * 900,
        "\\sin " * 300 + "x",
        "-" * 1500 + "x",
        "x/" * 900 + "x",
        "x+" * 900 + "x",
        "(" * 900 + "x" + ")" * 900,
        "\\sqrt{" * 300 + "2" + "}" * 300,
        "\\tan(" * 25 + "x" + ")" * 25,
        "0^{-10^{10}}",
        "5" + "a" * 1500 + "!",
        "5" + " " * 1500 + "x",
        "5" + "   /  \\text{m}" * 100 + "!",
        "n" + " " * 20_000 + "Z",
        "any integer" + " " * 20_000 + "1",
        "\\text{" + ", " * 900 + "}",
        "]" + "~" * 1500,
        "C_" + "~" * 1500,
        "1" + "\\;" * 700 + "\u5143x",
        "1" + "~" * 1500 + "\u5143x",
        "5" + "\\cdot \\text{m} " * 90 + "!",
        "5\\text{ " + "a " * 800 + "}!",
        "\\text{" * 250,
        "\\boxed{" * 200 + "}" * 200,
        "\\begin{pmatrix}" * 100,
        "5 and " * 300 + "6",
        "1," * 900,
        "x=(" * 500,
        "|" * 1500,
        "\\pm" * 500,
        "\\{" * 900,
        "\\left( " * 200,
        "]1;" * 600,
        "\\cup[1,2)" * 200,
        "a<" * 900 + "b",
        "5 hours " * 240,
        "\\quad" * 350 + "5",
        "\\sum_{i=1}^{999}" * 100 + "x",
        "f(" * 500 + "x" + ")" * 500,
        '"' * 1500,
        "_{two}" * 300,
        "\\frac{x}{x-x}",
    ],
)
def test_no_answer_takes_long(answer):
    started = time.thread_time()
    assert grade_answer(f"\\boxed{{{answer}}}", "x^2+1").value == 0.0
    assert time.thread_time() - started < LONG_S


@pytest.mark.parametrize(
    "text",
    [
        "The answer is " + "5 " * 2000,
        "answer " * 600,
        "\n" * 4000 + "answer",
        "#### " * 800,
        "The answer is $" * 300,
        "answer: " + "(" * 2000,
        "The answer is " + " " * 3000 + "x",
        "\\boxed{1}" + " a=" * 1000 + "\\boxed{2}",
        "<answer>" * 500,
    ],
)
def test_no_text_takes_long(text):
    started = time.thread_time()
    assert grade_answer(text, "x^2+1").value == 0.0
    assert time.thread_time() - started < LONG_S
