"""Extraction of the program from a completion."""

import time

import pytest

from rewards.code_grader.program import Wanted, find_program, program_of


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
        ("````\n```\nx\n```\n````", "x\n"),
        (
            "```\nif x:\n\ty = 1\n        z = 2\n```",
            "if x:\n\ty = 1\n        z = 2\n",
        ),  # an error of Python's stays one
        ("1.\n    ```\n    if x:\n    \ty = 1\n    ```", "if x:\n\ty = 1\n"),
    ],
)
def test_extraction(text, code):
    found = find_program(text, Wanted())
    assert (found and found.code) == code


def test_extraction_is_linear():
    started = time.thread_time()
    for text in ("```\n" * 50_000, "```" * 100_000, "`" * 300_000, "~~~\n```\n" * 40_000, " " * 300_000):
        find_program(text, Wanted(names=frozenset({"f"})))
    assert time.thread_time() - started < 2


def test_program_without_a_code_prompt():
    assert program_of("x", "Write a function f.", "f") == program_of("x", "def g(): pass", "f") == "x"


SQUARE = "def square(x):\n    return x * x\n"
T = "```"


@pytest.mark.parametrize(
    "text",
    [
        f"{T}python\n{SQUARE}{T}\nUsage:\n{T}python\nassert square(3) == 9\n{T}",
        f"{T}python\n{SQUARE}{T}\nIt prints\n{T}text\n9\n{T}\nand\n{T}sh\npython -m square 3\n{T}",
        f"{T}python\n{SQUARE}{T}\n{T}python\nfor k in range(100_000):\n    print(k, 'of many', square(k))\n{T}",
        f"{T}python\n{SQUARE}{T}\nA slip would be\n{T}text\ndef square(x): return x\n{T}",
        f"{T}text\n{SQUARE}{T}",
        f"{T}js\nconst square = x => x * x\n{T}\n- So:\n  {T}py\n  def square(x):\n      return x * x\n  {T}",
        f"> {T}python\n> def square(x):\n>     return x * x\n> {T}\n",
        f"{SQUARE}{T}\n\nThe square of x.",
        f"Sure!\n\n{SQUARE}\nThis multiplies x by itself.\n",
        f"<answer>{T}python\n{SQUARE}{T}</answer>",
        f"<code>\n{T}\n{SQUARE}{T}<|im_end|>",
        f"{T}python\r\ndef square(x):\r\n    return x * x\r\n{T}\r\n",
        f"{T}python\n{SQUARE.rstrip()}{T}\nDone.",
        f"{T}python\n{SQUARE}{T} \n{T}",
        f"{T}\n\n{T}\n{T}python\n{SQUARE}",
        f"\ufeff{T}python\n{SQUARE}{T}",
        f'{T}python\ndef square(x):\n    """\n    {T}\n    square(2)\n    {T}\n    """\n    return x * x\n{T}\n',
        f"{T}python\ndef square(x):\n    return -x\n{T}\nNo:\n{T}python\n{SQUARE}{T}\n{T}\nx = 1\n{T}",
        f"{T}python\nimport math\nTWO = 2\n{T}\nthen\n{T}python\ndef square(x):\n    return int(math.pow(x, TWO))\n{T}",
    ],
)
def test_the_block_that_defines_what_the_tests_ask_for(text):
    found = find_program(text, Wanted(names=frozenset({"square"})))
    assert found is not None
    names: dict = {}
    exec(found.source, names)
    assert names["square"](3) == 9


def test_the_last_version_counts():
    """Even if an earlier one was right: the last one is what the answer says."""
    text = f"{T}python\n{SQUARE}{T}\nBetter:\n{T}python\ndef square(x):\n    return x\n{T}"
    assert "return x\n" in find_program(text, Wanted(names=frozenset({"square"}))).code


@pytest.mark.parametrize(
    "after",
    [
        f"Output:\n{T}\n4\n{T}",
        f"{T}python\nassert 2 + 2 == 4 and 'a long line that reads nothing and says nothing'\n{T}",
        f"{T}bash\necho 2 | python3 main.py\n{T}",
    ],
)
def test_the_script_among_other_blocks(after):
    text = f"{T}python\nprint(2 + int(input()))\n{T}\n{after}"
    assert find_program(text, Wanted(reads=True)).code == "print(2 + int(input()))\n"


@pytest.mark.parametrize(
    "text", ["return x * x", "    return x * x\n```\n", "```python\n    return x * x\n```", SQUARE, f"{T}\n{SQUARE}{T}"]
)
def test_the_body_of_the_prompts_function(text):
    wanted = Wanted(names=frozenset({"square"}), prompt="def square(x):\n    '''x^2'''\n", entry_point="square")
    names: dict = {}
    exec(find_program(text, wanted).source, names)
    assert names["square"](3) == 9
