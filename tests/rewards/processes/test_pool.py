"""Worker processes: hangs, deaths, memory limits, threads, asyncio, and cleanup."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from ouro_rl.core.errors import RunError, UserError
from rewards.math_grader.reward import MathReward
from rewards.processes.pool import ProcessPool
from tests.references.patience import HANG_S, comes_true
from tests.references.places import REPOSITORY

DATA = REPOSITORY.parent / "shared" / "data"

DEADLINE_S = 3.0
"""What hangs takes so long, and what does not must not, on a busy machine either."""
HANDLER = """
import json, os, subprocess, sys, time

def make(bad=False):
    if bad:
        raise ValueError("made to fail")
    return handle

def handle(item):
    if item == "hang":
        while True:
            pass
    if item == "die":
        os._exit(3)
    if item == "segfault":
        os.kill(os.getpid(), 11)
    if item == "memory":
        return len(bytearray(4 * 2**30))
    if item == "exit":
        sys.exit("no")
    if item == "print":
        print("noise " * 10000); sys.stdout.flush()
    if item == "child":
        return subprocess.Popen(["sleep", "1000"]).pid
    if item == "daemon":
        print(subprocess.Popen(["sleep", "1000"]).pid, file=open("pid", "w"), flush=True); time.sleep(60)
    if item == "fork" and os.fork():
        os.wait()  # for the forked copy
        return "parent"
    if item == "stale" and os.fork() == 0:  # forges a late answer to this item
        frame = sys._getframe()
        while "nonce" not in frame.f_locals:
            frame = frame.f_back
        while not os.path.exists("asked_again"):
            time.sleep(0.01)
        body = json.dumps({"ok": "stale", "nonce": frame.f_locals["nonce"].hex()}).encode()
        os.write(frame.f_locals["write_fd"], len(body).to_bytes(8, "big") + body)
        os._exit(0)
    if item == "slow":  # answers after the forked copy
        open("asked_again", "x").close()
        os.wait()
    if item == "detached":  # as a daemon: a session of its own, and its parent ends
        code = "import subprocess as s; print(s.Popen(['sleep', '1000'], stdout=2, start_new_session=True).pid)"
        return int(subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=True).stdout)
    if item == "own memory":
        return len(bytearray(2 * 2**30))
    if item == "much":
        for _ in range(300):
            print("x" * 99999)
        sys.stdout.flush()
    if item == "pid":
        return os.getpid()
    return ["done", item]
"""


@pytest.fixture
def make_pool(tmp_path, monkeypatch):
    (tmp_path / "pool_handler.py").write_text(HANDLER)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    pools = []

    def make(**options):
        options = {"workers": 1, "timeout_s": DEADLINE_S, "memory_mb": 1024, **options}
        pools.append(ProcessPool("pool_handler:make", options.pop("arguments", {}), **options))
        return pools[-1]

    yield make
    for pool in pools:
        pool.close()


def gone(pid: int) -> bool:
    def dead() -> bool:
        try:
            # A zombie is not reaped by its new parent yet; it can be once its last thread has ended.
            zombie = Path(f"/proc/{pid}/stat").read_text().split(") ")[1][0] == "Z"
            return zombie and len(os.listdir(f"/proc/{pid}/task")) == 1
        except (FileNotFoundError, ProcessLookupError):
            return True

    return comes_true(dead)


def test_only_the_failing_item_is_lost(make_pool):
    replies = make_pool().run([1, "hang", 2, "die", 3, "segfault", 4, "memory", 5, "exit", 6, "print", 7])
    statuses = [reply.status for reply in replies]
    assert statuses == ["ok", "timeout", "ok", "crash", "ok", "crash", "ok", "crash", "ok", "crash", "ok", "ok", "ok"]
    assert replies[0].value == ["done", 1]
    assert [replies[i].detail for i in (3, 5, 7)] == [
        "the worker exited with status 3",
        "the worker was killed by SIGSEGV",
        "out of memory",
    ]
    assert "SystemExit: no" in replies[9].detail
    assert 1000 * DEADLINE_S <= replies[1].ms < 1000 * HANG_S


def test_a_kill_reaches_the_workers_own_children(make_pool, tmp_path):
    pool = make_pool()
    assert pool.run(["daemon"])[0].status == "timeout"
    assert gone(int((tmp_path / "pid").read_text()))
    child = pool.run(["child"])[0].value
    pool.close()
    assert gone(child)


def test_items_that_cannot_be_sent_and_workers_that_cannot_start(make_pool):
    assert "cannot be sent" in make_pool().run([threading.Lock()])[0].detail
    with pytest.raises(UserError, match="made to fail"):
        make_pool(arguments={"bad": True}).run([1, 2, 3])
    with pytest.raises(UserError, match="workers"):
        make_pool(workers=0)
    closed = make_pool()
    closed.close()
    with pytest.raises(RunError, match="closed"):
        closed.run([1])


def test_several_threads_and_asyncio_at_once(make_pool):
    pool = make_pool(workers=2)
    results = {}
    threads = [
        threading.Thread(target=lambda n=n: results.update({n: pool.run([n, "hang" if n == 0 else "x"])}))
        for n in range(4)
    ]
    for thread in threads:
        thread.start()

    async def from_asyncio():
        return await asyncio.gather(*[asyncio.wrap_future(pool.submit(i)) for i in range(5)])

    assert [reply.value for reply in asyncio.run(from_asyncio())] == [["done", i] for i in range(5)]
    for thread in threads:
        thread.join()
    assert [results[n][0].value for n in range(4)] == [["done", n] for n in range(4)]
    assert [results[n][1].status for n in range(4)] == ["timeout", "ok", "ok", "ok"]


def test_a_reward_that_forks_does_not_answer_for_other_items(make_pool):
    replies = make_pool().run(["fork", 1, 2, "stale", "slow", 3])
    values = [reply.value for reply in replies]
    assert values[:4] == ["parent", ["done", 1], ["done", 2], ["done", "stale"]]
    assert (replies[4].status, values[5]) == ("crash", ["done", 3])  # never the value of another item


def test_close_ends_a_running_item(make_pool, tmp_path):
    pool = make_pool(timeout_s=HANG_S)
    future = pool.submit("daemon")
    assert comes_true((tmp_path / "pid").exists)
    pool.close()
    assert future.result().status == "crash"  # not `ok` or `timeout`: close() did not wait for it


@pytest.mark.parametrize("end", ["close", "crash", "timeout"])
def test_daemons_of_a_reward_end_with_it(make_pool, end):
    """Not in its process group, and no longer its children."""
    pool = make_pool(timeout_s=HANG_S if end == "close" else 5.0)
    daemon = pool.run(["detached"])[0].value
    assert Path(f"/proc/{daemon}").exists()
    if end == "close":
        pool.close()
    else:
        assert pool.run(["die" if end == "crash" else "hang"])[0].status == end
    assert gone(daemon)


def test_output_is_passed_on_up_to_a_limit(make_pool, monkeypatch, capfd):
    monkeypatch.setattr("rewards.processes.pool.LOG_LIMIT", 1000)
    pool = make_pool(timeout_s=HANG_S)
    assert pool.run(["much"])[0].status == "ok"
    pool.close()
    errors = capfd.readouterr().err
    assert errors.count("x") == 1000 and errors.count("printed more than 1,000 bytes: the rest is left out") == 1
    pool = make_pool(timeout_s=HANG_S)
    pool.run(["print"])
    pool.close()
    assert capfd.readouterr().err.startswith("noise noise")


def test_memory_of_its_own(make_pool):
    """Unlike address space, it leaves out what libraries map."""
    pool = make_pool(own_memory=True, timeout_s=HANG_S)
    assert [reply.detail for reply in pool.run(["own memory", 1])] == ["out of memory", ""]
    roomy = make_pool(own_memory=True, memory_mb=4096, timeout_s=HANG_S)
    assert roomy.run(["own memory"])[0].value == 2 * 2**30


@pytest.mark.parametrize("who", ["keeper", "child"])
def test_a_worker_or_its_keeper_that_is_killed_while_idle_costs_nothing(make_pool, who):
    pool = make_pool(timeout_s=HANG_S)
    child = pool.run(["pid"])[0].value
    keeper = int(Path(f"/proc/{child}/stat").read_text().rpartition(") ")[2].split()[1])
    os.kill({"keeper": keeper, "child": child}[who], signal.SIGKILL)
    assert gone(child) and pool.run([1])[0].status == "ok"


def test_a_worker_that_is_killed_loses_only_its_item(make_pool, tmp_path):
    pool = make_pool(timeout_s=HANG_S)
    child, item = pool.run(["pid"])[0].value, pool.submit("daemon")
    assert comes_true((tmp_path / "pid").exists)
    os.kill(child, signal.SIGKILL)
    assert item.result().detail == "the worker was killed by SIGKILL"
    assert pool.run([1])[0].value == ["done", 1]


@pytest.mark.parametrize("busy", [False, True])
def test_workers_end_with_a_parent_that_was_killed(tmp_path, busy):
    (tmp_path / "pool_handler.py").write_text(HANDLER)
    code = f"""
import sys, time; sys.path[:0] = [{str(REPOSITORY)!r}, {str(tmp_path)!r}]
from rewards.processes.pool import ProcessPool
pool = ProcessPool("pool_handler:make", {{}}, workers=1, timeout_s={HANG_S})
print(pool.run(["pid"])[0].value, flush=True)
if {busy}: pool.submit("hang")
time.sleep({HANG_S})
"""
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    worker = int(parent.stdout.readline())
    time.sleep(0.3)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    assert gone(worker)


def test_parent_exits_cleanly_without_close_from_any_directory(tmp_path):
    code = f"""
import sys; sys.path.insert(0, {str(REPOSITORY)!r})
from rewards.math_grader.reward import MathReward
math = MathReward()
print(math(["\\\\boxed{{x+1}}"], answer=["1+x"]))
assert not {{"torch", "ray", "transformers", "sympy"}} & set(sys.modules)
"""
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=HANG_S
    )
    assert (run.returncode, run.stdout, run.stderr) == (0, "[1.0]\n", "")


def test_math_reward_starts_no_process_if_strings_decide():
    math = MathReward()
    verdicts = math.verdicts(["\\boxed{42}", "\\boxed{41}", "?"], {"answer": [42, "42", "42"]})
    assert [verdict.status for verdict in verdicts] == ["correct", "wrong", "no_answer"]
    assert not math._pool._all
    with pytest.raises(UserError, match="`answer`"):
        math(["\\boxed{42}"], question=["?"])


def hang_inputs() -> tuple[list[str], dict[str, list[str]]]:
    path = DATA / "math_hang_inputs.jsonl"
    if not path.is_file():
        pytest.skip(f"reference data {path.name} is not next to the repository")
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [line["completion"] for line in lines], {"answer": [line["gold"] for line in lines]}


@pytest.mark.parametrize("how", ["plain", "thread", "asyncio"])
def test_hang_inputs_are_answered_within_their_deadline(how):
    completions, columns = hang_inputs()
    math = MathReward(timeout_s=1.0)
    math(["\\boxed{x+1}"], answer=["1+x"])  # start a worker
    slowest = 0.0
    for completion, gold in zip(completions, columns["answer"], strict=True):

        def call(completion=completion, gold=gold):
            return math.verdicts([completion], {"answer": [gold]})

        started = time.monotonic()
        if how == "plain":
            [verdict] = call()
        elif how == "thread":
            box = []
            thread = threading.Thread(target=lambda call=call, box=box: box.extend(call()))
            thread.start()
            thread.join()
            [verdict] = box
        else:

            async def in_loop(call=call):
                return call()

            [verdict] = asyncio.run(in_loop())
        slowest = max(slowest, time.monotonic() - started)
        assert verdict.value != 1.0 or f"\\boxed{{{gold}}}" in completion  # one gold is as large as its answer
    math.close()
    print(f"\nhang inputs ({how}): slowest {slowest:.2f} s")
    assert slowest < HANG_S
