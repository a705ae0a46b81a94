"""Stopping at once, wherever a program is, with the exit status that a signal has in a shell."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType, TracebackType
from typing import Any, Self

STOPPING = (signal.SIGINT, signal.SIGTERM)


class ExitOnSignal:
    """In this block SIGINT and SIGTERM leave the block with SystemExit(128 + number). A second one ends the process at
    once.

    The handler raises KeyboardInterrupt, the one exception that libraries pass on (Ray turns a SystemExit into an error
    of its own). Whatever that becomes on its way, also if cleaning up fails, the block ends as it should."""

    def __init__(self) -> None:
        self.received: int | None = None
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Self:
        self._previous = {number: signal.getsignal(number) for number in STOPPING}
        self.install()
        return self

    def install(self) -> None:
        """Set the handlers, again if a library has set its own."""
        for number in STOPPING:
            signal.signal(number, self._stop)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        if self.received is not None:
            print(f"ouro-rl: stopped by {signal.Signals(self.received).name}", file=sys.stderr)
            raise SystemExit(128 + self.received) from error

    def _stop(self, number: int, _frame: FrameType | None) -> None:
        if self.received is not None:
            os._exit(128 + number)
        self.received = number
        raise KeyboardInterrupt
