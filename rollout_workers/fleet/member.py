"""One worker as its driver sees it: its actor, what it was asked, and since when it has not answered."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any

from rollout_workers.fleet.actor import Greeting
from rollout_workers.fleet.liveness import Patience, Pulse
from rollout_workers.fleet.units import Unit


@dataclass(frozen=True, kw_only=True)
class Order:
    """A method that every worker must have been called with before it gets work, also one that was started later."""

    key: Hashable
    """Tells it from earlier orders of the same method."""
    arguments: tuple = ()
    check: Callable[[int, Any], None] | None = None
    """Called with a worker and its answer; raises if that is not what it should be."""


@dataclass(frozen=True, kw_only=True)
class Finished:
    """A unit came back."""

    worker: int
    unit: Unit
    rollouts: list
    """In the order of the unit's places."""


@dataclass(frozen=True, kw_only=True)
class Lost:
    """A worker died, or was killed because it did not answer; its units are lost."""

    worker: int
    why: str


Event = Finished | Lost


@dataclass(eq=False, kw_only=True)
class Member:
    """A worker, and its actor while it has one. References (`Any`) are Ray's."""

    index: int
    actor: Any = None
    restart_at: float = 0.0
    """If there is no actor: when the next one is started."""
    greeting: Greeting | None = None
    """Set once the actor runs."""
    step: tuple[str, Hashable, Any] | None = None
    """The order under way: method, key, reference."""
    done: dict[str, tuple[Hashable, Any]] = field(default_factory=dict)
    """By method, the last order's key and its answer."""
    units: dict[Any, Unit] = field(default_factory=dict)
    """Units in flight, by the reference of their rollouts."""
    beat: Any = None
    """The heartbeat that is not answered yet."""
    beat_at: float = 0.0
    """When the next heartbeat is due."""
    pulse: Pulse = Pulse()
    start_wait: Patience = field(default_factory=Patience)
    silence: Patience = field(default_factory=Patience)
    stall: Patience = field(default_factory=Patience)

    @property
    def is_up(self) -> bool:
        """Whether the worker is built. Until then it may be silent: importing libraries takes as long as it takes."""
        return "build" in self.done

    def references(self) -> list[Any]:
        """What it is to answer, without the heartbeat."""
        return [*self.units, *([self.step[2]] if self.step is not None else [])]

    def next_order(self, orders: dict[str, Order]) -> str | None:
        """The method that it has not been called with yet."""
        return next((method for method, order in orders.items() if not self.has(method, order)), None)

    def has(self, method: str, order: Order) -> bool:
        return method in self.done and self.done[method][0] == order.key
