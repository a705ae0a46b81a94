"""Whether a worker still answers and still gets on: measured, not assumed."""

from __future__ import annotations

from dataclasses import dataclass

LARGEST_GAP_S = 2.0
"""Between two looks at most so much counts: if the driver itself was stopped or the machine slept, the workers are not
to blame."""


@dataclass(frozen=True, kw_only=True)
class Pulse:
    """What a worker answers to a heartbeat."""

    call: int | None = None
    """The call of the pool that the counts belong to."""
    tokens: int = 0
    """Completion tokens of the current call."""
    finished: int = 0
    """Finished samples of the current call."""
    steps: int = 0
    """Passes so far: it gets on while they grow."""
    busy: bool = False
    """Whether it has anything to do."""
    busy_s: float = 0.0
    """Seconds in which it had something to do, in the current call."""


class Patience:
    """Seconds for which something has been missing, as far as this process was watching."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._looked: float | None = None

    def look(self, now: float, there: bool) -> float:
        """Note at time `now` whether it was there since the last look. Returns the seconds without it."""
        gap = 0.0 if self._looked is None else now - self._looked
        self._looked = now
        self.seconds = 0.0 if there else self.seconds + min(gap, LARGEST_GAP_S)
        return self.seconds
