"""Says where a run is when it has not got on for a long time.

Whatever takes long calls `beat` with the name of its phase whenever it has got on; without a `Watchdog` that does
nothing."""

from __future__ import annotations

import os
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import Self

LOOK_SHARE = 0.1
"""Part of the limit between two looks."""
_STDERR = 2
_beats: list[tuple[float, str]] = [(0.0, "")]
"""One entry: when the last beat was, and in which phase."""


def beat(phase: str) -> None:
    """Note that a phase has got on."""
    _beats[0] = (time.monotonic(), phase)


def _tell(text: str) -> None:
    os.write(_STDERR, text.encode(errors="backslashreplace"))  # the thread that hangs may hold the lock of a stream


class Watchdog:
    """While the block runs: once for each time without a beat for `limit_s` seconds, writes the last phase and where
    every thread is. It stops nothing: what is slow may still end."""

    def __init__(self, limit_s: float, tell: Callable[[str], None] = _tell):
        self._limit_s, self._tell = limit_s, tell
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)

    def __enter__(self) -> Self:
        beat("start")
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        told = None
        while not self._over.wait(self._limit_s * LOOK_SHARE):
            when, phase = last = _beats[0]
            silent = time.monotonic() - when
            if silent >= self._limit_s and last != told:
                told = last
                self._tell(
                    f"\nNo progress for {silent:.0f} s (run.stall_s), last seen in: {phase}. Where its threads are:\n"
                    f"{stacks(without=threading.get_ident())}"
                )


def stacks(without: int | None = None) -> str:
    """Where every thread of this process is, the main thread first; without the thread of this identity."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    main = threading.main_thread().ident
    frames = sorted(sys._current_frames().items(), key=lambda entry: entry[0] != main)
    return "\n".join(
        f"thread {names.get(ident, ident)}:\n{''.join(traceback.format_stack(frame))}"
        for ident, frame in frames
        if ident != without
    )
