"""Timed calls, driven pass by pass so that several can be interleaved.

Machines can change their speed by the second. So calls that are compared run together: the one with the smallest
fraction of its tokens runs the next pass (`keep_pace`), and a slow second slows all of them. Each pass is timed by
itself.

A call of the engine is timed as a whole and over its *decode window*, which runs from the end of the last prefill pass
to the end of the call. The window has no prefill on either side of a comparison, and nothing is subtracted. Tokens/s
while decoding are loops/s in the window divided by the trace's mean depth: a token that is half finished at the start
of the window counts for its remaining loops. The window is cut into `SLICES` slices with equal numbers of tokens. The
ratio of two calls is taken slice by slice, where both do the same work at the same length, and reported with its
minimum and maximum.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TypeVar

import torch
from transformers import GenerationConfig
from transformers.generation.streamers import BaseStreamer

from ouro_rl.core.errors import RunError
from ouro_rl.core.rollout import Rollout, RolloutRequest
from ouro_rl.core.sampling_params import ExitRule, SamplingParams
from ouro_rl.model.modeling_ouro import OuroForCausalLM
from rollout_workers.engine.engine import RolloutEngine
from rollout_workers.engine.stats import EngineStats

T = TypeVar("T")
Say = Callable[[str], None]
"""Reports progress, one line at a time."""
BY_GATE = ExitRule()
"""Depths are sampled from the gate."""
WARM_UP_TOKENS = 4
SLICES = 8


@dataclass(frozen=True, kw_only=True)
class Look:
    """The counters after a pass, counted from the start of the call."""

    seconds: float
    tokens: int
    loops: int
    """Loops run for completion tokens."""
    prompt_loops: int
    passes: int


@dataclass(frozen=True, kw_only=True)
class Slice:
    """A part of a decode window."""

    seconds: float
    loops: int
    passes: int
    shares: tuple[float, float]
    """Start and end, as fractions of the call's tokens."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One call of the engine."""

    looks: Sequence[Look]
    """The counters after each pass."""
    peak_bytes: int
    rollouts: Sequence[Rollout]

    @property
    def last(self) -> Look:
        return self.looks[-1]

    @property
    def window(self) -> Sequence[Look]:
        """The looks from the one at which all prompts are computed; raises RunError if decoding took less than two
        passes."""
        found = [look for look in self.looks if look.prompt_loops == self.last.prompt_loops]
        if len(found) < 3:
            raise RunError(f"{self.last.passes} passes are too few to time: the sizes of this run are too small")
        return found

    @property
    def window_seconds(self) -> float:
        return self.last.seconds - self.window[0].seconds

    @property
    def window_loops(self) -> int:
        return self.last.loops - self.window[0].loops

    @property
    def window_passes(self) -> int:
        return self.last.passes - self.window[0].passes

    @property
    def slices(self) -> list[Slice]:
        """The window cut at equal fractions of the call's tokens; a fraction reached during prefill is left out."""
        edges = [(0.0, self.window[0])]
        for number in range(1, SLICES + 1):
            edge = next(look for look in self.window if look.tokens * SLICES >= number * self.last.tokens)
            if edge is not edges[-1][1]:
                edges.append((number / SLICES, edge))
        return [
            Slice(
                seconds=b.seconds - a.seconds, loops=b.loops - a.loops, passes=b.passes - a.passes, shares=(start, stop)
            )
            for (start, a), (stop, b) in pairwise(edges)
        ]

    @property
    def mean_depth(self) -> float:
        return self.last.loops / self.last.tokens

    @property
    def tokens_per_second(self) -> float:
        """Over the whole call, including prefill."""
        return self.last.tokens / self.last.seconds

    @property
    def decode_tokens_per_second(self) -> float:
        """Within the decode window."""
        return self.window_loops / self.mean_depth / self.window_seconds

    @property
    def slice_speeds(self) -> list[float]:
        """Tokens/s while decoding, slice by slice."""
        return [part.loops / self.mean_depth / part.seconds for part in self.slices]


class TimedCall:
    """One call of the engine that makes `tokens` new tokens per sample, pass by pass. `prepare` is called before each
    pass and not timed: runs that share a model use it to set what is their own."""

    def __init__(
        self, engine: RolloutEngine, requests: Sequence[RolloutRequest], tokens: int, rule: ExitRule = BY_GATE,
        prepare: Callable[[], None] = lambda: None,
    ):  # fmt: skip
        self.prepare = prepare
        engine.stats = EngineStats()
        gc.collect()
        prepare()
        started = time.perf_counter()
        self.call = engine.start(requests, SamplingParams(max_new_tokens=tokens, exit_rule=rule))
        self.seconds = time.perf_counter() - started
        self.wanted = tokens * sum(len(request.seeds) for request in requests)
        self.looks: list[Look] = []

    @property
    def progress(self) -> tuple[float, int]:
        """The fraction of its tokens, then the number of passes."""
        return self.call.tokens / self.wanted, len(self.looks)

    def advance(self) -> None:
        """Run one pass. Raises RunError if the samples ended before they had all their tokens."""
        if self.call.done:
            raise RunError(f"a call ended at {self.call.tokens} of {self.wanted} tokens")
        self.prepare()
        stats = self.call.stats
        started = time.perf_counter()
        self.call.advance()
        self.seconds += time.perf_counter() - started
        self.looks.append(
            Look(
                seconds=self.seconds, tokens=stats.tokens, loops=stats.rows, prompt_loops=stats.prefill_rows,
                passes=stats.passes,
            )
        )  # fmt: skip

    def result(self) -> Run:
        """The result, after the last pass. Raises RunError if the call has not ended."""
        with self.call:
            if not self.call.done:
                raise RunError(f"a call is at {self.call.tokens} of {self.wanted} tokens: it has not ended")
        return Run(looks=self.looks, peak_bytes=self.call.stats.peak_bytes, rollouts=self.call.result())


def keep_pace(calls: Sequence[TimedCall], share: float) -> None:
    """Advance all calls to this fraction of their tokens (0: until they have a token), the furthest behind first."""
    while behind := [call for call in calls if call.progress[0] < share or (not share and not call.call.tokens)]:
        min(behind, key=lambda call: call.progress).advance()


def run_together(calls: Mapping[str, TimedCall]) -> dict[str, Run]:
    """Run all calls to their ends, interleaved."""
    keep_pace(list(calls.values()), 1.0)
    return {name: call.result() for name, call in calls.items()}


def run_engine(engine: RolloutEngine, requests: Sequence[RolloutRequest], tokens: int, rule: ExitRule = BY_GATE) -> Run:
    """Run one call by itself."""
    return run_together({"": TimedCall(engine, requests, tokens, rule)})[""]


def warm_up(engine: RolloutEngine, requests: Sequence[RolloutRequest]) -> None:
    """Generate a few tokens of one prompt, not timed, to compile kernels and pack weights."""
    engine.generate([replace(requests[0], seeds=requests[0].seeds[:1])], SamplingParams(max_new_tokens=WARM_UP_TOKENS))


# --- transformers' generate() -----------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Generated:
    """One call of transformers' `generate()`."""

    samples: int
    times: Sequence[float]
    """Seconds since the start of the call at each token of the batch, excluding the time of interleaved calls."""

    @property
    def tokens(self) -> int:
        return self.samples * len(self.times)

    @property
    def seconds(self) -> float:
        return self.times[-1]

    @property
    def window_seconds(self) -> float:
        """From the first token of the batch to the last."""
        return self.times[-1] - self.times[0]

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.seconds

    @property
    def decode_tokens_per_second(self) -> float:
        return (self.tokens - self.samples) / self.window_seconds

    @property
    def slice_speeds(self) -> list[float]:
        """Tokens/s while decoding, between equal fractions of the tokens."""
        edges = sorted({0, *(-(-number * len(self.times) // SLICES) - 1 for number in range(1, SLICES + 1))})
        return [self.samples * (b - a) / (self.times[b] - self.times[a]) for a, b in pairwise(edges)]


class TokenClock(BaseStreamer):
    """Records when `generate()` has each token of the batch, and runs `between` after it, whose time is not counted."""

    def __init__(self, between: Callable[[int], None]):
        self.between = between
        self.times: list[float] = []
        self.resumed = time.perf_counter()
        self.seconds = 0.0
        self.seen_prompt = False

    def put(self, value: torch.Tensor) -> None:
        self.seconds += time.perf_counter() - self.resumed
        if self.seen_prompt:
            self.times.append(self.seconds)
        self.seen_prompt = True
        self.between(len(self.times))
        self.resumed = time.perf_counter()

    def end(self) -> None:
        pass


@torch.inference_mode()
def run_generate(
    model: OuroForCausalLM, requests: Sequence[RolloutRequest], tokens: int,
    between: Callable[[int], None] = lambda tokens: None,
) -> Generated:  # fmt: skip
    """Run `generate()` greedily (the least work per token), with all samples in one batch without padding and all of
    the model's loops. `between` is called before the first token and after each, with the number of tokens so far."""
    prompts = torch.tensor([request.prompt.token_ids for request in requests for _ in request.seeds])
    settings = GenerationConfig(
        max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False, eos_token_id=None, pad_token_id=0
    )
    gc.collect()
    clock = TokenClock(between)
    made = model.generate(prompts, attention_mask=torch.ones_like(prompts), generation_config=settings, streamer=clock)
    count = made.numel() - prompts.numel()
    if count != len(prompts) * tokens or len(clock.times) != tokens:
        raise RunError(f"generate() made {count} tokens, not {len(prompts)} x {tokens}")
    return Generated(samples=len(prompts), times=clock.times)


# --- figures ----------------------------------------------------------------------------------------------------------


def take_turns(runners: Mapping[str, Callable[[], T]], rounds: int, say: Say) -> dict[str, list[T]]:
    """Run each runner once per round, in alternating order: name -> one result per round. For work that cannot be
    interleaved pass by pass."""
    results: dict[str, list[T]] = {name: [] for name in runners}
    for number in range(rounds):
        for name in list(runners) if number % 2 == 0 else reversed(list(runners)):
            before = time.perf_counter()
            results[name].append(runners[name]())
            say(f"round {number + 1} of {rounds}, {name}: {time.perf_counter() - before:.1f} s")
    return results


def spread(values: Sequence[float]) -> dict[str, float | int]:
    """Median, minimum, maximum and count of the values."""
    return {"median": statistics.median(values), "least": min(values), "greatest": max(values), "count": len(values)}


def ratios(above: Sequence[float], below: Sequence[float]) -> dict[str, float | int]:
    """The spread of above[i] / below[i]."""
    return spread([a / b for a, b in zip(above, below, strict=True)])


def excess(found: Mapping[str, float | int]) -> dict[str, float | int]:
    """The spread of ratios - 1."""
    return {name: value - (name != "count") for name, value in found.items()}
