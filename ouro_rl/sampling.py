"""The trainer's rollout source: prompts -> groups of rollouts -> scores."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Self

import torch

from ouro_rl.config import RolloutConfig, TrainConfig
from ouro_rl.data import completion_texts, load_prompts, stop_token_ids
from ouro_rl.errors import UserError
from ouro_rl.token_pieces import stop_strings_of
from ouro_rl.types import Prompt, Rollout, RolloutRequest, SamplingParams, ScoredRollout
from rewards.grade import keep_gradable
from rewards.registry import RewardSpec
from rewards.scorer import Scorer
from rollout_workers.pool import RolloutPool
from rollout_workers.seeds import sample_seed


def make_pool(config: TrainConfig) -> RolloutPool:
    """The rollout workers of a config. UserError when actors would leave this machine's GPUs idle, and disagree with the trainer."""
    rollout = config.rollout
    if rollout.workers and not rollout.worker_gpus and torch.cuda.is_available():
        raise UserError(
            "rollout.worker_gpus is 0: the actors would sample on the CPU while the trainer is on a GPU.\n"
            "Set rollout.worker_gpus (a share of a GPU each), or hide the GPUs with CUDA_VISIBLE_DEVICES= ."
        )
    return RolloutPool(
        rollout.workers, config.model.path, dtype=config.model.dtype, max_batch=rollout.max_batch,
        kv_memory_gib=rollout.kv_memory_gib, prefill_rows=rollout.prefill_rows, exact=rollout.exact,
        cpus=rollout.worker_cpus, gpus=rollout.worker_gpus,
    )  # fmt: skip


def make_scorer(config: TrainConfig) -> Scorer:
    specs = [
        RewardSpec(**reward.model_dump())
        for reward in config.rewards.functions
    ]
    return Scorer(specs, workers=config.rewards.workers)


def training_prompts(config: TrainConfig, tokenizer) -> list[Prompt]:
    """The prompts to train on: those whose gold answer the `math` reward, where there is one, can grade against."""
    prompts = load_prompts(config.data, tokenizer, seed=config.run.seed)
    for reward in config.rewards.functions:
        if reward.name == "math":
            where = f"data.source {config.data.source}"
            prompts = keep_gradable(prompts, where, workers=config.rewards.workers, kwargs=reward.kwargs)
    return prompts


def sampling_params(rollout: RolloutConfig, tokenizer) -> SamplingParams:
    """What the engine is asked for in rollouts. UserError for stop strings that this tokenizer cannot write, and ids that it has not."""
    return SamplingParams(
        max_new_tokens=rollout.max_new_tokens,
        temperature=rollout.temperature,
        filters=rollout.filters(),
        exit_rule=rollout.exit_rule.rule(),
        stop_token_ids=stop_token_ids(tokenizer, rollout.stop_token_ids, "rollout.stop_token_ids"),
        stop_strings=stop_strings_of(tokenizer, rollout.stop_strings),
        depth_policy=rollout.depth_policy(),
        early_stop=rollout.early_stop and rollout.early_stop.rule(),
    )


class GroupSampler:
    """Samples and scores the groups of one update; deterministic in (seed, step), whatever the number of workers."""

    def __init__(self, config: TrainConfig, params: SamplingParams, pool: RolloutPool, scorer: Scorer, tokenizer):
        self.config, self.params, self.pool, self.scorer, self.tokenizer = config, params, pool, scorer, tokenizer

    def __call__(self, prompts: Sequence[Prompt], step: int) -> tuple[list[ScoredRollout], dict[str, float]]:
        """Scored rollouts, group by group, and timings by metric name. `time/reward_s` is the part of the scoring that
        sampling does not hide: from the last rollout to the last score."""
        seed, group = self.config.run.seed, range(self.config.trainer.group_size)
        requests = [
            RolloutRequest(prompt=prompt, seeds=tuple(sample_seed(seed, step, prompt.index, sample) for sample in group))
            for prompt in prompts
        ]
        started = time.monotonic()
        with GroupScoring(self.scorer, self.tokenizer, prompts, len(group)) as scoring:
            rollouts = self.pool.rollout(requests, self.params, on_rollout=scoring.add)
            sampled = time.monotonic()
            scored = scoring.finish(rollouts)
        seconds = {"time/rollout_s": sampled - started, "time/reward_s": time.monotonic() - sampled}
        tokens = sum(len(rollout.completion_ids) for rollout in rollouts)
        return scored, {**seconds, "tokens/s": tokens / max(1e-9, sampled - started)}


class GroupScoring:
    """Scores groups while others are still being sampled: one at a time, in a thread, as soon as a group is whole.

    Where a custom function is among the rewards, groups are handed over in the order of their prompts: it may keep state, and
    the same run shall give the same scores. What a scorer raises is raised by `finish`. A context manager: leaving it early
    drops the groups that wait."""

    def __init__(self, scorer: Scorer, tokenizer: Any, prompts: Sequence[Prompt], size: int):
        self.scorer, self.tokenizer, self.prompts, self.size = scorer, tokenizer, prompts, size
        self.groups: list[dict[int, Rollout]] = [{} for _ in prompts]
        self.results: list[Future[list[ScoredRollout]] | None] = [None] * len(prompts)
        self.thread = ThreadPoolExecutor(1, thread_name_prefix="scoring")

    def add(self, place: int, rollout: Rollout) -> None:
        """A rollout and its place among all of them."""
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
        """All scores in order, once all rollouts are there."""
        for place, rollout in enumerate(rollouts):
            early = self.groups[place // self.size].get(place % self.size)
            assert early is None or early == rollout, f"rollout {place} is not the one that was scored"
            if self.results[place // self.size] is None:
                self.add(place, rollout)
        return [scored for result in self.results for scored in result.result()]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.thread.shutdown(wait=True, cancel_futures=True)


def score(scorer: Scorer, tokenizer, prompts: Sequence[Prompt], rollouts: Sequence[Rollout]) -> list[ScoredRollout]:
    """Completions as text, scored by every reward function; prompts and rollouts one to one."""
    texts = completion_texts(tokenizer, rollouts)
    names = sorted({name for prompt in prompts for name in prompt.columns})
    columns = {name: [prompt.columns.get(name) for prompt in prompts] for name in names}
    completion_ids = [rollout.completion_ids for rollout in rollouts]
    scores = scorer.score([prompt.messages for prompt in prompts], texts, columns, completion_ids)
    return [
        ScoredRollout(
            rollout=rollout, completion=text, rewards=item.rewards, statuses=item.statuses, reward=item.reward,
            details=item.details,
        )  # fmt: skip
        for rollout, text, item in zip(rollouts, texts, scores, strict=True)
    ]
