"""Whether a process still runs: not another one with its number, and not a dead one that nobody has waited for."""

import subprocess
import sys
from dataclasses import replace

import pytest

from ouro_rl.core.process_id import ProcessId, _state, own_process
from tests.references.patience import comes_true

linux = pytest.mark.skipif(sys.platform != "linux", reason="the start time of a process is read in /proc")


def test_this_process():
    own = own_process()
    assert own.is_here and own.is_alive
    assert not replace(own, place="another machine").is_here


@linux
def test_another_process_with_the_same_number():
    assert not replace(own_process(), started="1").is_alive


@linux
def test_a_dead_process_that_was_not_waited_for():
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    state = _state(child.pid)
    assert state is not None
    process = ProcessId(pid=child.pid, started=state[1], place=own_process().place)
    assert process.is_alive
    child.kill()
    assert comes_true(lambda: not process.is_alive)
    child.wait()
    assert not process.is_alive
