"""The configuration of `ouro-rl warmstart`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from ouro_rl.config.section import Conflict, Section
from ouro_rl.config.train import Hops, Operations, Seed

TaskName = Literal["arithmetic", "function_writing", "hops", "walks"]
CORPUS_KEYS: dict[TaskName, set[str]] = {
    "arithmetic": {"operations", "careful"},
    "function_writing": set(),
    "hops": {"hops"},
    "walks": {"hops"},
}
"""What each task reads of the section `corpus`."""


class ShapeConfig(Section):
    """Shape of a model trained from scratch."""

    hidden_size: int = Field(default=128, ge=8)
    """Width of the hidden states."""
    intermediate_size: int = Field(default=352, ge=8)
    """Width of the MLP."""
    num_hidden_layers: int = Field(default=2, ge=1)
    """Layers, shared by all loops."""
    num_attention_heads: int = Field(default=4, ge=1)
    """Query heads."""
    num_key_value_heads: int | None = Field(default=None, ge=1)
    """Key/value heads. null: as many as query heads."""
    total_ut_steps: int = Field(default=4, ge=1)
    """Number of loops, T."""
    max_position_embeddings: int = Field(default=8192, ge=16)
    """Maximum length of a sequence, in positions."""
    rope_theta: float = Field(default=10_000.0, gt=0)
    """Base of the rotary embedding."""
    initializer_range: float = Field(default=0.06, gt=0)
    """Standard deviation of the initial weights."""

    @model_validator(mode="after")
    def _fits(self) -> ShapeConfig:
        heads, pairs = self.num_attention_heads, self.num_key_value_heads or self.num_attention_heads
        if self.hidden_size % (2 * heads):
            raise Conflict(
                f"hidden_size ({self.hidden_size}) must be an even multiple of num_attention_heads, {heads}",
                "hidden_size",
                "num_attention_heads",
            )
        if heads % pairs:
            text = f"num_attention_heads ({heads}) must be a multiple of num_key_value_heads ({pairs})"
            raise Conflict(text, "num_attention_heads", "num_key_value_heads")
        return self


class CorpusConfig(Section):
    """The demonstrations that a warm start learns from."""

    operations: Operations = (2, 3, 4)
    """`arithmetic`: numbers of operations in a problem."""
    careful: float = Field(default=0.4, ge=0, le=1)
    """`arithmetic`: probability that a line of a demonstration does one operation; otherwise it does two at once."""
    hops: Hops = (1, 2, 3, 4)
    """`hops`: numbers of hops in a problem; `walks`: of the most hops in a step."""


class StageOneConfig(Section):
    """All loops at once: sum_t p_t L_t - beta H(p) (arXiv 2510.25741, Stage I)."""

    steps: int = Field(ge=0)
    """Updates."""
    batch_size: int = Field(default=64, ge=1)
    """Demonstrations in an update."""
    lr: float = Field(default=5e-3, gt=0)
    """Peak learning rate."""
    lr_warmup: int = Field(default=100, ge=0)
    """Updates over which the learning rate rises from 0."""
    weight_decay: float = Field(default=0.01, ge=0)
    """AdamW's weight decay, for weight matrices."""
    beta: tuple[float, float] = (0.1, 0.05)
    """Weight of the entropy at the first and the last step."""


class StageTwoConfig(Section):
    """Only the gate is trained, to exit where another loop does not help (arXiv 2510.25741, Stage II)."""

    steps: int = Field(ge=0)
    """Updates."""
    batch_size: int = Field(default=64, ge=1)
    """Demonstrations in an update."""
    lr: float = Field(default=1e-2, gt=0)
    """Learning rate of the gate."""


class SettlingConfig(Section):
    """Everything but the gate is trained to answer, at depths sampled from the gate, with the `last_exited` cache:
    Stages I and II never see keys of exited tokens."""

    steps: int = Field(default=0, ge=0)
    """Updates."""
    batch_size: int = Field(default=64, ge=1)
    """Demonstrations in an update."""
    lr: float = Field(default=1e-3, gt=0)
    """Learning rate."""


class WarmstartConfig(Section):
    """`ouro-rl warmstart`."""

    task: TaskName = "arithmetic"
    """Task of the demonstrations and of the final evaluation."""
    model: ShapeConfig = ShapeConfig()
    """Shape of the model."""
    corpus: CorpusConfig = CorpusConfig()
    """The demonstrations; a task reads the keys that name it."""
    stage_one: StageOneConfig
    """The paper's Stage I: all loops at once, with the gate."""
    stage_two: StageTwoConfig
    """The paper's Stage II: only the gate."""
    settling: SettlingConfig = SettlingConfig()
    """A stage that the paper does not have: everything but the gate, taught the answer at depths sampled from the
    gate."""
    eval_problems: int = Field(default=500, ge=1)
    """Maximum number of held-out problems in each final evaluation."""
    output: Path
    """Folder for the checkpoint."""
    seed: Seed = 0
    """Seed of initial weights, demonstrations and depths."""

    @model_validator(mode="after")
    def _corpus_is_read(self) -> WarmstartConfig:
        default = CorpusConfig()
        for key in sorted(self.unread_corpus()):
            if getattr(self.corpus, key) != getattr(default, key):
                text = f"the task {self.task} does not use corpus.{key}; leave it out, or set another task"
                raise Conflict(text, "task", f"corpus.{key}")
        return self

    def unread_corpus(self) -> set[str]:
        """The keys of `corpus` that the task does not read."""
        return set(CorpusConfig.model_fields) - CORPUS_KEYS[self.task]
