"""The configuration of `ouro-rl warmstart`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from ouro_rl.config.section import Section
from ouro_rl.config.train import Operations, Seed

TaskName = Literal["arithmetic", "function_writing"]


class ShapeConfig(Section):
    """Shape of a model made from scratch."""

    hidden_size: int = Field(default=128, ge=8)
    """Width of a state."""
    intermediate_size: int = Field(default=352, ge=8)
    """Width of the MLP."""
    num_hidden_layers: int = Field(default=2, ge=1)
    """Layers, shared by all loops."""
    num_attention_heads: int = Field(default=4, ge=1)
    """Query heads."""
    num_key_value_heads: int | None = Field(default=None, ge=1)
    """Heads of keys and values. null: as many as query heads."""
    total_ut_steps: int = Field(default=4, ge=1)
    """Loops, T."""
    max_position_embeddings: int = Field(default=8192, ge=16)
    """Most positions of a sequence."""
    rope_theta: float = Field(default=10_000.0, gt=0)
    """Base of the rotary embedding."""
    initializer_range: float = Field(default=0.06, gt=0)
    """Standard deviation of the first weights."""

    @model_validator(mode="after")
    def _fits(self) -> ShapeConfig:
        heads, pairs = self.num_attention_heads, self.num_key_value_heads or self.num_attention_heads
        if self.hidden_size % (2 * heads):
            raise ValueError(
                f"hidden_size ({self.hidden_size}) must be an even multiple of num_attention_heads, {heads}"
            )
        if heads % pairs:
            raise ValueError(f"num_attention_heads ({heads}) must be a multiple of num_key_value_heads ({pairs})")
        return self


class CorpusConfig(Section):
    """The arithmetic demonstrations that a warm start learns from."""

    operations: Operations = (2, 3, 4)
    """Numbers of operations in a problem."""
    careful: float = Field(default=0.4, ge=0, le=1)
    """Chance that a line of a demonstration does one operation; otherwise it does two at once."""


class StageOneConfig(Section):
    """All loops at once: sum_t p_t L_t - beta H(p) (arXiv 2510.25741, Stage I)."""

    steps: int = Field(ge=0)
    """Updates."""
    batch_size: int = Field(default=64, ge=1)
    """Demonstrations in an update."""
    lr: float = Field(default=5e-3, gt=0)
    """Learning rate at its peak."""
    lr_warmup: int = Field(default=100, ge=0)
    """Updates over which the learning rate rises from 0."""
    weight_decay: float = Field(default=0.01, ge=0)
    """Of AdamW, for matrices."""
    beta: tuple[float, float] = (0.1, 0.05)
    """Weight of the entropy, from first to last step."""


class StageTwoConfig(Section):
    """The gate alone, towards leaving where another loop does not help (arXiv 2510.25741, Stage II)."""

    steps: int = Field(ge=0)
    """Updates."""
    batch_size: int = Field(default=64, ge=1)
    """Demonstrations in an update."""
    lr: float = Field(default=1e-2, gt=0)
    """Learning rate of the gate."""


class SettlingConfig(Section):
    """The body again, at depths drawn from the gate, with the last-exited cache: stages I and II never saw a frozen key."""

    steps: int = Field(default=0, ge=0)
    """Updates."""
    batch_size: int = Field(default=64, ge=1)
    """Demonstrations in an update."""
    lr: float = Field(default=1e-3, gt=0)
    """Learning rate."""


class WarmstartConfig(Section):
    """`ouro-rl warmstart`."""

    task: TaskName = "arithmetic"
    """What the demonstrations and the figures at the end are about."""
    model: ShapeConfig = ShapeConfig()
    """Shape of the model."""
    corpus: CorpusConfig = CorpusConfig()
    """The demonstrations, for the task `arithmetic` alone."""
    stage_one: StageOneConfig
    """The paper's Stage I: all loops at once, with the gate."""
    stage_two: StageTwoConfig
    """The paper's Stage II: the gate alone."""
    settling: SettlingConfig = SettlingConfig()
    """A stage beyond the paper's: the body at depths drawn from the gate."""
    eval_problems: int = Field(default=500, ge=1)
    """Held-out problems in each of the figures at the end, at most."""
    output: Path
    """Folder of the checkpoint."""
    seed: Seed = 0
    """Seed of weights, demonstrations and depths."""

    @model_validator(mode="after")
    def _corpus_is_read(self) -> WarmstartConfig:
        if self.task != "arithmetic" and self.corpus != CorpusConfig():
            raise ValueError(f"corpus is not read by the task {self.task}; leave it out, or set task: arithmetic")
        return self
