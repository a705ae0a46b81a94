"""The result of grading one completion."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

Status = Literal["correct", "wrong", "no_answer", "gold_unparsable", "timeout", "crash", "policy", "memory", "limit"]

INFRASTRUCTURE: tuple[Status, ...] = ("gold_unparsable", "timeout", "crash")
"""Failures that are not the model's fault: such a verdict has no value, so it never affects training."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The score of one completion, with the reason."""

    value: float | None
    """1.0 = correct, 0.0 = wrong; None = could not be scored (never 0: the model did not cause the failure)."""
    status: Status
    """`policy`: a rule refuses the answer without grading it (too large to evaluate, left unevaluated, ...)."""
    extracted: str | None = None
    """The final answer extracted from the completion; None if there is none."""
    detail: str = ""
    """The reason; empty if the status is sufficient."""
    ms: float = 0.0
    """Wall time of this verdict in milliseconds, excluding the wait for a free worker."""

    def __post_init__(self) -> None:
        if self.status in INFRASTRUCTURE and self.value is not None:
            raise ValueError(f"a verdict with status {self.status} has no value, got {self.value}")

    def to_dict(self) -> dict[str, Any]:
        """The fields as a dict of plain JSON data."""
        return asdict(self)
