"""The price of a loop: constant, or moved by a controller until an update's loops meet a target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

SETTLED_WINDOW = 10
"""Updates whose mean reward is compared with that of as many before them."""
SETTLED_GAIN = 0.02
"""A reward that rises by no more than this from one window to the next has settled."""
STEP_TOLERANCE = 0.05
"""The setpoint takes its next step when the measured mean is within this share of it, or beyond it already."""


@dataclass(frozen=True, kw_only=True)
class ControllerState:
    """What the controller remembers from one update to the next; plain numbers, for a checkpoint."""

    integral: float
    """The part of the price that stays when the error is 0; without a target, the price itself."""
    mean: float | None = None
    """Moving mean of the measured loops. None: nothing measured yet."""
    setpoint: float | None = None
    """What is aimed at now, on the way to the target. None: the price has not been charged yet."""
    opened: int | None = None
    """Updates before the price was charged. None: not yet."""
    rewards: tuple[float, ...] = field(default=())
    """Mean rewards of the last updates, while the price waits for them to settle."""


@dataclass(frozen=True, kw_only=True)
class PriceRule:
    """A two-sided PI controller on the relative error of a moving mean: price = gain * error + integral.

    It may turn negative, which pays for loops, down to -`largest`. The integral stands still while it cannot act:
    before the price opens, while it warms up, and where it is at a bound already (no wind-up)."""

    start: float
    """Initial price, in units of reward per loop."""
    target: float | None
    """Of the measured loops. None: the price is constant."""
    rate: float
    """Integral gain: price per update, per unit of relative error."""
    gain: float
    """Proportional gain: price per unit of relative error."""
    largest: float
    """Bound of the price's absolute value."""
    window: int
    """Updates that the moving mean remembers."""
    tighten: float
    """The setpoint falls from what was measured when the price opened to the target in steps of this share; 1: at
    once."""
    after: int | Literal["settled"]
    """When the price opens: after so many updates, or once the reward has settled."""
    warmup: int
    """Updates over which the price rises from 0 once it is open."""

    def first_state(self) -> ControllerState:
        return ControllerState(integral=self.start)

    def next(self, state: ControllerState, measured: float, reward: float, step: int) -> tuple[float, ControllerState]:
        """The price of the update after `step` updates, and the next state.

        `measured`: mean loops of the update's rollouts; `reward`: their mean reward, NaN if none was scored."""
        mean = measured if state.mean is None else state.mean + (measured - state.mean) / self.window
        state = replace(state, mean=mean)
        if state.opened is None:
            state = self._wait(state, mean, reward, step)
            if state.opened is None:
                return 0.0, state
        warm = min(1.0, (step - state.opened + 1) / (self.warmup + 1))
        if self.target is None:
            return self._bounded(state.integral) * warm, state
        assert state.setpoint is not None, "set when the price opened"
        error = (mean - state.setpoint) / state.setpoint
        price = self.gain * error + state.integral
        acts = warm == 1.0 and (abs(price) < self.largest or price * error < 0)
        integral = self._bounded(state.integral + self.rate * error) if acts else state.integral
        state = replace(state, integral=integral, setpoint=self._next_setpoint(state.setpoint, error))
        return self._bounded(price) * warm, state

    def _bounded(self, price: float) -> float:
        return min(self.largest, max(-self.largest, price))

    def _wait(self, state: ControllerState, mean: float, reward: float, step: int) -> ControllerState:
        """The state with the price open, if it is time."""
        rewards = (*state.rewards, reward)[-2 * SETTLED_WINDOW :]
        if not (settled(rewards) if self.after == "settled" else step >= self.after):
            return replace(state, rewards=rewards)
        start = self.target if self.target is None else self._step_towards(mean, self.target)
        return replace(state, rewards=(), opened=step, setpoint=start)

    def _next_setpoint(self, setpoint: float, error: float) -> float:
        assert self.target is not None
        to_go = error if setpoint > self.target else -error
        return self._step_towards(setpoint, self.target) if to_go <= STEP_TOLERANCE else setpoint

    def _step_towards(self, level: float, target: float) -> float:
        """`target`, or one step from `level` towards it."""
        step = self.tighten * level
        return max(target, level - step) if level > target else min(target, level + step)


def settled(rewards: Sequence[float]) -> bool:
    """Whether the mean reward of the last window is no more than `SETTLED_GAIN` above that of the window before."""
    if len(rewards) < 2 * SETTLED_WINDOW:
        return False
    before, last = rewards[-2 * SETTLED_WINDOW : -SETTLED_WINDOW], rewards[-SETTLED_WINDOW:]
    return sum(last) - sum(before) <= SETTLED_GAIN * SETTLED_WINDOW
