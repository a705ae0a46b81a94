"""Extraction of the program from a completion."""

import time

import pytest

from rewards.code_grader.program import extract_code, program_of


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("x = 1", "x = 1"),
        ("    return 1\n", "    return 1\n"),
        ("a\n```python\nx = 1\n```\nb\n```\ny = 2\n```\nc", "y = 2\n"),
        ("```py\nx = 1\n", "x = 1\n"),
        ("<think>```\nx\n```</think>```\ny\n```", "y\n"),
        ("<think>```\nx\n```", None),
        ("   \n", None),
        ("~~~\nx = '```'\n~~~", "x = '```'\n"),
        ("````\n```\nx\n```\n````", "```\nx\n```\n"),
    ],
)
def test_extraction(text, code):
    assert extract_code(text) == code


def test_extraction_is_linear():
    started = time.process_time()
    for text in ("```\n" * 50_000, "```" * 100_000, "`" * 300_000, "~~~\n```\n" * 40_000, " " * 300_000):
        extract_code(text)
    assert time.process_time() - started < 2


def test_program_without_a_code_prompt():
    assert program_of("x", "Write a function f.", "f") == program_of("x", "def g(): pass", "f") == "x"
