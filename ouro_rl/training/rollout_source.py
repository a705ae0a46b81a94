"""The trainer's rollout source: prompts -> groups of rollouts -> scores."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any, Self

from tqdm import tqdm

from ouro_rl.config.train import TrainConfig
from ouro_rl.core.rollout import Prompt, Rollout, RolloutRequest, ScoredRollout
from ouro_rl.core.sampling_params import SamplingParams
from ouro_rl.core.seeds import sample_seed
from ouro_rl.model.tokenizer import completion_texts
from ouro_rl.training.refill import further_prompts, refill
from ouro_rl.training.rollout_metrics import check_unscored, mean_reward
from ouro_rl.training.signal_watch import Group, SignalWatch, silence_message, split_groups
from rewards.scorer import Scorer
from rollout_workers.pool import RolloutPool


class Cancelled(Exception):
    """Nobody waits for these rollouts any more."""


class GroupSampler:
    """Samples and scores the groups of one update: deterministic in (seed, step), for any number of workers.

    `prompts`: all of the run, from which groups without variance are replaced (`trainer.refill`)."""

    def __init__(
        self,
        config: TrainConfig,
        params: SamplingParams,
        pool: RolloutPool,
        scorer: Scorer,
        tokenizer: Any,
        prompts: Sequence[Prompt],
    ):
        self.config, self.params, self.pool, self.scorer, self.tokenizer = config, params, pool, scorer, tokenizer
        self.prompts, self.watch = prompts, SignalWatch()
        self._cancelled = threading.Event()

    def cancel(self) -> None:
        """End a call that runs in another thread, and all later ones, with `Cancelled`."""
        self._cancelled.set()

    def __call__(self, prompts: Sequence[Prompt], step: int) -> tuple[list[ScoredRollout], dict[str, float]]:
        """Scored rollouts, group by group, and by metric name timings and what a refill took.

        `time/reward_s` is the scoring that does not overlap sampling: from the last rollout to the last score. Raises
        RunError where more than `rewards.max_unscored` of the completions have no reward, replaced ones included."""
        seed, rounds, limit = self.config.run.seed, self.config.trainer.refill, self.config.rewards.max_unscored
        everything: list[ScoredRollout] = []
        spent = {"time/rollout_s": 0.0, "time/reward_s": 0.0}

        def sample(prompts: Sequence[Prompt]) -> list[Group]:
            scored, seconds = self._sample(prompts, step)
            everything.extend(scored)
            check_unscored(everything, limit)
            spent.update({name: spent[name] + value for name, value in seconds.items()})
            return split_groups(scored, self.config.trainer.group_size)

        groups, counts = sample(prompts), dict[str, float]()
        if rounds:
            counts["groups/reward_before_refill"] = mean_reward(everything)
            further = further_prompts(self.prompts, prompts, seed=seed, step=step)
            result = refill(groups, further, sample, rounds=rounds)
            groups = result.groups
            counts |= {"groups/replaced": result.replaced, "groups/sampled": result.sampled}
        scored = [item for group in groups for item in group]
        if self.watch.is_silent(groups):
            text = silence_message(scored, self.scorer.as_passed(scored[0].completion))
            tqdm.write(text, file=sys.stderr)  # does not break the progress bar
        tokens = sum(len(item.rollout.completion_ids) for item in everything)
        return scored, {**spent, **counts, "tokens/s": tokens / max(1e-9, spent["time/rollout_s"])}

    def _sample(self, prompts: Sequence[Prompt], step: int) -> tuple[list[ScoredRollout], dict[str, float]]:
        """All groups of these prompts, and the seconds that it took."""
        seed, size = self.config.run.seed, self.config.trainer.group_size
        requests = [
            RolloutRequest(
                prompt=prompt,
                seeds=tuple(sample_seed(seed, step, prompt.index, sample) for sample in range(size)),
                fixed_depths=self.config.rollout.fixed_depths(size),
            )
            for prompt in prompts
        ]
        params = replace(self.params, depth_policy=self.config.rollout.depth_policy(step - 1))
        started = time.monotonic()
        with GroupScoring(self.scorer, self.tokenizer, prompts, size) as scoring:
            rollouts = self.pool.rollout(requests, params, self._check_cancelled, scoring.add)
            sampled = time.monotonic()
            scored = scoring.finish(rollouts)
        return scored, {"time/rollout_s": sampled - started, "time/reward_s": time.monotonic() - sampled}

    def _check_cancelled(self, *_: int) -> None:
        """Called while rollouts are being sampled, with their progress."""
        if self._cancelled.is_set():
            raise Cancelled


class GroupScoring:
    """Scores complete groups in a background thread, one at a time, while other groups are still being sampled.

    With a custom reward function, groups are scored in the order of their prompts: the function may keep state, and the
    same run must give the same scores. `finish` raises what the scorer raised. A context manager: leaving it early
    cancels the groups that are still waiting."""

    def __init__(self, scorer: Scorer, tokenizer: Any, prompts: Sequence[Prompt], size: int):
        self.scorer, self.tokenizer, self.prompts, self.size = scorer, tokenizer, prompts, size
        self.groups: list[dict[int, Rollout]] = [{} for _ in prompts]
        self.results: list[Future[list[ScoredRollout]] | None] = [None] * len(prompts)
        self.thread = ThreadPoolExecutor(1, thread_name_prefix="scoring")

    def add(self, place: int, rollout: Rollout) -> None:
        """Add a finished rollout; `place` is its index among all rollouts of the update."""
        group = place // self.size
        self.groups[group][place % self.size] = rollout
        if self.scorer.any_order:
            self._hand_over(group)
            return
        for group in range(len(self.groups)):
            if self.results[group] is None and not self._hand_over(group):
                return

    def _hand_over(self, group: int) -> bool:
        found = self.groups[group]
        if self.results[group] is not None or len(found) < self.size:
            return False
        rollouts = [found[sample] for sample in range(self.size)]
        asked = [self.prompts[group]] * self.size
        self.results[group] = self.thread.submit(score, self.scorer, self.tokenizer, asked, rollouts)
        return True

    def finish(self, rollouts: Sequence[Rollout]) -> list[ScoredRollout]:
        """All scored rollouts in order; call it when sampling has finished."""
        for place, rollout in enumerate(rollouts):
            early = self.groups[place // self.size].get(place % self.size)
            assert early is None or early == rollout, f"rollout {place} is not the one that was scored"
            if self.results[place // self.size] is None:
                self.add(place, rollout)
        results = [result for result in self.results if result is not None]
        assert len(results) == len(self.results), "with the last rollout the last group was handed over"
        return [scored for result in results for scored in result.result()]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.thread.shutdown(wait=True, cancel_futures=True)


def score(scorer: Scorer, tokenizer, prompts: Sequence[Prompt], rollouts: Sequence[Rollout]) -> list[ScoredRollout]:
    """Score completions, as text, by every reward function; prompts[i] belongs to rollouts[i]. What is lost has no
    text, and no score."""
    found = [i for i, rollout in enumerate(rollouts) if rollout.finish_reason != "lost"]
    scored = _score_texts(scorer, tokenizer, [prompts[i] for i in found], [rollouts[i] for i in found])
    by_place = dict(zip(found, scored, strict=True))
    return [by_place.get(i) or _unscored(scorer, rollout) for i, rollout in enumerate(rollouts)]


def _unscored(scorer: Scorer, rollout: Rollout) -> ScoredRollout:
    return ScoredRollout(
        rollout=rollout,
        completion="",
        rewards=dict.fromkeys(scorer.labels),
        statuses=dict.fromkeys(scorer.labels, "lost"),
        reward=None,
    )


def _score_texts(
    scorer: Scorer, tokenizer: Any, prompts: Sequence[Prompt], rollouts: Sequence[Rollout]
) -> list[ScoredRollout]:
    texts = completion_texts(tokenizer, rollouts)
    names = sorted({name for prompt in prompts for name in prompt.columns})
    columns = {name: [prompt.columns.get(name) for prompt in prompts] for name in names}
    completion_ids = [rollout.completion_ids for rollout in rollouts]
    scores = scorer.score([prompt.messages for prompt in prompts], texts, columns, completion_ids)
    return [
        ScoredRollout(
            rollout=rollout,
            completion=text,
            rewards=item.rewards,
            statuses=item.statuses,
            reward=item.reward,
            details=item.details,
        )
        for rollout, text, item in zip(rollouts, texts, scores, strict=True)
    ]
