"""Graded answers made up for tests of figures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ouro_rl.evaluation.answers import Answer


def make_answer(problem: int, sample: int = 0, *, value: float | None = 1.0, **given: Any) -> Answer:
    """An answer of three tokens at depth 1, unless `given` says otherwise."""
    depths = tuple(given.pop("depths", (1, 1, 1)))
    status = {None: "timeout", 1.0: "correct"}.get(value, "wrong")
    values: Mapping[str, Any] = {
        "benchmark": "made up", "row": "fixed 1", "seed": 7, "question": f"problem {problem}", "gold": str(problem),
        "groups": {}, "prompt": "", "completion": "", "status": status, "extracted": str(problem) if value else "x",
        "detail": "", "finish_reason": "stop", "prompt_tokens": 2, "completion_ids": (5,) * len(depths), "flops": 100,
        **given,
    }  # fmt: skip
    return Answer(problem=problem, sample=sample, value=value, depths=depths, **values)
