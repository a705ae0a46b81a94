"""Timed calls, and rounds of them in turns.

A call of the engine is timed as a whole, and over its *decode window*: from the first look of the progress callback at which all
prompts are through, to the end. The window has no prefill in it, on either side of a comparison, and nothing is subtracted.
Tokens/s while decoding are loops/s in the window over the trace's mean depth: a token that is half done at the window's start
counts for the loops that are left of it.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from transformers import GenerationConfig
from transformers.generation.streamers import BaseStreamer

from ouro_rl.errors import RunError
from ouro_rl.model import OuroForCausalLM
from ouro_rl.types import ExitRule, Rollout, RolloutRequest, SamplingParams
from rollout_workers.engine import EngineStats, RolloutEngine

T = TypeVar("T")
Say = Callable[[str], None]
"""Progress, one line at a time."""
BY_GATE = ExitRule()
"""Depths are drawn from the gate."""
WARM_UP_TOKENS = 4


@dataclass(frozen=True, kw_only=True)
class Run:
    """One call of the engine."""

    seconds: float
    tokens: int
    """Completion tokens made."""
    loops: int
    """Loops run for them."""
    prompt_loops: int
    """Loops run for prompt tokens."""
    passes: int
    window_seconds: float
    window_loops: int
    window_passes: int
    peak_bytes: int
    rollouts: Sequence[Rollout]

    @property
    def mean_depth(self) -> float:
        return self.loops / self.tokens

    @property
    def tokens_per_second(self) -> float:
        """Of the whole call, prompts included."""
        return self.tokens / self.seconds

    @property
    def decode_tokens_per_second(self) -> float:
        """Within the decode window."""
        return self.window_loops / self.mean_depth / self.window_seconds


def run_engine(
    engine: RolloutEngine, requests: Sequence[RolloutRequest], tokens: int, rule: ExitRule = BY_GATE
) -> Run:
    """`tokens` new tokens of every sample, timed."""
    engine.stats = stats = EngineStats()
    looks: list[tuple[float, int, int, int]] = []

    def look(_tokens: int, _finished: int) -> None:
        looks.append((time.perf_counter(), stats.prefill_rows, stats.rows, stats.passes))

    params = SamplingParams(max_new_tokens=tokens, exit_rule=rule)
    gc.collect()
    started = time.perf_counter()
    rollouts = engine.generate(requests, params, on_progress=look)
    seconds = time.perf_counter() - started
    window = [place for place in looks if place[1] == stats.prefill_rows]
    if len(window) < 2:
        raise RunError(f"{stats.passes} passes are too few to time: the sizes of this run are too small")
    (start, _, first_loops, first_passes), (end, _, last_loops, last_passes) = window[0], window[-1]
    return Run(
        seconds=seconds, tokens=stats.tokens, loops=stats.rows, prompt_loops=stats.prefill_rows, passes=stats.passes,
        window_seconds=end - start, window_loops=last_loops - first_loops, window_passes=last_passes - first_passes,
        peak_bytes=stats.peak_bytes, rollouts=rollouts,
    )  # fmt: skip


def warm_up(engine: RolloutEngine, requests: Sequence[RolloutRequest]) -> None:
    """A few tokens, not timed: compiles, packs weights, has the prompts' pages."""
    engine.generate(requests, SamplingParams(max_new_tokens=WARM_UP_TOKENS))


@dataclass(frozen=True, kw_only=True)
class Generated:
    """One call of transformers' `generate()`."""

    seconds: float
    tokens: int
    window_seconds: float
    """From the first token of every sample to the last."""
    window_tokens: int

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.seconds

    @property
    def decode_tokens_per_second(self) -> float:
        return self.window_tokens / self.window_seconds


class TokenClock(BaseStreamer):
    """When `generate()` had the prompt, and then each token of the batch."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def put(self, value: torch.Tensor) -> None:
        self.times.append(time.perf_counter())

    def end(self) -> None:
        pass


@torch.inference_mode()
def run_generate(model: OuroForCausalLM, requests: Sequence[RolloutRequest], tokens: int) -> Generated:
    """Greedy (the least that it can do for a token), all samples as one batch without padding, at all of the model's loops."""
    prompts = torch.tensor([request.prompt.token_ids for request in requests for _ in request.seeds])
    settings = GenerationConfig(
        max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False, eos_token_id=None, pad_token_id=0
    )
    clock = TokenClock()
    gc.collect()
    started = time.perf_counter()
    made = model.generate(
        prompts, attention_mask=torch.ones_like(prompts), generation_config=settings, streamer=clock
    )
    seconds = time.perf_counter() - started
    count = made.numel() - prompts.numel()
    if count != len(prompts) * tokens:
        raise RunError(f"generate() made {count} tokens, not {len(prompts)} x {tokens}")
    return Generated(
        seconds=seconds, tokens=count, window_seconds=clock.times[-1] - clock.times[1],
        window_tokens=count - len(prompts),
    )  # fmt: skip


# --- rounds ------------------------------------------------------------------------------------------------------------


def take_turns(
    runners: Mapping[str, Callable[[], T]], deadline: float, say: Say, *, most: int = 5
) -> dict[str, list[T]]:
    """Each runner once a round, forwards and backwards in turn, so that a machine that slows down slows all of them: name -> one
    result a round. One round at least, and others as long as they should end before `deadline` (by `time.perf_counter`)."""
    results: dict[str, list[T]] = {name: [] for name in runners}
    for number in range(most):
        begun = time.perf_counter()
        for name in list(runners) if number % 2 == 0 else reversed(list(runners)):
            before = time.perf_counter()
            results[name].append(runners[name]())
            say(f"round {number + 1}, {name}: {time.perf_counter() - before:.1f} s")
        now = time.perf_counter()
        if 2 * now - begun > deadline:
            break
    return results


def part_of(deadline: float, share: float) -> float:
    """The time at which this share of what is left until `deadline` is over."""
    now = time.perf_counter()
    return now + share * max(0.0, deadline - now)


def spread(values: Sequence[float]) -> dict[str, float | int]:
    """Median, least and greatest of one figure's rounds."""
    return {"median": statistics.median(values), "least": min(values), "greatest": max(values), "rounds": len(values)}


def ratios(results: Mapping[str, Sequence[T]], above: str, below: str, figure: Callable[[T], float]) -> dict:
    """The spread, over the rounds, of `figure` of one runner over that of another in the same round."""
    return spread([figure(a) / figure(b) for a, b in zip(results[above], results[below], strict=True)])
