"""What the host learns of the end of a child: whether a program ended by itself, or somebody else ended it."""

import contextlib
import os
import signal
import time
from dataclasses import replace

import pytest

from rewards.sandbox import ladder
from rewards.sandbox.host import ENDED_WELL, ChildGone, Sandbox, SandboxError
from tests.references.patience import HANG_S, comes_true
from tests.references.process_table import processes
from tests.references.sandboxes import RUNGS, needs
from tests.rewards.sandbox.test_sandbox import LIMITS, ask


@pytest.fixture(scope="module", params=RUNGS)
def sandbox(request):
    needs(request.param)
    with Sandbox(ladder.command(request.param), replace(LIMITS, seconds=1)) as sandbox:
        sandbox.start()
        yield sandbox


def started(sandbox, program):
    """A child that runs this program."""
    child = sandbox.child("candidate")
    child.send({"nonce": "1", "program": program, "script": False}, time.monotonic() + HANG_S)
    child.wait_until_confined()
    return child


def test_a_child_that_somebody_else_kills_has_not_failed(sandbox):
    before = processes(sandbox._process.pid)
    child = started(sandbox, "import time\ntime.sleep(60)")
    for pid in processes(sandbox._process.pid) - before:
        os.kill(pid, signal.SIGKILL)
    with pytest.raises(SandboxError, match="outside"), child:
        child.receive(time.monotonic() + HANG_S)
    assert ask(sandbox, "def double(x): return 2 * x", "double", 21) == 42


ENDS = {
    "by itself": ("os._exit(0)", ENDED_WELL),
    "with a failure": ("os._exit(3)", "exited with status 3"),
    "by a signal": ("import ctypes\nctypes.string_at(0)", "killed by SIGSEGV"),
    "for its CPU time": ("while True: pass", ""),
    "for less CPU time than it was given": (
        "import resource\ntry: resource.setrlimit(resource.RLIMIT_CPU, (0, 0))\nexcept Exception: pass\nos._exit(5)",
        "exited with status 5",
    ),
    "by killing itself": (
        "import signal, threading\n"
        "for kill in (lambda: os.kill(os.getpid(), 9), lambda: signal.pthread_kill(threading.get_ident(), 9)):\n"
        "    try: kill()\n    except OSError: pass\nos._exit(4)",
        "exited with status 4",
    ),
}


@pytest.mark.parametrize("end", ENDS)
def test_a_program_that_ends_itself_has_ended(sandbox, end):
    program, said = ENDS[end]
    child = started(sandbox, f"import os\n{program}")
    with pytest.raises(ChildGone):
        child.receive(time.monotonic() + HANG_S)
    assert child.close() == said


def test_a_program_may_set_its_other_limits(sandbox):
    program = (
        "import resource as r\ndef f():\n    r.setrlimit(r.RLIMIT_STACK, (1 << 26, r.getrlimit(r.RLIMIT_STACK)[1]))"
    )
    program += "\n    return r.getrlimit(r.RLIMIT_CPU)[0], r.getrlimit(r.RLIMIT_STACK)[0] >> 26"
    assert ask(sandbox, program, "f") == (1, 1)


def test_a_script_whose_sandbox_ends_has_not_ended(sandbox):
    child = started(sandbox, "import time\ntime.sleep(60)")
    for pid in {sandbox._process.pid} | processes(sandbox._process.pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    assert comes_true(lambda: sandbox._process.poll() is not None)
    with pytest.raises(SandboxError), child:
        child.receive(time.monotonic() + HANG_S)
