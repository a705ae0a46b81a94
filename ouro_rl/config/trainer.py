"""The section `trainer` of `ouro-rl train`."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field, model_validator

from ouro_rl.config.section import Conflict, Section

BATCH_KEYS = ("prompts_per_step", "group_size", "micro_batch")
"""The keys of `trainer` that must divide one another."""


class TrainerConfig(Section):
    steps: int | None = Field(default=None, ge=1)
    """Optimizer updates; either this or `epochs` must be set."""
    epochs: float | None = Field(default=None, gt=0)
    """Passes through the prompts, instead of `steps`; the number of updates is rounded up."""
    prompts_per_step: int = Field(default=16, ge=1)
    """Prompts (groups) per update, over all devices."""
    group_size: int = Field(default=8, ge=2)
    """Completions per prompt: a group needs at least 2 completions to compare."""
    refill: int = Field(default=0, ge=0)
    """Rounds in which groups without variance, whose rewards are all equal, are replaced by further prompts before the
    update; what still has none after the last round stays. 0: none."""
    micro_batch: int = Field(default=64, ge=1)
    """Completions per forward and backward pass on one device."""
    updates_per_batch: int = Field(default=1, ge=1)
    """Optimizer updates per batch of rollouts (TRL's num_iterations)."""
    max_staleness: int = Field(default=0, ge=0)
    """How many policy versions (updates) the rollouts of a batch may be behind the trainer when it first uses them.
    0: on-policy, sampling and updates in turns. From `updates_per_batch` on, the next batches are sampled while the
    trainer updates: `max_staleness / updates_per_batch` of them, rounded down. Needs `rollout.workers`."""
    in_flight: Literal["keep", "recompute"] | None = None
    """New weights reach the workers while samples are under way, and draw their further tokens. The keys and values of
    the tokens before are kept, or computed anew. Rollouts are less stale, but no seed repeats such a run: which weights
    draw which token depends on the clock, and is recorded. Needs `max_staleness`. null: a sample ends with the weights
    that began it."""
    lr: float = Field(default=1e-6, ge=0)
    """Learning rate of everything but the gate."""
    lr_scheduler: Literal["constant", "linear", "cosine", "constant_with_warmup"] = "constant"
    """Schedule of the learning rates."""
    lr_warmup: int = Field(default=0, ge=0)
    """Updates over which the learning rate rises to its peak, in equal steps; the first is not 0."""
    weight_decay: float = Field(default=0.0, ge=0)
    """AdamW's weight decay, for all weight matrices but the gate's."""
    adam_beta2: float = Field(default=0.999, gt=0, lt=1)
    """AdamW's beta2, the decay of the second moment."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    """The gradient of everything but the gate is clipped to this norm."""
    loss_type: Literal["grpo", "dr_grpo", "dapo", "bnpo"] = "dapo"
    """How token losses are averaged, named as in TRL: see `ouro_rl/training/objective/losses.py`."""
    mask_truncated: bool = False
    """Leave completions that did not end by themselves (cut off at `max_new_tokens`, or given up) out of the loss and
    its denominators. They stay in the mean of their group."""
    credit: Literal["sampled", "rao_blackwell", "rltt_uniform", "rltt_progressive", "rltt_exit"] = "sampled"
    """The loops that a token's advantage goes to: the one that was sampled, or, in probed samples (`gate.probe_share`),
    all of them, by their posterior or by one of RLTT's weights."""
    scale_rewards: Literal["group", "batch", "none"] = "group"
    """Divide advantages by the standard deviation of the group's or the batch's rewards, or not at all."""
    clip_low: float = Field(default=0.2, gt=0, lt=1)
    """Importance ratios of tokens are clipped at 1 - `clip_low`."""
    clip_high: float = Field(default=0.28, gt=0)
    """Importance ratios of tokens are clipped at 1 + `clip_high`."""
    importance: Literal["token", "sequence"] = "token"
    """The joint importance ratio of depth and token, by which both heads' losses are weighted where a batch is not
    fresh: of each token, or of its whole completion (not with credit that is spread over all loops)."""
    importance_cap: float = Field(default=2.0, ge=1)
    """What that joint ratio adds to a head's own is truncated here."""
    logp_gap_limit: float | None = Field(default=None, gt=0)
    """The run stops if the largest log-prob gap between worker and trainer, in nats, exceeds this. null: 1e-3 in fp32,
    1 in bf16."""
    checkpoint_every: int = Field(default=25, ge=1)
    """Updates between two checkpoints."""
    keep_checkpoints: int = Field(default=2, ge=1)
    """Number of checkpoints to keep; older ones are deleted."""

    @property
    def completions(self) -> int:
        """Completions per update, over all devices."""
        return self.prompts_per_step * self.group_size

    @property
    def updates(self) -> int:
        """Optimizer updates of the run, once `with_steps` has derived them from `epochs`."""
        assert self.steps is not None, "with_steps comes first"
        return self.steps

    def with_steps(self, prompts: int) -> TrainerConfig:
        """The same with `steps` instead of `epochs`, for this many prompts."""
        if self.epochs is None:
            return self
        batches = math.ceil(self.epochs * (prompts // self.prompts_per_step))
        return self.model_copy(update={"steps": max(1, batches * self.updates_per_batch), "epochs": None})

    @model_validator(mode="after")
    def _fits(self) -> TrainerConfig:
        if self.completions % self.micro_batch:
            raise Conflict(
                f"prompts_per_step ({self.prompts_per_step}) x group_size ({self.group_size}) = {self.completions} "
                f"completions do not divide into micro batches of {self.micro_batch}; "
                f"set micro_batch to {largest_divisor(self.completions, self.micro_batch)}",
                *BATCH_KEYS,
            )
        if (self.steps is None) == (self.epochs is None):
            raise Conflict(
                "trainer.steps is missing; set it, or trainer.epochs (a config that only changes keys of another one "
                "goes after it on the command line)"
                if self.steps is None
                else "trainer.steps and trainer.epochs are both set; set one of them to null",
                "steps",
                "epochs",
            )
        if 0 < self.max_staleness < self.updates_per_batch:
            raise Conflict(
                f"max_staleness ({self.max_staleness}) is less than updates_per_batch ({self.updates_per_batch}); no "
                f"batch could be sampled ahead: set it to 0 or to {self.updates_per_batch}",
                "max_staleness",
                "updates_per_batch",
            )
        if self.in_flight is not None and not self.max_staleness:
            raise Conflict(
                f"in_flight `{self.in_flight}` changes weights under samples, but at max_staleness 0 none is under way "
                "when there are new ones: set max_staleness to 1 or more, or in_flight to null",
                "in_flight",
                "max_staleness",
            )
        if self.lr_warmup and self.lr_scheduler == "constant":
            raise Conflict(
                "lr_warmup has no effect with lr_scheduler `constant`; set it to `constant_with_warmup`",
                "lr_warmup",
                "lr_scheduler",
            )
        return self


def largest_divisor(number: int, most: int) -> int:
    """The largest divisor of `number` that is at most `most`."""
    return next(size for size in range(min(number, most), 0, -1) if number % size == 0)
