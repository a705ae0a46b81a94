"""The benchmarks that come from the hub, by name: which data set, which columns, how a problem is put, what grades it.

Generated tasks (`ouro_rl/tasks`) are the other benchmarks that have a name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Reward = Literal["math", "code"]


@dataclass(frozen=True, kw_only=True)
class HubBenchmark:
    """One data set on the hub."""

    about: str
    """One line."""
    hub_id: str
    config: str | None = None
    """The data set's configuration; None: it has one."""
    split: str = "test"
    question: str = "problem"
    """Column of the question."""
    answer: str | None = "answer"
    """Column of the gold answer; None: the reward reads the columns of tests."""
    reward: Reward = "math"

    def download(self) -> str:
        """How to have it where there is no network later."""
        return f"hf download {self.hub_id} --repo-type dataset"


HUB_BENCHMARKS = {
    "math500": HubBenchmark(about="500 problems of MATH", hub_id="HuggingFaceH4/MATH-500"),
    "aime24": HubBenchmark(about="30 problems of AIME 2024", hub_id="HuggingFaceH4/aime_2024", split="train"),
    "aime25": HubBenchmark(about="30 problems of AIME 2025", hub_id="math-ai/aime25"),
    "gsm8k": HubBenchmark(
        about="1,319 word problems", hub_id="openai/gsm8k", config="main", question="question", answer="answer"
    ),
    "humaneval": HubBenchmark(
        about="164 functions to complete, with tests",
        hub_id="openai/openai_humaneval",
        question="prompt",
        answer=None,
        reward="code",
    ),
    "mbpp": HubBenchmark(
        about="257 short programs, with tests (the sanitized test split)",
        hub_id="google-research-datasets/mbpp",
        config="sanitized",
        question="prompt",
        answer=None,
        reward="code",
    ),
}
TEST_COLUMNS = ("tests", "test_list", "test", "input_output", "test_cases", "official_tests", "public_test_cases")
"""Columns that hold tests, in the order in which they are looked for: a row with one is graded by running them."""


def code_question(row: Mapping[str, Any], text: str) -> str:
    """How a programming problem is put: a function that begins in `text` is to be completed; a description is followed
    by the tests, which alone say what the function is called."""
    if isinstance(row.get("entry_point"), str) and "def " in text:
        return f"Complete this Python function. Answer with the whole program.\n\n```python\n{text.rstrip()}\n```"
    tests = row.get("test_list")
    listed = "" if tests is None else "\n\nIt must pass these tests:\n\n" + "\n".join(map(str, tests))
    return f"{text.rstrip()}{listed}\n\nAnswer with a Python program."
