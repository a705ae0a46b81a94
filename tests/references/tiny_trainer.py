"""The real trainer, sampler and engine on a tiny model, with rewards that are computed in place: an update takes a
fraction of a second. No evaluation, no checkpoints.

Run as a module, it is one of several processes that train on the same rollouts, in the environment that torchrun sets:
`-m tests.references.tiny_trainer ROLLOUTS FOLDER CHANGES` leaves the gradients of each rank in the folder."""

import json
import os
import pickle
import random
import sys
import tempfile
from pathlib import Path

import torch
from transformers import TrainerCallback
from transformers.trainer_utils import SaveStrategy

from ouro_rl.config.train import TrainConfig
from ouro_rl.core.rollout import Prompt
from ouro_rl.data.sampling import sampling_params
from ouro_rl.model.tiny_tokenizer import make_tokenizer
from ouro_rl.run_dir.run_dir import RunDir
from ouro_rl.training.rollout_source import GroupSampler
from ouro_rl.training.trainer import OuroGRPOTrainer
from rewards.scorer import ItemScore
from rollout_workers.pool import LocalPool
from tests.references.places import REPOSITORY
from tests.references.tiny_models import random_model

TOKENIZER = make_tokenizer()
LOOPS = 3
_numbers = random.Random(0)
PROMPTS = [
    Prompt(index=index, token_ids=tuple(_numbers.randrange(4, len(TOKENIZER)) for _ in range(2 + index % 3)))
    for index in range(12)
]


class InPlaceScorer:
    """0, 1/3, 2/3 or 1, or no score, from the token ids alone; all completions of some prompts are wrong."""

    any_order = True

    def score(self, prompts, completions, columns, completion_ids):
        if sum(map(sum, completion_ids)) % 4 == 0:
            return [ItemScore(rewards={"r": 0.0}, statuses={"r": "wrong"}, reward=0.0) for _ in completions]
        values = [None if sum(ids) % 11 == 0 else (sum(ids) % 4) / 3 for ids in completion_ids]
        return [ItemScore(rewards={"r": value}, statuses={"r": "said"}, reward=value) for value in values]

    def as_passed(self, completion):
        return {"r": completion}


def tiny_config(**changes) -> TrainConfig:
    """`changes`: by `section__key`."""
    values = {
        "model": {"path": str(REPOSITORY / "configs" / "tiny_ouro")},
        "rollout": {"max_new_tokens": 7, "stop_token_ids": list(range(5, 17))},
        "rewards": {"max_unscored": 0.9},
        "gate": {"lr": 1e-2, "price": 0.05},
        "trainer": {"steps": 2, "prompts_per_step": 4, "group_size": 4, "micro_batch": 8, "lr": 1e-2},
        "run": {"dir": "nowhere", "seed": 3},
    }
    for key, value in changes.items():
        section, name = key.split("__")
        values[section][name] = value
    return TrainConfig.model_validate(values, strict=False)


def tiny_model(seed=0):
    return random_model(seed, layers=1, loops=LOOPS, vocab=len(TOKENIZER), gate_scale=2.0)


def pool_of(model, config) -> LocalPool:
    pool = LocalPool(model.config.to_dict(), config.rollout.engine(config.model.dtype))
    pool.publish(model.state_dict(), 0)
    return pool


def sampler_of(config, pool) -> GroupSampler:
    params = sampling_params(config.rollout, TOKENIZER)
    return GroupSampler(config, params, pool, InPlaceScorer(), TOKENIZER, PROMPTS)


class Gradients(TrainerCallback):
    """Keeps the gradients of every update, before the optimizer uses them."""

    def __init__(self):
        self.of_updates = []

    def on_pre_optimizer_step(self, args, state, control, model=None, **_):
        self.of_updates.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})


def train(model, config, source, publish=lambda *_: None):
    """Rows of metrics, and the gradients of every update; moves the model's weights."""
    gradients = Gradients()
    with tempfile.TemporaryDirectory() as folder:
        trainer = OuroGRPOTrainer(
            model, TOKENIZER, config, PROMPTS, rollout_source=source, publish=publish, run_dir=RunDir(folder),
            callbacks=[gradients],
        )  # fmt: skip
        trainer.args.save_strategy = SaveStrategy.NO
        trainer.train()
        rows = trainer.run_dir.read_metrics() if trainer.accelerator.is_main_process else []
    return rows, [
        {name.removeprefix("module."): gradient for name, gradient in update.items()} for update in gradients.of_updates
    ]


def main(rollouts: str, folder: str, changes: str) -> None:
    scored = pickle.loads(Path(rollouts).read_bytes())
    _, (gradients,) = train(tiny_model(), tiny_config(**json.loads(changes)), lambda *_: (scored, {"tokens/s": 1.0}))
    torch.save(gradients, Path(folder) / f"{os.environ['RANK']}.pt")


if __name__ == "__main__":
    main(*sys.argv[1:])
