"""Rollout actors that sleep instead of computing: for measuring how work is given out. Does not import torch."""

from __future__ import annotations

import time
from collections.abc import Sequence

from ouro_rl.core.rollout import Prompt, Rollout, RolloutRequest
from ouro_rl.core.sampling_params import SamplingParams
from rollout_workers.fleet.actor import WorkerActor
from rollout_workers.packed import Part, fingerprint_of

ROW_S = 0.0008
"""Seconds per row of a pass."""


class SleepingActor(WorkerActor):
    """An actor whose worker sleeps. A prompt's first token id is the length of its answers."""

    async def build(self) -> None:
        self.worker = SleepingWorker()


class SleepingWorker:
    """Stands for `rollout_workers.worker.RolloutWorker`."""

    version: int | None = None

    def load_packed(self, parts: Sequence[Part], version: int) -> str:
        self.version = version
        return fingerprint_of({name: packed.digest() for part in parts for name, packed in part.items()})

    def start(self, requests: Sequence[RolloutRequest], params: SamplingParams) -> SleepingGeneration:
        assert self.version is not None
        return SleepingGeneration(requests, self.version)


class SleepingGeneration:
    """Stands for `rollout_workers.engine.generation.Generation`: a pass sleeps, and gives every live sample a token."""

    def __init__(self, requests: Sequence[RolloutRequest], version: int):
        self.samples = [(request, sample) for request in requests for sample in range(len(request.seeds))]
        self.rollouts: list[Rollout | None] = [None] * len(self.samples)
        self.version, self.tokens, self.finished = version, 0, 0
        self.live: dict[int, int] = {}
        """Tokens that are missing, by place."""

    def __enter__(self) -> SleepingGeneration:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    @property
    def done(self) -> bool:
        return not self.live

    def queue(self, places: Sequence[int]) -> None:
        self.live |= {place: self.samples[place][0].prompt.token_ids[0] for place in places}

    def advance(self) -> int:
        time.sleep(ROW_S * len(self.live))
        self.tokens += len(self.live)
        ended = [place for place, missing in self.live.items() if missing == 1]
        self.live = {place: missing - 1 for place, missing in self.live.items() if missing > 1}
        for place in ended:
            request, sample = self.samples[place]
            self.rollouts[place] = answer_of(request.prompt, sample, self.version)
        self.finished += len(ended)
        return len(ended)


def answer_of(prompt: Prompt, sample: int, version: int) -> Rollout:
    """An answer of the length that the prompt asks for."""
    count = prompt.token_ids[0]
    zeros = (0.0,) * count
    return Rollout(
        prompt_index=prompt.index, sample_index=sample, prompt_ids=prompt.token_ids, completion_ids=(0,) * count,
        token_logprobs=zeros, depths=(1,) * count, depth_logprobs=zeros, policy_version=version, temperature=1.0,
        finish_reason="length",
    )  # fmt: skip
