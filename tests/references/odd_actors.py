"""Actors with faults, for pools without models: the tokens of a prompt say what its answers do to their worker."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

from ouro_rl.bench.sleeping_actor import SleepingActor, SleepingGeneration, SleepingWorker
from ouro_rl.core.rollout import RolloutRequest
from ouro_rl.core.sampling_params import SamplingParams
from rollout_workers.packed import Part
from tests.references.patience import HANG_S

DEADLY, STUCK = 1001, 1002
"""Lengths of answers that end the process, and that never come."""


DAMAGED = 99
"""Version of weights that do not arrive as they were sent."""


class OddActor(SleepingActor):
    async def build(self) -> None:
        self.worker = OddWorker()


class OddWorker(SleepingWorker):
    endless: Path | None = None
    """If set, the next weights never finish loading, which begins with this file."""

    def load_packed(self, parts: Sequence[Part], version: int) -> str:
        if self.endless is not None:
            self.endless.touch()
            _never(HANG_S)
        fingerprint = super().load_packed(parts, version)
        return "damaged" if version == DAMAGED else fingerprint

    def start(self, requests: Sequence[RolloutRequest], params: SamplingParams) -> SleepingGeneration:
        assert self.version is not None
        return OddGeneration(requests, self.version)


class OddGeneration(SleepingGeneration):
    def advance(self) -> int:
        lengths = set(self.live.values())
        if DEADLY in lengths:
            time.sleep(0.2)  # as one that runs out of memory, after a while
            os._exit(7)
        if STUCK in lengths:
            _never(HANG_S)
        return super().advance()


def _never(seconds: float) -> None:
    time.sleep(seconds)
