"""What a verifier says about one completion."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

Status = Literal["correct", "wrong", "no_answer", "gold_unparsable", "timeout", "crash", "policy"]

INFRASTRUCTURE: tuple[Status, ...] = ("gold_unparsable", "timeout", "crash")
"""Not the model's fault: such a verdict has no value, so that it never trains anything."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """One completion's score with its reason."""

    value: float | None
    """1.0 = correct, 0.0 = not; None = could not be scored (never 0: an infrastructure failure is nobody's answer)."""
    status: Status
    """`policy`: an answer was given, and a rule refuses it unread (too large to evaluate, not evaluated, ...)."""
    extracted: str | None = None
    """The final answer as it was read from the completion; None when there is none."""
    detail: str = ""
    """Why, in words; empty when the status says it all."""
    ms: float = 0.0
    """Wall time of this verdict in milliseconds, without waiting for a free worker."""

    def __post_init__(self) -> None:
        if self.status in INFRASTRUCTURE and self.value is not None:
            raise ValueError(f"a verdict with status {self.status} has no value, got {self.value}")

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON data."""
        return asdict(self)
