"""The configuration of every command: strict, frozen, checked before anything heavy is imported.

A config file is YAML; several compose left to right, then come dotted overrides (`trainer.lr=1e-5`). Unknown keys, wrong
types and values out of range are `UserError`s that name the file, the key and the fix. See `ouro_rl.config.loader`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from ouro_rl.config.rollout import ExitRuleConfig, RolloutConfig, Rule
from ouro_rl.config.section import Section

LARGEST_SEED = 2**31 - 1
"""numpy takes no more than 32 bits, and each training process adds its number."""
Seed = Annotated[int, Field(ge=0, le=LARGEST_SEED)]
Operations = Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)]


class ModelConfig(Section):
    path: str
    """Folder of a checkpoint, or a hub id."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Precision of the forward passes. Master weights and the optimizer are always fp32."""
    gradient_checkpointing: bool = False
    """Compute activations again in the backward pass: less memory, more time."""


class DataConfig(Section):
    source: str = "arithmetic"
    """`arithmetic` (made here), a .jsonl file, or a hub data set id."""
    name: str | None = None
    """Hub configuration name."""
    split: str = "train"
    """Split of a hub data set."""
    question_column: str = "problem"
    """A text, or a list of chat messages; dots reach into nested columns."""
    answer_column: str | None = "answer"
    """Becomes the column `answer`, which the `math` reward reads; dots reach into nested columns. null: there is no answer."""
    system_prompt: str | None = None
    """System message put before every question. null: none."""
    prompt_suffix: str = ""
    """Text put after the question."""
    assistant_prefix: str = ""
    """Text that every answer starts with, as part of the prompt (`"<think>\\n"` for the Thinking checkpoints)."""
    limit: int | None = Field(default=None, ge=1)
    """At most this many rows, from the start."""
    max_prompt_tokens: int = Field(default=1024, ge=1)
    """Longer prompts are left out, and counted."""
    operations: Operations = (2, 3, 4)
    """`arithmetic`: numbers of operations in a problem."""


class RewardConfig(Section):
    name: str
    """`math`, `code`, `format`, `length`, `exact`, `regex`, `module.path:function`, or `path/to/file.py:function`."""
    weight: float = 1.0
    """Factor of its score in the reward."""
    kwargs: dict[str, Any] = {}
    """Options of a built-in; further keyword arguments of a function."""
    timeout_s: float = Field(default=10.0, gt=0)
    """Deadline of one call: an item, or a batch where a function takes a batch."""
    adapter: Literal["auto", "trl", "verl", "plain"] = "auto"
    """How a function is called: as TRL's, as verl's `compute_score`, as `f(completion, answer)`; `auto`: by its parameters."""


class RewardsConfig(Section):
    functions: tuple[RewardConfig, ...] = Field(default=(RewardConfig(name="math"),), min_length=1)
    """The rewards; their weighted sum is what a completion earns."""
    workers: int = Field(default=1, ge=1)
    """Processes that score; each can be killed at a deadline."""
    max_unscored: float = Field(default=0.2, ge=0, le=1)
    """The run stops when a larger share of a step's completions could not be scored."""


class GateConfig(Section):
    """The exit gate as a policy (docs/method.md, "Objective")."""

    mode: Literal["policy", "off"] = "policy"
    """`off` freezes the gate and leaves depth to the exit rule."""
    lr: float = Field(default=1e-4, ge=0)
    """Learning rate of the gate."""
    clip_low: float = Field(default=0.2, gt=0, lt=1)
    """Importance ratios of the gate are clipped at 1 - `clip_low`."""
    clip_high: float = Field(default=0.2, gt=0)
    """Importance ratios of the gate are clipped at 1 + `clip_high`."""
    loss_weight: float = Field(default=1.0, ge=0)
    """Factor of the gate's loss beside the tokens'."""
    price: float = Field(default=0.02, ge=0)
    """What one loop of one token costs, in units of advantage (the first value when a target is given)."""
    price_warmup: int = Field(default=0, ge=0)
    """Steps over which the price rises from 0."""
    target_depth: float | None = Field(default=None, ge=1)
    """Mean depth to reach: the price becomes a dual variable that a controller moves. null keeps it constant."""
    price_rate: float = Field(default=0.0005, ge=0)
    """Change of the price in a step for one loop of distance to the target."""
    price_gain: float = Field(default=0.03, ge=0)
    """With a target: the part of the price in proportion to the distance, for one loop of it."""
    price_max: float = Field(default=0.5, ge=0)
    """The highest price."""
    entropy_bonus: float = Field(default=0.0, ge=0)
    """Weight of the entropy of the gate's decisions, in nats, that is added to the objective."""


class TrainerConfig(Section):
    steps: int = Field(ge=1)
    """Optimizer updates."""
    prompts_per_step: int = Field(default=16, ge=1)
    """Groups in an update, over all devices."""
    group_size: int = Field(default=8, ge=2)
    """Completions of one prompt: a group needs at least 2 completions to compare."""
    micro_batch: int = Field(default=64, ge=1)
    """Completions in one forward and backward pass, on one device."""
    updates_per_batch: int = Field(default=1, ge=1)
    """Optimizer updates that one batch of rollouts is used for (TRL's num_iterations)."""
    lr: float = Field(default=1e-6, ge=0)
    """Of everything but the gate."""
    lr_scheduler: Literal["constant", "linear", "cosine", "constant_with_warmup"] = "constant"
    """How the learning rate changes over the updates."""
    lr_warmup: int = Field(default=0, ge=0)
    """Updates over which the learning rate rises from 0."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Of AdamW, for matrices other than the gate's."""
    adam_beta2: float = Field(default=0.999, gt=0, lt=1)
    """Of AdamW: decay of the second moment."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    """Gradients of a larger norm are scaled down to it."""
    loss_type: Literal["grpo", "dr_grpo", "dapo", "bnpo"] = "dapo"
    """How token losses are averaged, in TRL's names: see `ouro_rl/training/losses.py`."""
    scale_rewards: Literal["group", "batch", "none"] = "group"
    """Advantages are divided by the standard deviation of the group, of the batch, or not at all."""
    clip_low: float = Field(default=0.2, gt=0, lt=1)
    """Importance ratios of tokens are clipped at 1 - `clip_low`."""
    clip_high: float = Field(default=0.28, gt=0)
    """Importance ratios of tokens are clipped at 1 + `clip_high`."""
    logp_gap_limit: float | None = Field(default=None, gt=0)
    """The run stops when the largest gap between worker and trainer passes it. null: 1e-3 in fp32, 1 in bf16."""
    checkpoint_every: int = Field(default=25, ge=1)
    """Updates between two checkpoints."""
    keep_checkpoints: int = Field(default=2, ge=1)
    """How many checkpoints are kept; older ones are deleted."""

    @property
    def completions(self) -> int:
        """Completions in an update, over all devices."""
        return self.prompts_per_step * self.group_size

    @model_validator(mode="after")
    def _fits(self) -> TrainerConfig:
        if self.completions % self.micro_batch:
            raise ValueError(
                f"prompts_per_step ({self.prompts_per_step}) x group_size ({self.group_size}) = {self.completions} "
                f"completions do not divide into micro batches of {self.micro_batch}; "
                f"set micro_batch to {largest_divisor(self.completions, self.micro_batch)}"
            )
        if self.checkpoint_every % self.updates_per_batch:
            raise ValueError(
                f"checkpoint_every ({self.checkpoint_every}) must be a multiple of updates_per_batch "
                f"({self.updates_per_batch}): a run resumes with a fresh batch"
            )
        if self.lr_warmup and self.lr_scheduler == "constant":
            raise ValueError("lr_warmup has no effect with lr_scheduler `constant`; set it to `constant_with_warmup`")
        return self


def largest_divisor(number: int, most: int) -> int:
    """The largest divisor of `number` that is at most `most`."""
    return next(size for size in range(min(number, most), 0, -1) if number % size == 0)


class EvalConfig(Section):
    """Held-out accuracy before and after training."""

    source: str | None = None
    """`arithmetic`, `math500` or a .jsonl file; null leaves evaluation out."""
    limit: int | None = Field(default=None, ge=1)
    """At most this many problems, from the start. null: all."""
    exit_rule: ExitRuleConfig = ExitRuleConfig(kind="threshold", value=0.5)
    """How deep a token goes; by default the gate's own exits."""
    gate_temperature: float = Field(default=1.0, gt=0)
    """1 is the gate as the checkpoint has it, whatever it is trained at."""
    kv_rule: Rule | None = None
    """null: as in the rollouts, whose min_depth and max_depth hold here too."""
    max_new_tokens: int | None = Field(default=None, ge=1)
    """null: as in the rollouts."""
    operations: Operations = (2, 3, 4)
    """`arithmetic`: numbers of operations in a problem."""


class RunConfig(Section):
    dir: Path = Path("runs/run")
    """Where the run is written; when that is taken, the next free one of `dir-2`, `dir-3`, ... (not with `--resume`)."""
    seed: Seed = 0
    """Seed of the prompts' order and of every sample."""


class TrainConfig(Section):
    """`ouro-rl train`."""

    model: ModelConfig
    """The policy."""
    data: DataConfig = DataConfig()
    """The prompts to train on."""
    rollout: RolloutConfig = RolloutConfig()
    """How completions are sampled."""
    rewards: RewardsConfig = RewardsConfig()
    """How completions are scored."""
    gate: GateConfig = GateConfig()
    """The exit gate as a policy."""
    trainer: TrainerConfig
    """Updates: sizes, learning rates, clipping, checkpoints."""
    eval: EvalConfig = EvalConfig()
    """Held-out accuracy before and after training."""
    run: RunConfig = RunConfig()
    """Where the run is written, and its seed."""

    @model_validator(mode="after")
    def _fits(self) -> TrainConfig:
        if self.gate.mode == "policy" and self.rollout.exit_rule.kind != "sample":
            raise ValueError(
                "gate.mode `policy` learns from sampled depths, but rollout.exit_rule.kind is "
                f"`{self.rollout.exit_rule.kind}`; set it to `sample`, or gate.mode to `off`"
            )
        target, most = self.gate.target_depth, self.rollout.max_depth
        if target is not None and not self.rollout.min_depth <= target <= (most or target):
            raise ValueError(
                f"gate.target_depth ({target:g}) cannot be met with rollout.min_depth {self.rollout.min_depth} and "
                f"max_depth {most or 'of the model'}; set it between them"
            )
        if (problem := self.rollout.bounds_problem(self.eval.exit_rule)) and self.eval.source is not None:
            raise ValueError(f"eval.exit_rule: {problem}")
        return self
