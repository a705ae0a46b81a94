"""A stall is told once, with its phase and where the threads are; progress is not."""

import threading
import time

from ouro_rl.core.watchdog import Watchdog, beat
from tests.references.patience import HANG_S, comes_true


def wait_for_it(event):
    event.wait(HANG_S)


def test_a_stall_is_told_once_with_its_place():
    told, event = [], threading.Event()
    thread = threading.Thread(target=wait_for_it, args=(event,), name="the one that hangs")
    thread.start()
    with Watchdog(0.2, told.append):
        for phase in ("a phase", "another phase"):
            beat(phase)
            assert comes_true(lambda phase=phase: any(f"last seen in: {phase}." in text for text in told))
            time.sleep(0.5)
    event.set()
    thread.join()
    told = [text for text in told if "last seen in: start." not in text]  # where the first beat came late
    assert len(told) == 2 and "last seen in: a phase." in told[0] and "last seen in: another phase." in told[1]
    assert "thread the one that hangs:" in told[0] and "in wait_for_it" in told[0] and "thread watchdog" not in told[0]
    assert told[0].index("thread MainThread") < told[0].index("thread the one that hangs")


def test_progress_is_no_stall():
    told = []
    with Watchdog(HANG_S, told.append):
        for _ in range(3):
            beat("a phase")
            time.sleep(0.05)
    assert told == []
