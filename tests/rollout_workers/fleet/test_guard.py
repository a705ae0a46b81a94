"""What a driver's guard ends: whoever writes logs of its session, and nobody else."""

import os
import signal
import subprocess
import sys
import time

import pytest

from ouro_rl.core.process_id import own_process
from rollout_workers.fleet import guard as guard_module
from rollout_workers.fleet.guard import GRACE_S, Guard, clean_up, processes_of
from tests.references.patience import HANG_S, comes_true
from tests.references.process_table import alive

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Ray's servers are found in /proc")
SLEEP = [sys.executable, "-c", f"import time; time.sleep({HANG_S})"]


@pytest.fixture
def session(tmp_path):
    (tmp_path / "session" / "logs").mkdir(parents=True)
    (tmp_path / "session" / "sockets").mkdir()
    return tmp_path / "session"


@pytest.fixture
def started():
    processes = []
    yield processes
    for process in processes:
        process.kill()
        process.wait()


def test_it_ends_those_who_write_logs_of_the_session(session, started):
    log = session / "logs" / "raylet.err"
    with log.open("w") as file:
        started.append(subprocess.Popen(SLEEP, stderr=file))
    with log.open() as file:
        started.append(subprocess.Popen(SLEEP, stdin=file))  # like `tail -f`
    with (session.parent / "logs").open("w") as file:
        started.append(subprocess.Popen(SLEEP, stderr=file))
    assert comes_true(lambda: processes_of(str(session)) == {started[0].pid})
    clean_up(str(session), spared={started[0].pid}, grace_s=0)
    assert started[0].poll() is None
    clean_up(str(session), spared=(), grace_s=0)
    assert started[0].wait(HANG_S) == -signal.SIGKILL
    assert [process.poll() for process in started[1:]] == [None, None]
    assert not (session / "sockets").exists() and log.exists(), "logs stay"


def test_a_process_that_ends_by_itself_is_not_killed(session, started):
    with (session / "logs" / "gcs_server.err").open("w") as file:
        started.append(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(0.5)"], stderr=file))
    clean_up(str(session), spared=(), grace_s=HANG_S)
    assert started[0].wait(HANG_S) == 0


def test_the_guard_waits_for_its_driver(session, started):
    """Also if that dies by SIGKILL and is not waited for, as a child of a shell that is busy."""
    driver = subprocess.Popen(
        [
            sys.executable, "-c", "import time; from rollout_workers.fleet.guard import Guard; "
            f"Guard({str(session)!r}); print(1, flush=True); time.sleep({HANG_S})",
        ],
        stdout=subprocess.PIPE,
    )  # fmt: skip
    assert driver.stdout is not None and driver.stdout.read(1) == b"1"
    with (session / "logs" / "agent.log").open("w") as file:
        started.append(subprocess.Popen(SLEEP, stderr=file))
    time.sleep(1)
    assert started[0].poll() is None
    driver.kill()  # and stays a zombie until the end of this test
    assert started[0].wait(HANG_S) == -signal.SIGKILL
    driver.wait()


@pytest.mark.parametrize("closed", [True, False])
def test_ray_may_end_by_itself_only_if_its_driver_has_gone(closed, monkeypatch):
    """A run that ends in order does not wait for Ray's agents."""
    found = []
    monkeypatch.setattr(guard_module, "clean_up", lambda session, spared, grace_s: found.append(grace_s))
    before, own = signal.getsignal(signal.SIGTERM), own_process()
    try:
        if closed:
            monkeypatch.setattr(guard_module.time, "sleep", lambda _: os.kill(os.getpid(), signal.SIGTERM))
        guard_module.main("session", str(own.pid), own.started if closed else "0", own.place)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert found == [0 if closed else GRACE_S]


def test_closing_it_cleans_up_at_once(session, started):
    with (session / "logs" / "agent.log").open("w") as file:
        started.append(subprocess.Popen(SLEEP, stderr=file))
    guard = Guard(str(session))
    guard.close()
    assert started[0].wait(HANG_S) == -signal.SIGKILL
    assert own_process().is_alive and alive(os.getpid())
