"""A signal outside of updates: the exit status of the shell, whatever is interrupted, and at once the second time."""

import signal
import subprocess
import sys

import pytest

from tests.references.patience import HANG_S

PROGRAM = """
import signal, sys, time
from ouro_rl.core.exit_on_signal import ExitOnSignal

def clean_up():
    {clean_up}

with ExitOnSignal() as stop:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # as Ray does
    stop.install()
    try:
        while True:
            try:
                print(1, flush=True)  # here: a signal that follows it at once is caught below
                time.sleep({hang})
            except KeyboardInterrupt:
                {interrupted}
    finally:
        print(2, flush=True)
        clean_up()
print("went on")
"""


def start(*, clean_up="pass", interrupted="raise"):
    program = PROGRAM.format(clean_up=clean_up, interrupted=interrupted, hang=HANG_S)
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "1\n"
    return process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    "what", [{}, {"clean_up": "raise OSError('broken')"}, {"interrupted": "raise ValueError('turned into another')"}]
)
def test_one_signal(number, what):
    process = start(**what)
    process.send_signal(number)
    output, errors = process.communicate(timeout=HANG_S)
    assert process.returncode == 128 + number
    assert "went on" not in output and f"stopped by {number.name}" in errors


def test_a_second_signal_does_not_wait_for_the_cleaning_up():
    process = start(clean_up=f"time.sleep({HANG_S})")
    process.send_signal(signal.SIGTERM)
    assert process.stdout is not None and process.stdout.readline() == "2\n"
    process.send_signal(signal.SIGTERM)
    assert process.wait(HANG_S / 2) == 128 + signal.SIGTERM
    process.communicate()


def test_without_a_signal_nothing_changes():
    program = (
        "import signal; from ouro_rl.core.exit_on_signal import ExitOnSignal; before = signal.getsignal(15)\n"
        "with ExitOnSignal(): pass\n"
        "assert signal.getsignal(15) == before; raise ValueError('its own')"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "its own" in done.stderr
