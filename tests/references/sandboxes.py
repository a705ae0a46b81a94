"""The rungs of the sandbox's ladder, for tests: skipped where this machine lacks them, and the reward `code` on one."""

from typing import Any

import pytest

from rewards.code_grader.reward import CodeReward
from rewards.sandbox import ladder

RUNGS = ("bubblewrap", "landlock")


def needs(rung: str) -> None:
    """Skips a test without this rung."""
    if rung != "none" and (reason := ladder.unavailable(rung)):
        pytest.skip(f"NOT TESTED, rung {rung}: {reason}")


def needs_any() -> None:
    """Skips a test without any sandbox."""
    if all(reasons := [ladder.unavailable(rung) for rung in RUNGS]):
        pytest.skip(f"NOT TESTED, no sandbox: {'; '.join(reasons)}")


def code_reward(rung: str, **options: Any) -> CodeReward:
    """Runs its programs on this rung. Close it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rewards.code_grader.reward.choose_rung", lambda packages, **_: ladder.command(rung, packages))
        return CodeReward(**options)
