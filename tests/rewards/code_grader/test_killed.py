"""The reward `code`: what is killed from outside is run again, and never counts as wrong."""

import contextlib
import os
import signal
import threading
from contextlib import closing

import pytest

from rewards.sandbox.host import _children
from tests.references.patience import HANG_S, comes_true
from tests.references.process_table import processes
from tests.references.sandboxes import code_reward

SLOW = "import time\ndef triple(x):\n    time.sleep(0.2)\n    return 3 * x\n"
ASSERTS = [f"assert triple({x}) == {3 * x}" for x in range(5)]
SCRIPT = [{"stdin": "1", "stdout": "3"}]
SLOW_SCRIPT = "import time\ntime.sleep(1)\nprint(3 * int(input()))"


@pytest.mark.parametrize("target", ["program and tests", "sandbox"])
@pytest.mark.parametrize(("program", "tests"), [(SLOW, ASSERTS), (SLOW_SCRIPT, SCRIPT)], ids=["asserts", "script"])
def test_a_right_program_is_right_though_it_was_killed(rung, program, tests, target):
    with closing(code_reward(rung, timeout_s=HANG_S, test_timeout_s=HANG_S)) as reward:
        assert reward([f"{program}# first"], tests=[tests]) == [1.0]
        [child] = reward._pool._all
        [worker] = _children(child._process.pid)
        idle = processes(worker)
        found = []
        thread = threading.Thread(target=lambda: found.extend(reward.verdicts([program], {"tests": [tests]})))
        thread.start()
        assert comes_true(lambda: len(processes(worker) - idle) >= (2 if tests is ASSERTS else 1))
        for pid in processes(worker) - (idle if target == "program and tests" else set()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        thread.join()
        assert [verdict.value for verdict in found] == [1.0], found
