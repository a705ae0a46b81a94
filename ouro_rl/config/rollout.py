"""The `rollout` section of the configuration: how completions are sampled."""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import Field, model_validator

from ouro_rl.config.section import SHELL_TEXT, Conflict, Section, UserFunction
from ouro_rl.core.engine_config import EngineConfig
from ouro_rl.core.kv_rule import KVRule
from ouro_rl.core.sampling_params import (
    MOST_LOOPS,
    THOUGHT_END,
    DepthPolicy,
    EarlyStop,
    ExitKind,
    ExitRule,
    TokenFilters,
)

DRAWN = ("sample", "iid", "simulated")
"""Exit rules that draw a depth."""
SUM_TOLERANCE = 1e-6
"""Probabilities that were rounded to six digits still sum to 1."""
Rule = Annotated[KVRule, Field(strict=False)]
"""A KV rule, given by its name in a config file."""


class ExitRuleConfig(Section):
    kind: ExitKind = "sample"
    """`sample` samples the depth from the gate; `threshold` is the paper's Q-exit; `fixed` runs `value` loops; `iid`
    samples the depth from `probabilities`, whatever the token. `confidence`, `entropy` and `kl` run the LM head after
    every loop, and exit when the most likely token has a probability of at least `value`, the entropy is at most
    `value` nats, or the KL divergence from the loop before is. `simulated` samples the depth like `sample`, but draws
    the token at the last loop (for comparison; needs kv_rule `full`)."""
    value: float | None = Field(default=None, gt=0)
    """Threshold, number of loops, or nats, by `kind`; not set for `sample`, `iid` and `simulated`."""
    probabilities: tuple[Annotated[float, Field(ge=0, le=1)], ...] = ()
    """`iid`: probabilities of depths 1, 2, ..., which sum to 1."""

    @model_validator(mode="after")
    def _fits(self) -> ExitRuleConfig:
        if self.kind in DRAWN and self.value is not None:
            raise Conflict(f"`{self.kind}` takes no value; leave it out", "kind", "value")
        if self.kind in ("threshold", "confidence") and (self.value is None or self.value > 1):
            raise Conflict(f"`{self.kind}` needs a value in (0, 1]; set it", "kind", "value")
        if self.kind in ("entropy", "kl") and self.value is None:
            raise Conflict(f"`{self.kind}` needs a value, in nats; set it", "kind", "value")
        if self.kind == "fixed" and (self.value is None or self.value != int(self.value)):
            raise Conflict("`fixed` needs a whole number of loops as value; set it", "kind", "value")
        if self.kind != "iid" and self.probabilities:
            text = f"`{self.kind}` takes no probabilities; leave them out, or set kind to `iid`"
            raise Conflict(text, "kind", "probabilities")
        if self.kind == "iid" and abs((total := math.fsum(self.probabilities)) - 1) > SUM_TOLERANCE:
            text = f"`iid` needs probabilities that sum to 1, not to {total:g}; set them"
            raise Conflict(text, "kind", "probabilities")
        return self

    def rule(self) -> ExitRule:
        return ExitRule(kind=self.kind, value=self.value, probabilities=self.probabilities)


class EarlyStopConfig(Section):
    """When to abort a sample: one test that holds is enough. The partial completion is kept, scored and trained on."""

    every: int = Field(default=32, ge=1)
    """The tests run whenever the completion's length is a multiple of this many tokens."""
    repeat_window: int | None = Field(default=None, ge=2)
    """Abort if the last `repeat_window` tokens are one block of tokens repeated at least twice."""
    min_mean_logprob: float | None = Field(default=None, lt=0)
    """Abort if the mean token log-prob of the completion, in nats, is below this."""
    hook: UserFunction | None = None
    """Abort if this function of yours (`module.path:function` or `path/to/file.py:function`), called with
    (completion_ids, token_logprobs), returns true."""

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
    """CPUs that each actor reserves."""
    worker_threads: int | None = Field(default=None, ge=1)
    """Torch threads of each actor. null: one per CPU."""
    worker_gpus: float = Field(default=0, ge=0)
    """GPUs of each actor; a fraction shares one GPU between actors."""
    max_batch: int = Field(default=256, ge=1)
    """Maximum number of sequences decoded at once on one worker."""
    kv_memory_gib: float | None = Field(default=None, gt=0)
    """Memory for keys and values on one worker, in GiB; never exceeded. When it is full, the newest sequences are
    preempted and recomputed later. null: as much as `max_batch` sequences need."""
    prefill_rows: int | None = Field(default=2048, ge=1)
    """Maximum number of prompt positions in one pass on one worker, so that long prompts do not delay decoding. null:
    no limit."""
    exact: bool = True
    """Batch-invariant arithmetic: workers and trainer compute a token to the same bits, whatever else is in the batch,
    wherever there are kernels for it (C for CPUs, in fp32 and bf16; Triton for GPUs). It costs time on CPUs with bf16
    matrix instructions, whose tiles then all have one height, and on GPUs, whose tiles then all have one size."""
    max_new_tokens: int = Field(default=64, ge=1)
    """Maximum length of a completion, in tokens."""
    temperature: float = Field(default=1.0, gt=0)
    """Sampling temperature of tokens. It is part of the policy: it applies in rollouts and in the loss, and so do the
    filters and `logit_processors`."""
    top_k: int = Field(default=0, ge=0)
    """Keep only this many of the most likely tokens (and ties with the last of them); 0: all."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Keep only the most likely tokens that together have this probability; 1: all."""
    min_p: float = Field(default=0.0, ge=0, lt=1)
    """Keep only tokens with at least this fraction of the most likely token's probability; 0: all."""
    logit_processors: tuple[UserFunction, ...] = ()
    """Functions of yours, called in this order before temperature and filters
    (`ouro_rl/model/policy/logit_processors.py`): (logits [n, vocab], the tokens of each row so far) -> logits."""
    stop_token_ids: tuple[Annotated[int, Field(ge=0)], ...] = ()
    """Token ids that end a completion, in addition to the tokenizer's end-of-turn and end-of-text tokens."""
    stop_strings: tuple[Annotated[str, Field(min_length=1), SHELL_TEXT], ...] = ()
    """Strings that end a completion; the two characters `\\n` are a line break. Its last token is the one that
    completes the string; graders see the text up to and including it."""
    exit_rule: ExitRuleConfig = ExitRuleConfig()
    """How the depth of a token is chosen."""
    anytime: tuple[Annotated[int, Field(ge=1, le=MOST_LOOPS)], ...] = ()
    """Depths of the last completions of every group, one each: with `[1, 2, 4]`, three of them run one, two and four
    loops for every token. They train the token head at their depth, and not the gate, so that one checkpoint serves
    every depth; `exit_rule` is for the others."""
    gate_temperature: float = Field(default=1.0, gt=0)
    """Temperature of the exit gate, as part of the policy; above 1, depths are explored more evenly."""
    gate_temperature_end: float | None = Field(default=None, gt=0)
    """Temperature of the exit gate after `gate_temperature_updates`: it moves there from `gate_temperature` in a
    straight line, so that a run can explore first and end with the rule that is served. null: it stays."""
    gate_temperature_updates: int | None = Field(default=None, ge=1)
    """Updates until the gate's temperature is `gate_temperature_end`."""
    exploration: float = Field(default=0.0, ge=0, lt=0.5)
    """Floor of the probabilities of going on and of exiting after a loop, as part of the policy: with 0.02 a token
    always has a chance of 2 % to stop there, and of 2 % to go on."""
    kv_rule: Rule = KVRule.LAST_EXITED
    """What is read from tokens that exited early: `last_exited`, their last keys and values; `skip`, nothing beyond the
    loops they ran. With `full`, every token runs all loops and its depth only selects a state (saves no compute; for
    comparison)."""
    min_depth: int = Field(default=1, ge=1)
    """No token exits before this loop."""
    max_depth: int | None = Field(default=None, ge=1, le=MOST_LOOPS)
    """Maximum number of loops per token; may exceed the number the model was trained with. null: that number."""
    early_stop: EarlyStopConfig | None = None
    """When to abort hopeless samples. null: never."""
    thinking_budget: int | None = Field(default=None, ge=1)
    """A thought that has not ended after this many tokens is closed: `thinking_closing` is appended, and sampling goes
    on behind it. The appended tokens have no token loss. For prompts that open a thought. null: thoughts may be of any
    length."""
    thinking_closing: Annotated[str, SHELL_TEXT] = f"\n{THOUGHT_END}\n\n"
    """Text that closes a thought; the two characters `\\n` are a line break."""

    @model_validator(mode="after")
    def _fits(self) -> RolloutConfig:
        if self.max_depth is not None and self.min_depth > self.max_depth:
            text = f"min_depth ({self.min_depth}) is more than max_depth ({self.max_depth}); lower it"
            raise Conflict(text, "min_depth", "max_depth")
        if problem := self.bounds_problem(self.exit_rule):
            raise Conflict(f"exit_rule: {problem}", "exit_rule", "min_depth", "max_depth")
        if problem := self.anytime_problem():
            raise Conflict(problem, "anytime", "min_depth", "max_depth")
        if (self.gate_temperature_end is None) != (self.gate_temperature_updates is None):
            text = "gate_temperature_end and gate_temperature_updates belong together; set both or neither"
            raise Conflict(text, "gate_temperature_end", "gate_temperature_updates")
        if THOUGHT_END not in self.thinking_closing:
            text = f"thinking_closing does not end a thought; put {THOUGHT_END} into it"
            raise Conflict(text, "thinking_closing")
        if self.exit_rule.kind == "simulated" and not self.kv_rule.runs_all_loops:
            raise Conflict(
                "exit_rule.kind `simulated` draws tokens at the last loop, which every token must run; set kv_rule to "
                "`full`",
                "kv_rule",
                "exit_rule.kind",
            )
        if self.top_k == 1 and self.exit_rule.kind not in DRAWN:
            raise Conflict(
                "top_k 1 makes all completions of a group equal, so that nothing can be learned; raise it, or set "
                "exit_rule.kind to `sample`",
                "top_k",
                "exit_rule.kind",
            )
        return self

    def bounds_problem(self, rule: ExitRuleConfig, trained: int | None = None) -> str | None:
        """Why a rule cannot be met within the depth bounds; None if it can. `trained`: the loops that the model was
        trained with, if they are known."""
        if rule.kind != "fixed":
            return None
        assert rule.value is not None, "ExitRuleConfig requires it"
        return self._outside("`fixed`", rule.value, trained)

    def anytime_problem(self, trained: int | None = None) -> str | None:
        """Why the depths of anytime samples cannot be met; None if they can. `trained` as in `bounds_problem`."""
        problems = (self._outside("anytime", depth, trained) for depth in self.anytime)
        return next((problem for problem in problems if problem), None)

    def _outside(self, what: str, depth: float, trained: int | None) -> str | None:
        most = self.max_depth or trained
        if self.min_depth <= depth <= (most or depth):
            return None
        bounds = f"min_depth ({self.min_depth}) and max_depth ({most or 'of the model'})"
        return f"{what} {depth:g} lies outside rollout's {bounds}; change its value or the bounds"

    def engine(self, dtype: str) -> EngineConfig:
        """`dtype`: the dtype in which the model computes."""
        return EngineConfig(
            dtype=dtype,
            max_batch=self.max_batch,
            kv_memory_gib=self.kv_memory_gib,
            prefill_rows=self.prefill_rows,
            batch_invariant=self.exact,
        )

    def fixed_depths(self, group_size: int) -> tuple[int | None, ...]:
        """Depths of a group's samples, as in `RolloutRequest`: the last ones are anytime samples."""
        if not self.anytime:
            return ()
        return (None,) * (group_size - len(self.anytime)) + self.anytime

    def gate_temperature_at(self, update: int) -> float:
        """Of the rollouts that are sampled for this update, counted from 0, and for those that use them again."""
        end, updates = self.gate_temperature_end, self.gate_temperature_updates
        if end is None or updates is None:
            return self.gate_temperature
        left = max(0.0, 1 - update / updates)
        return left * self.gate_temperature + (1 - left) * end

    def depth_policy(self, update: int = 0) -> DepthPolicy:
        """That of the rollouts that are sampled for this update, counted from 0: of workers and trainer alike."""
        return DepthPolicy(
            kv_rule=self.kv_rule,
            gate_temperature=self.gate_temperature_at(update),
            exploration=self.exploration,
            min_depth=self.min_depth,
            max_depth=self.max_depth,
        )

    def filters(self) -> TokenFilters:
        return TokenFilters(
            top_k=self.top_k, top_p=self.top_p, min_p=self.min_p, logit_processors=self.logit_processors
        )
