"""What an update of 64 groups of 16 costs beside sampling and training: processor time of the driver, with rollouts
that cost nothing, against that of a real update of the quickstart's model."""

import random
import time

import pytest
import torch
from transformers import TrainerCallback

from ouro_rl.config.train import TrainConfig
from ouro_rl.core.rollout import Prompt, Rollout
from ouro_rl.data.sampling import sampling_params
from ouro_rl.model.checkpoint import load_policy
from ouro_rl.run_dir.run_dir import RunDir
from ouro_rl.training.rollout_source import GroupSampler
from ouro_rl.training.trainer import OuroGRPOTrainer
from rewards.scorer import ItemScore
from rollout_workers.pool import make_pool
from tests.references.places import REPOSITORY

GROUPS, SIZE, TOKENS = 64, 16, 128
LARGEST_SHARE = 0.03


class StubPool:
    """Rollouts of `TOKENS` tokens without an engine."""

    def __init__(self, vocabulary):
        draw = random.Random(0)
        self.ids = [draw.randrange(vocabulary) for _ in range(2 * TOKENS)]
        self.version = 0

    def publish(self, weights, version):
        self.version = version

    def rollout(self, requests, params, on_progress=None, on_rollout=None):
        return [self._one(request, sample, params) for request in requests for sample in range(len(request.seeds))]

    def _one(self, request, sample, params):
        first, logprobs = request.seeds[sample] % TOKENS, tuple(-1 / (1 + i % 7) for i in range(TOKENS))
        return Rollout(
            prompt_index=request.prompt.index, sample_index=sample, prompt_ids=request.prompt.token_ids,
            completion_ids=tuple(self.ids[first : first + TOKENS]), token_logprobs=logprobs,
            depths=tuple(1 + i % 4 for i in range(TOKENS)), depth_logprobs=logprobs, policy_version=self.version,
            temperature=params.temperature, finish_reason="length", depth_policy=params.depth_policy,
        )  # fmt: skip


class StubScorer:
    any_order = True

    def score(self, prompts, completions, columns, completion_ids=None):
        scores = [float(len(text) % 2) for text in completions]
        return [ItemScore(rewards={"r": score}, statuses={"r": "correct"}, reward=score) for score in scores]


class Clock(TrainerCallback):
    """Processor time from the first update on, which also compiles, to the last."""

    def on_step_end(self, args, state, control, **_):
        self.first, self.last = getattr(self, "first", time.process_time()), time.process_time()


def trainer_of(folder, pool, groups, steps, callbacks=()):
    model, tokenizer = load_policy(str(REPOSITORY / "configs" / "tiny_ouro"), torch.float32)
    config = TrainConfig.model_validate(
        {
            "model": {"path": str(REPOSITORY / "configs" / "tiny_ouro")},
            "rollout": {"max_new_tokens": TOKENS, "stop_token_ids": []},
            "trainer": {"steps": steps, "prompts_per_step": groups, "group_size": SIZE, "checkpoint_every": 99},
            "run": {"dir": str(folder)},
        },
        strict=False,
    )
    pool = pool or make_pool(0, model.config.to_dict(), config.rollout.engine("float32"))
    prompts = [Prompt(index=i, token_ids=tuple(range(5, 37)), columns={"answer": "1"}) for i in range(groups)]
    sampler = GroupSampler(config, sampling_params(config.rollout, tokenizer), pool, StubScorer(), tokenizer, prompts)
    return OuroGRPOTrainer(
        model, tokenizer, config, prompts, rollout_source=sampler, publish=pool.publish, run_dir=RunDir(folder),
        callbacks=callbacks,
    )  # fmt: skip


@pytest.mark.slow
def test_the_driver_takes_a_small_share_of_an_update(tmp_path, capsys):
    pool = StubPool(vocabulary=40)
    driver = trainer_of(tmp_path / "stub", pool, GROUPS, 1)
    inputs = [{"index": place} for place in driver._prompt_order().batch(0) for _ in range(SIZE)]
    started = time.process_time()
    driver._generate_and_score_completions(inputs)
    per_token = (time.process_time() - started) / (GROUPS * SIZE * TOKENS)

    clock, steps = Clock(), 3
    real = trainer_of(tmp_path / "real", None, 4, steps, [clock])
    real.train()
    tokens = sum(len(row["completion_ids"]) for step in (2, 3) for row in real.run_dir.read_rollouts(step))
    whole = (clock.last - clock.first) / tokens
    with capsys.disabled():
        print(f"\ndriver {1e6 * per_token:.1f} us per token, an update {1e6 * whole:.0f}: {per_token / whole:.1%}")
    assert per_token < LARGEST_SHARE * whole
