"""The part of the configuration that says how completions are sampled, and the base of every section."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from ouro_rl.config.section import Section, UserFunction
from ouro_rl.core.engine_config import EngineConfig
from ouro_rl.core.kv_rule import KVRule
from ouro_rl.core.sampling_params import MOST_LOOPS, DepthPolicy, EarlyStop, ExitRule, TokenFilters

Rule = Annotated[KVRule, Field(strict=False)]
"""A file has the rule's name."""


class ExitRuleConfig(Section):
    kind: Literal["sample", "threshold", "fixed"] = "sample"
    """`sample` draws the depth from the gate; `threshold` is the paper's Q-exit; `fixed` runs `value` loops."""
    value: float | None = Field(default=None, gt=0)
    """Threshold in (0, 1] or number of loops; none for `sample`."""

    @model_validator(mode="after")
    def _fits(self) -> ExitRuleConfig:
        if self.kind == "sample" and self.value is not None:
            raise ValueError("`sample` takes no value")
        if self.kind == "threshold" and (self.value is None or self.value > 1):
            raise ValueError("`threshold` needs a value in (0, 1]")
        if self.kind == "fixed" and (self.value is None or self.value != int(self.value)):
            raise ValueError("`fixed` needs a whole number of loops as value")
        return self

    def rule(self) -> ExitRule:
        return ExitRule(kind=self.kind, value=self.value)


class EarlyStopConfig(Section):
    """When to give a sample up: any of the tests that are set is enough. The completion is kept, scored and trained on as it is."""

    every: int = Field(default=32, ge=1)
    """The tests are made each time the completion has a multiple of this many tokens."""
    repeat_window: int | None = Field(default=None, ge=2)
    """The last so many tokens are one block of tokens, twice or more."""
    min_mean_logprob: float | None = Field(default=None, lt=0)
    """The mean token log-prob of the completion, in nats, is below this."""
    hook: UserFunction | None = None
    """A function of yours (`module.path:function` or `path/to/file.py:function`), called with (completion_ids, token_logprobs)."""

    @model_validator(mode="after")
    def _fits(self) -> EarlyStopConfig:
        if self.repeat_window is self.min_mean_logprob is self.hook is None:
            raise ValueError("sets no test; set repeat_window, min_mean_logprob or hook, or leave early_stop out")
        return self

    def rule(self) -> EarlyStop:
        return EarlyStop(**self.model_dump())


class RolloutConfig(Section):
    workers: int = Field(default=0, ge=0)
    """Ray rollout actors; 0 samples in the trainer's process."""
    worker_cpus: float = Field(default=1, gt=0)
    """CPUs of each actor: one torch thread per CPU."""
    worker_gpus: float = Field(default=0, ge=0)
    """GPUs of each actor; a fraction shares one."""
    max_batch: int = Field(default=256, ge=1)
    """Sequences alive at once on one worker, at most."""
    kv_memory_gib: float | None = Field(default=None, gt=0)
    """Memory for keys and values on one worker, in GiB: kept for any load. When it is full the last sequences wait and are computed
    again. null: as much as `max_batch` sequences need."""
    prefill_rows: int | None = Field(default=2048, ge=1)
    """Prompt positions in one pass on one worker, at most, so that long prompts do not hold up those that decode. null: all."""
    exact: bool = True
    """Workers and trainer compute a token in the same way to the bit, whatever its company, where there are kernels for it (in C for the
    CPU, fp32 and bf16; in Triton for GPUs). It costs time where bf16 products are instructions of the CPU, which then get tiles of one
    height, and on GPUs, whose products then get tiles of one size."""
    max_new_tokens: int = Field(default=64, ge=1)
    """The longest completion, in tokens."""
    temperature: float = Field(default=1.0, gt=0)
    """Of the tokens, as a policy: in rollouts and in the loss, as all that follows down to `logit_processors`."""
    top_k: int = Field(default=0, ge=0)
    """Only this many of the most likely tokens (and ties with the last of them); 0: all."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Only the most likely tokens that together have this probability; 1: all."""
    min_p: float = Field(default=0.0, ge=0, lt=1)
    """Only tokens with this share of the most likely one's probability; 0: all."""
    logit_processors: tuple[UserFunction, ...] = ()
    """Functions of yours, called first to last before temperature and filters (see `ouro_rl/policy/logit_processors.py`):
    (logits [n, vocab], the tokens of each row so far) -> logits."""
    stop_token_ids: tuple[Annotated[int, Field(ge=0)], ...] = ()
    """Ids that end a completion, beside the tokenizer's end of turn and end of text."""
    stop_strings: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    """Texts that end a completion: its last token is the one that completes the text, and what graders see ends with it."""
    exit_rule: ExitRuleConfig = ExitRuleConfig()
    """How deep a token goes."""
    gate_temperature: float = Field(default=1.0, gt=0)
    """Of the exit gate, as a policy: above 1 depths are explored more evenly."""
    kv_rule: Rule = KVRule.LAST_EXITED
    """What is read of tokens that left early: `last_exited` their last keys and values, `skip` nothing beyond the loops that they
    ran; with `full` every token runs all loops and its depth only picks a state (saves nothing, for comparison)."""
    min_depth: int = Field(default=1, ge=1)
    """The gate is not asked before this loop."""
    max_depth: int | None = Field(default=None, ge=1, le=MOST_LOOPS)
    """Most loops of a token; may be more than the model was trained with. null: as many as those."""
    early_stop: EarlyStopConfig | None = None
    """When to give hopeless samples up. null: never."""

    @model_validator(mode="after")
    def _fits(self) -> RolloutConfig:
        if self.max_depth is not None and self.min_depth > self.max_depth:
            raise ValueError(f"min_depth ({self.min_depth}) is more than max_depth ({self.max_depth}); lower it")
        if problem := self.bounds_problem(self.exit_rule):
            raise ValueError(f"exit_rule: {problem}")
        return self

    def bounds_problem(self, rule: ExitRuleConfig) -> str | None:
        """Why a rule cannot be met within the depth bounds, as far as it is known without the model."""
        if rule.kind != "fixed" or self.min_depth <= rule.value <= (self.max_depth or rule.value):
            return None
        bounds = f"min_depth ({self.min_depth}) and max_depth ({self.max_depth or 'of the model'})"
        return f"`fixed` {rule.value:g} lies outside of rollout's {bounds}; change its value or the bounds"

    def engine(self, dtype: str) -> EngineConfig:
        """`dtype` is the model's, in which it computes."""
        return EngineConfig(
            dtype=dtype,
            max_batch=self.max_batch,
            kv_memory_gib=self.kv_memory_gib,
            prefill_rows=self.prefill_rows,
            exact=self.exact,
        )

    def depth_policy(self) -> DepthPolicy:
        return DepthPolicy(
            kv_rule=self.kv_rule,
            gate_temperature=self.gate_temperature,
            min_depth=self.min_depth,
            max_depth=self.max_depth,
        )

    def filters(self) -> TokenFilters:
        return TokenFilters(
            top_k=self.top_k, top_p=self.top_p, min_p=self.min_p, logit_processors=self.logit_processors
        )
