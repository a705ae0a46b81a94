"""The workers' Ray actors: started, watched, replaced."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from ouro_rl.core.errors import OuroRLError, RunError, first_line
from rollout_workers.fleet.liveness import LARGEST_GAP_S, Pulse
from rollout_workers.fleet.member import Event, Finished, Lost, Member, Order
from rollout_workers.fleet.restarts import DEATHS_IN_A_ROW, Restarts
from rollout_workers.fleet.settings import FleetSettings
from rollout_workers.fleet.units import Unit

logger = logging.getLogger(__name__)

START_SECONDS = 300.0
"""Timeout for actors to start: in a cluster without enough resources they would wait forever."""
BEAT_S = 1.0
"""Seconds between heartbeats."""
STACK_S = 5.0
"""How long a worker that makes no progress has to say where it is."""
LOG_LINES = 5
"""The last lines of a dead worker's log that are shown."""


class Crew:
    """`count` actors, which `start(index)` makes. They start in the background.

    `orders` are what every worker must have done before it gets work; a worker that is replaced does them again. `poll`
    does everything: it must be called for as long as anything is expected of the workers."""

    def __init__(self, start: Callable[[int], Any], count: int, settings: FleetSettings):
        self._start, self._settings = start, settings
        self.restarts = Restarts(count)
        self.orders = {"build": Order(key=None)}
        self.members = [Member(index=index) for index in range(count)]
        self._was_complete = False
        """Whether all workers have run at the same time."""
        self._last_loss = ""
        for member in self.members:
            self._launch(member)

    def __len__(self) -> int:
        return len(self.members)

    def ready(self) -> list[int]:
        """The workers that can be given units."""
        return [
            member.index
            for member in self.members
            if member.greeting is not None and member.step is None and member.next_order(self.orders) is None
        ]

    def give(self, worker: int, unit: Unit, *arguments: Any) -> None:
        """Let a worker that is ready sample a unit; `arguments` come before the places."""
        member = self.members[worker]
        member.units[member.actor.sample.remote(*arguments, unit.places)] = unit

    def order(self, method: str, order: Order) -> None:
        """Have every worker called with this from now on."""
        self.orders[method] = order

    def ask(self, method: str) -> list[Any]:
        """The answers of the workers to a question, in their order, without those that are being replaced."""
        order = Order(key=time.monotonic_ns())
        self.order(method, order)
        try:
            self.wait_until(self.settled)
            return [member.done[method][1] for member in self.members if member.has(method, order)]
        finally:
            del self.orders[method]

    def wait_until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self.poll(BEAT_S)

    def settled(self) -> bool:
        """Whether all workers that run are ready, and one is. A worker that is being replaced is not waited for: it
        does what it was ordered before it gets work."""
        awaited = [member.index for member in self.members if member.is_up or not self._was_complete]
        ready = self.ready()
        return bool(ready) and all(worker in ready for worker in awaited)

    def forget_units(self) -> None:
        """Ignore what was given out and has not come back."""
        for member in self.members:
            member.units.clear()

    def poll(self, seconds: float) -> list[Event]:
        """Wait up to `seconds` for something to happen, and see to the workers. Raises RunError if there is no point in
        going on, and what a worker's call raised."""
        if self.restarts.hopeless:
            raise RunError(f"rollout workers died {DEATHS_IN_A_ROW} times in a row, the last one so: {self._last_loss}")
        for member in self.members:
            self._tend(member)
        expected = [reference for member in self.members for reference in member.references()]
        if expected:
            ray.wait(expected, timeout=min(seconds, BEAT_S))
        else:
            time.sleep(min(seconds, BEAT_S))
        found = [event for member in self.members if member.actor is not None for event in self._look(member)]
        self._was_complete = self._was_complete or all(member.is_up for member in self.members)
        return found

    def close(self) -> None:
        for member in self.members:
            if member.actor is not None:
                self._kill(member)

    # -- starting ------------------------------------------------------------------------------------------------------

    def _launch(self, member: Member) -> None:
        actor = self._start(member.index)
        index = member.index
        self.members[index] = member = Member(index=index, actor=actor)
        member.step = ("greet", None, actor.greet.remote())

    def _tend(self, member: Member) -> None:
        """Start a worker whose pause is over; give it its next order and its heartbeat."""
        now = time.monotonic()
        if member.actor is None:
            if now >= member.restart_at:
                self._launch(member)
            return
        if not member.is_up:
            self._check_start(member, now)
        if member.greeting is None:
            return
        method = member.next_order(self.orders)
        if member.step is None and method is not None:
            order = self.orders[method]
            reference = getattr(member.actor, method).remote(*order.arguments)
            member.step = (method, order.key, reference)
        if member.is_up and member.beat is None and now >= member.beat_at:
            member.beat, member.beat_at = member.actor.pulse.remote(), now + BEAT_S

    def _check_start(self, member: Member, now: float) -> None:
        """Raises RunError if Ray cannot place the first workers; later ones are waited for while others work."""
        before = member.start_wait.seconds
        waited = member.start_wait.look(now, there=False)
        if not before < START_SECONDS <= waited:
            return
        text = (
            f"Ray could not start {self._settings.describe(len(self))} within {START_SECONDS:g} s; "
            f"it has {ray.cluster_resources()}"
        )
        if not self._was_complete:
            raise RunError(f"{text}: lower rollout.workers")
        logger.warning("%s; going on without worker %d until there is room", text, member.index)

    # -- watching ------------------------------------------------------------------------------------------------------

    def _look(self, member: Member) -> list[Event]:
        """Take what a worker has answered; replace it if it died, hangs, or makes no progress."""
        found: list[Event] = []
        answered = False
        references = [*member.references(), *([member.beat] if member.beat is not None else [])]
        ready = ray.wait(references, num_returns=len(references), timeout=0)[0] if references else []
        for reference in ready:
            answered = True
            try:
                self._take(member, reference, found)
            except RayTaskError as error:
                raise _cause(member, error) from error
            except RayError as error:
                return [*found, self._lose(member, first_line(error))]
        if member.is_up and (why := self._failure(member, answered)):
            return [*found, self._lose(member, why)]
        return found

    def _take(self, member: Member, reference: Any, found: list[Event]) -> None:
        """Take one answer. Raises what the call raised, unless nobody expects its answer any more."""
        if reference in member.units:
            unit = member.units.pop(reference)
            found.append(Finished(worker=member.index, unit=unit, rollouts=ray.get(reference)))
            self.restarts.finished(member.index)
        elif member.step is not None and reference == member.step[2]:
            self._take_step(member)
        else:
            member.beat = None
            self._note_pulse(member, ray.get(reference))

    def _take_step(self, member: Member) -> None:
        assert member.step is not None
        (method, key, reference), member.step = member.step, None
        if method == "greet":
            member.greeting = ray.get(reference)
            return
        order = self.orders.get(method)
        try:
            answer = ray.get(reference)
        except RayTaskError:
            if order is None or order.key != key:
                return  # of an earlier call, which has failed
            raise
        if order is not None and order.key == key and order.check is not None:
            order.check(member.index, answer)
        member.done[method] = (key, answer)

    def _note_pulse(self, member: Member, pulse: Pulse) -> None:
        member.stall.look(time.monotonic(), there=not pulse.busy or pulse.steps != member.pulse.steps)
        member.pulse = pulse

    def _failure(self, member: Member, answered: bool) -> str | None:
        """Why a worker must be replaced; None if it need not."""
        silent = member.silence.look(time.monotonic(), there=answered or member.beat is None)
        if silent >= self._settings.heartbeat_s:
            return f"it has not answered for {silent:.0f} s (ray.heartbeat_s is {self._settings.heartbeat_s:g})"
        if member.stall.seconds >= self._settings.stall_s:
            stuck = f"it has made no progress for {member.stall.seconds:.0f} s (ray.stall_s {self._settings.stall_s:g})"
            return f"{stuck}; its threads:\n{self._stacks(member)}"
        return None

    def _stacks(self, member: Member) -> str:
        try:
            return ray.get(member.actor.stacks.remote(), timeout=STACK_S)
        except RayError as error:
            return f"(not known: {first_line(error)})"

    def _lose(self, member: Member, why: str) -> Lost:
        self._kill(member)
        pause = self.restarts.pause(member.index)
        when = f" in {pause:g} s" if pause else ""
        logger.warning(
            "rollout worker %d died and is started again%s: %s%s", member.index, when, why, _last_words(member)
        )
        self._last_loss = why
        self.members[member.index] = Member(index=member.index, restart_at=time.monotonic() + pause)
        return Lost(worker=member.index, why=why)

    def _kill(self, member: Member) -> None:
        """End the actor, also one that is stopped: Ray asks it to end, and a stopped process does not answer."""
        ray.kill(member.actor)
        if member.greeting is not None and member.greeting.process.is_here and member.greeting.process.is_alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(member.greeting.process.pid, signal.SIGKILL)


def _last_words(member: Member) -> str:
    """The end of a dead worker's log, where this process can read it."""
    if member.greeting is None or not member.greeting.process.is_here or not member.greeting.log:
        return ""
    log = Path(member.greeting.log)
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()] if log.is_file() else []
    lines = [line for line in lines if not line.startswith(":")]  # marks of Ray's own
    return "".join(f"\n  {line}" for line in lines[-LOG_LINES:])


def _cause(member: Member, error: RayTaskError) -> OuroRLError:
    """What went wrong inside a worker."""
    if isinstance(error.cause, OuroRLError):
        return error.cause
    return RunError(f"rollout worker {member.index} failed: {error.cause!r}")


assert BEAT_S <= LARGEST_GAP_S, "else heartbeats that are waited for would not count in full"
