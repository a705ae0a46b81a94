"""A call of a pool: its rollouts as they come back, and its progress."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from ouro_rl.core.errors import RunError
from ouro_rl.core.rollout import Rollout, RolloutRequest
from ouro_rl.core.sampling_params import SamplingParams
from ouro_rl.core.watchdog import beat
from rollout_workers.engine.stats import OnRollout, Progress
from rollout_workers.fleet.liveness import Pulse
from rollout_workers.fleet.units import Unit


class Call:
    """The rollouts of a call as they come back."""

    def __init__(
        self,
        requests: Sequence[RolloutRequest],
        params: SamplingParams,
        version: int,
        on_rollout: OnRollout | None,
    ):
        self.requests, self.params, self.version, self.on_rollout = requests, params, version, on_rollout
        self.firsts = list(itertools.accumulate((len(request.seeds) for request in requests), initial=0))
        self.rollouts: list[Rollout | None] = [None] * self.firsts[-1]

    def take(self, unit: Unit, rollouts: Sequence[Rollout]) -> None:
        for place, rollout in zip(unit.places, rollouts, strict=True):
            self._put(place, rollout)

    def fill_in(self, index: int) -> None:
        """For a request whose prompt was set aside in an earlier call."""
        for place in range(self.firsts[index], self.firsts[index + 1]):
            self._put(place, self.lost(index, place))

    def lost(self, index: int, place: int) -> Rollout:
        """What stands for a sample whose prompt is set aside: no tokens."""
        return Rollout(
            prompt_index=self.requests[index].prompt.index,
            sample_index=place - self.firsts[index],
            prompt_ids=self.requests[index].prompt.token_ids,
            completion_ids=(),
            token_logprobs=(),
            depths=(),
            depth_logprobs=(),
            policy_version=self.version,
            temperature=self.params.temperature,
            filters=self.params.filters,
            finish_reason="lost",
            depth_policy=self.params.depth_policy,
        )

    def result(self) -> list[Rollout]:
        """Raises RunError if every prompt was set aside."""
        found = [rollout for rollout in self.rollouts if rollout is not None]
        assert len(found) == len(self.rollouts), "every unit came back or was set aside"
        if found and all(rollout.finish_reason == "lost" for rollout in found):
            raise RunError("rollout workers die with every prompt: not the prompts, but the workers are at fault")
        return found

    def _put(self, place: int, rollout: Rollout) -> None:
        assert self.rollouts[place] is None, "no unit comes back twice"
        self.rollouts[place] = rollout
        if self.on_rollout is not None:
            self.on_rollout(place, rollout)


class CallProgress:
    """(completion tokens, finished samples) of a call. They never go down: after a worker was lost they stay where they
    are until what came back, or what the others report, is more."""

    def __init__(self, call: int, tell: Progress | None):
        self._call, self._tell = call, tell
        self._back = self._shown = (0, 0)

    def add(self, rollouts: Sequence[Rollout]) -> None:
        """Count what came back."""
        tokens, finished = self._back
        self._back = (tokens + sum(len(rollout.completion_ids) for rollout in rollouts), finished + len(rollouts))

    def show(self, pulses: Sequence[Pulse]) -> None:
        live = [pulse for pulse in pulses if pulse.call == self._call]
        reported = (sum(pulse.tokens for pulse in live), sum(pulse.finished for pulse in live))
        now = (max(self._shown[0], self._back[0], reported[0]), max(self._shown[1], self._back[1], reported[1]))
        if now != self._shown:
            self._shown = now
            beat("rollouts")
            if self._tell is not None:
                self._tell(*now)
