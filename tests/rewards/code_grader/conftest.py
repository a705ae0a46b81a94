"""The reward `code` on every sandbox rung that this machine allows."""

import pytest

from rewards.code_grader.reward import CodeReward
from rewards.sandbox import ladder


@pytest.fixture(scope="module", params=["bubblewrap", "landlock"])
def rung(request):
    if reason := ladder.unavailable(request.param):
        pytest.skip(f"NOT TESTED, rung {request.param}: {reason}")
    return request.param


@pytest.fixture(scope="module")
def code(rung):
    patch = pytest.MonkeyPatch()
    patch.setattr("rewards.code_grader.reward.choose_rung", lambda **_: ladder.command(rung))
    reward = CodeReward(timeout_s=4.0, test_timeout_s=1.0, memory_mb=256)
    patch.undo()
    yield reward
    reward.close()


@pytest.fixture
def verdict(code):
    """Grades one completion."""

    def grade(completion, tests=None, **columns):
        row = {"tests": [tests], **{name: [value] for name, value in columns.items()}}
        [result] = code.verdicts([completion], row)
        return result

    return grade
