"""Gives units to whoever is free until all have come back, whatever happens to the workers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from ouro_rl.core.rollout import Rollout
from rollout_workers.fleet.ledger import Ledger
from rollout_workers.fleet.member import Event, Finished
from rollout_workers.fleet.restarts import Restarts
from rollout_workers.fleet.units import Unit

logger = logging.getLogger(__name__)

POLL_S = 0.5
"""Seconds between two looks at the progress when no unit comes back."""


class Workers(Protocol):
    """What dispatching needs of `rollout_workers.fleet.crew.Crew`."""

    restarts: Restarts

    def ready(self) -> Sequence[int]: ...

    def give(self, worker: int, unit: Unit, *arguments: Any) -> None: ...

    def poll(self, seconds: float) -> Sequence[Event]: ...


def dispatch(
    workers: Workers,
    ledger: Ledger,
    arguments: Callable[[], tuple],
    *,
    on_finished: Callable[[Unit, list[Rollout]], None],
    on_set_aside: Callable[[Unit], None],
    on_poll: Callable[[], None],
) -> None:
    """Run a call to its end. What `arguments` returns then comes before the places in every call of a worker;
    `on_finished` gets every unit once, as soon as it is there. Raises what `poll` raises."""
    # Workers that get nothing before they finish something, or somebody's work waits again: with many workers, asking
    # all of them after every unit would take most of the driver's time.
    served: set[int] = set()
    while ledger.unfinished:
        for worker in workers.ready():
            if worker in served:
                continue
            while (unit := ledger.next_for(worker)) is not None:
                workers.give(worker, unit, *arguments())
            served.add(worker)
        for event in workers.poll(POLL_S):
            if isinstance(event, Finished):
                ledger.finish(event.worker, event.unit)
                served.discard(event.worker)
                on_finished(event.unit, event.rollouts)
                continue
            served.clear()
            for unit in ledger.lose(event.worker):
                workers.restarts.explained()
                on_set_aside(unit)
        on_poll()
