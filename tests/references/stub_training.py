"""The real trainer, its checkpoints and transformers' loop, on a stub model, whose rollouts and loss cost nothing."""

import torch

from ouro_rl.config.train import TrainConfig
from ouro_rl.core.rollout import Rollout, ScoredRollout
from ouro_rl.core.seeds import sample_seed
from ouro_rl.model.tiny_tokenizer import make_tokenizer
from ouro_rl.run_dir.run_dir import RunDir
from ouro_rl.training.trainer import OuroGRPOTrainer
from tests.references.tiny_models import random_model

GROUP = 2
TOKENIZER = make_tokenizer()


class StubTrainer(OuroGRPOTrainer):
    def _compute_loss(self, model, inputs):
        """Depends on the weights, the rows of this pass and the random state, as the real one does."""
        noise = torch.rand(()).item()
        self.seen.append((self.state.global_step + 1, inputs["advantages"].tolist(), noise))
        return model.model.norm.weight.mean() * (inputs["advantages"].sum() + noise)

    def save_model(self, output_dir=None, _internal_call=False):
        """Without the tokenizer, which takes most of the time."""
        self.model.save_pretrained(output_dir)


def workers_of(seed, calls):
    """A rollout source and its publication: rollouts that follow from seeds and weights, as those of the engine do."""
    have = {}

    def publish(weights, version):
        have.update(version=version, scale=1 + weights["model.norm.weight"].double().mean().item())

    def source(prompts, step):
        scored = []
        for prompt in prompts:
            seeds = [sample_seed(seed, step, prompt.index, sample) for sample in range(GROUP)]
            calls.append((step, prompt.index, seeds))
            for sample, number in enumerate(seeds):
                rollout = Rollout(
                    prompt_index=prompt.index, sample_index=sample, prompt_ids=(1,), completion_ids=(2,),
                    token_logprobs=(-1.0,), depths=(1 + number % 3,), depth_logprobs=(-1.0,),
                    policy_version=have["version"], temperature=1.0, support_sizes=(), finish_reason="stop",
                )  # fmt: skip
                reward = number % 7 / 7 * have["scale"]
                scored.append(
                    ScoredRollout(
                        rollout=rollout, completion="x", rewards={"r": reward}, statuses={"r": "correct"}, reward=reward
                    )
                )
        return scored, {"time/rollout_s": 0.0, "tokens/s": 1.0}

    return source, publish


def config_of(folder, **trainer):
    return TrainConfig.model_validate(
        {
            "model": {"path": str(folder.parent)},  # the hub is asked for what is not a folder
            "rollout": {"max_new_tokens": 4, "workers": 1},  # what samples is a stub
            "gate": {"target_depth": 2.0, "lr": 1e-3},
            "trainer": {"group_size": GROUP, "lr": 1e-3, "keep_checkpoints": 1} | trainer,
            "run": {"dir": str(folder), "seed": 5},
        },
        strict=False,
    )


def stub_model():
    return random_model(layers=1, heads=1, loops=3, hidden=4, vocab=len(TOKENIZER))


def train(model, config, prompts, *, checkpoint=None, stop=None):
    """What a run does: (groups asked for, passes, rows of metrics)."""
    calls, run = [], RunDir(config.run.dir)
    copy = type(model)(model.config)
    copy.load_state_dict(model.state_dict())
    source, publish = workers_of(config.run.seed, calls)
    trainer = StubTrainer(
        copy, TOKENIZER, config, prompts, rollout_source=source, publish=publish, run_dir=run,
        callbacks=[stop] if stop else [],
    )  # fmt: skip
    trainer.seen = []
    try:
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    finally:
        trainer.close()
    return calls, trainer
