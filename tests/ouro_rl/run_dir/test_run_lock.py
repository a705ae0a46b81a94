"""One process at a time writes into a run folder."""

import json
import os
import signal
import socket
import subprocess
import sys

import pytest

from ouro_rl.core.errors import UserError
from ouro_rl.run_dir.run_lock import LOCK_FILE, RunLock, owner_of, refuse_live_run
from tests.references.patience import HANG_S

HOLD = """
import os, pathlib, sys, time
from ouro_rl.run_dir.run_lock import RunLock
lock = RunLock(pathlib.Path(sys.argv[1]))
lock.acquire()
if len(sys.argv) > 2 and os.fork() == 0:  # a child that outlives its parent
    os.close(1)
    time.sleep(600)
print(os.getpid(), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def owner(tmp_path):
    processes = []

    def start(*arguments):
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(tmp_path), *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            text=True, start_new_session=True,
        )  # fmt: skip
        processes.append(process)
        assert int(process.stdout.readline()) == process.pid
        return process

    yield start
    for process in processes:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=HANG_S)


def test_a_live_owner_is_named_and_its_file_stays(tmp_path, owner):
    process = owner()
    before = (tmp_path / LOCK_FILE).read_bytes()
    for ask in (RunLock(tmp_path).acquire, lambda: refuse_live_run(tmp_path)):
        with pytest.raises(UserError, match=f"process {process.pid} on {socket.gethostname()} is running there"):
            ask()
    assert owner_of(tmp_path) == "running"
    assert (tmp_path / LOCK_FILE).read_bytes() == before


def test_an_owner_that_was_killed_leaves_no_lock_even_if_a_child_lives(tmp_path, owner):
    process = owner("with a child")
    process.kill()
    process.wait(HANG_S)
    assert json.loads((tmp_path / LOCK_FILE).read_text())["pid"] == process.pid
    assert owner_of(tmp_path) == "killed" and (tmp_path / LOCK_FILE).exists()
    refuse_live_run(tmp_path)
    lock = RunLock(tmp_path)
    lock.acquire()
    assert json.loads((tmp_path / LOCK_FILE).read_text())["pid"] == os.getpid()
    lock.release()


def test_after_release_it_can_be_taken_again(tmp_path):
    lock = RunLock(tmp_path)
    for _ in range(2):
        lock.acquire()
        with pytest.raises(UserError, match=str(os.getpid())):
            RunLock(tmp_path).acquire()
        RunLock(tmp_path).release()  # is not the owner
        assert (tmp_path / LOCK_FILE).exists()
        lock.release()
        lock.release()
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("ask", [owner_of, refuse_live_run])
def test_asking_neither_takes_a_lock_nor_removes_its_file(ask, tmp_path, monkeypatch):
    (tmp_path / LOCK_FILE).write_text("{}")
    monkeypatch.setattr("ouro_rl.run_dir.run_lock.fcntl.lockf", lambda *_: pytest.fail("it takes the lock"))
    assert ask(tmp_path) == ("killed" if ask is owner_of else None)
    assert (tmp_path / LOCK_FILE).exists()


def test_who_asks_for_the_owner_takes_nothing_from_it(tmp_path):
    assert owner_of(tmp_path) == owner_of(tmp_path / "none") == "none"
    lock = RunLock(tmp_path)
    lock.acquire()
    (tmp_path / "link").symlink_to(tmp_path)
    assert owner_of(tmp_path) == owner_of(tmp_path / "link") == "running"
    ask = (
        "import pathlib, sys; from ouro_rl.run_dir.run_lock import owner_of; print(owner_of(pathlib.Path(sys.argv[1])))"
    )
    for _ in range(2):  # a file that is opened and closed would end the lock
        other = subprocess.run([sys.executable, "-c", ask, str(tmp_path)], capture_output=True, text=True, check=True)
        assert other.stdout.strip() == "running"
    lock.release()
    assert owner_of(tmp_path) == "none"
