"""The reward `code` on every sandbox rung that this machine allows."""

import pytest

from tests.references.sandboxes import RUNGS, code_reward, needs


@pytest.fixture(scope="module", params=RUNGS)
def rung(request):
    needs(request.param)
    return request.param


@pytest.fixture(scope="module")
def code(rung):
    reward = code_reward(rung, timeout_s=4.0, test_timeout_s=1.0, memory_mb=256)
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
