"""Sampling parameters of rollouts: limits, token filters, exit rule, depth policy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ouro_rl.core.kv_rule import KVRule

NO_DEPTH = 0
"""Padding value for depths; never a valid depth."""


MOST_LOOPS = 64
"""A larger `max_depth` is taken for a typo."""


ExitKind = Literal["sample", "threshold", "fixed", "iid", "confidence", "entropy", "kl", "simulated"]


@dataclass(frozen=True, kw_only=True)
class ExitRule:
    """How a token's depth is chosen: `sample` (sampled from the exit distribution), `threshold` (the first loop whose
    cumulative exit probability reaches `value`: the paper's Q-exit, arXiv 2510.25741), `fixed` (`value` loops), `iid`
    (sampled from `probabilities`, the same for every token: what the gate knows is left out, for comparison);
    `confidence`, `entropy`, `kl`: by the token distribution after each loop (`ouro_rl.model.policy.read_out`).

    `simulated`: the depth is sampled from the gate, but the token is drawn at the last loop, so that its loss is taken
    at a depth that did not make it (the first attempt of arXiv 2510.25741). Needs the KV rule `full`."""

    kind: ExitKind = "sample"
    value: float | None = None
    probabilities: tuple[float, ...] = ()
    """Of depths 1, 2, ...; only for `iid`. They sum to 1."""

    @property
    def level(self) -> float:
        """`value` of a kind that has one: not of `sample`, `iid` and `simulated`."""
        assert self.value is not None, f"an exit rule {self.kind!r} without its value"
        return self.value

    def label(self) -> str:
        if self.probabilities:
            return f"{self.kind} {'/'.join(f'{share:.3g}' for share in self.probabilities)}"
        return self.kind if self.value is None else f"{self.kind} {self.value:g}"


@dataclass(frozen=True, kw_only=True)
class DepthPolicy:
    """Which depths are allowed, and what a depth means for later tokens. Part of the policy: a rollout records it and
    is replayed with it."""

    kv_rule: KVRule = KVRule.LAST_EXITED
    min_depth: int = 1
    """No token exits before this loop: until then it continues with log-probability 0."""
    gate_temperature: float = 1.0
    """The gate's logits are divided by this; above 1, depths come from a flatter distribution
    (`exit_gate.policy_logits`)."""
    exploration: float = 0.0
    """The gate's probability of exiting is mixed with chance: lambda becomes e + (1 - 2 e) lambda."""
    max_depth: int | None = None
    """Every token exits here at the latest, with log-probability 0; prompts run this many loops. None: the loops that
    the model was trained with (`total_ut_steps`); more are allowed."""

    def max_loops(self, trained: int) -> int:
        return trained if self.max_depth is None else self.max_depth


@dataclass(frozen=True, kw_only=True)
class EarlyStop:
    """When to abort a sample. Checked whenever the completion's length is a multiple of `every` tokens; depends only on
    the completion and its log-probs. The sample is aborted if any of the configured tests holds.

    The trainer treats it like a completion cut at the maximum length: graders see what was generated (without an
    answer, it scores accordingly), and every token is replayed and trained on. Its length is shorter than it would have
    been, which matters to rewards that depend on length."""

    every: int = 32
    repeat_window: int | None = None
    """True if the last `repeat_window` tokens are one block of tokens repeated at least twice."""
    min_mean_logprob: float | None = None
    """True if the mean token log-prob of the completion, in nats, is below this."""
    hook: str | None = None
    """Name of a user function: called with the tuples (completion_ids, token_logprobs), it returns whether to abort."""


@dataclass(frozen=True, kw_only=True)
class TokenFilters:
    """Filters of the token distribution. Part of the policy: a rollout records them and is replayed with them
    (`ouro_rl.model.policy.token_distribution`). Order: logit processors, temperature, top-k, top-p, min-p."""

    top_k: int = 0
    """Keep this many of the most likely tokens; 0: all."""
    top_p: float = 1.0
    """Keep the most likely tokens that together have this probability; 1: all."""
    min_p: float = 0.0
    """Keep tokens with at least this fraction of the most likely token's probability; 0: all."""
    logit_processors: tuple[str, ...] = ()
    """Names of user functions, in the order of their application; see `ouro_rl.model.policy.logit_processors`."""

    @property
    def restrict(self) -> bool:
        """Whether tokens can be removed by their rank or probability."""
        return self.top_k > 0 or self.top_p < 1 or self.min_p > 0


@dataclass(frozen=True, kw_only=True)
class StopStrings:
    """Strings that end a completion, and the bytes of every token, since a worker has no tokenizer."""

    strings: tuple[str, ...]
    pieces: tuple[bytes, ...]
    """UTF-8 bytes of each token, by id; see `ouro_rl.model.token_bytes`."""


THOUGHT_END = "</think>"
"""Ends the thought of a Thinking model."""


@dataclass(frozen=True, kw_only=True)
class ThinkingBudget:
    """Closes a thought that is too long: where the first `tokens` tokens of a completion do not contain its end, the
    next ones are `closing_ids`, whatever the policy would draw. The rest is drawn again."""

    tokens: int
    closing_ids: tuple[int, ...]
    end: StopStrings
    """`THOUGHT_END`, and the bytes of every token."""


@dataclass(frozen=True, kw_only=True)
class SamplingParams:
    """Sampling parameters for all completions of one call of the engine."""

    max_new_tokens: int
    temperature: float = 1.0
    """0: greedy; the recorded log-probs are then those of temperature 1."""
    filters: TokenFilters = TokenFilters()
    exit_rule: ExitRule = ExitRule()
    stop_token_ids: tuple[int, ...] = ()
    """A completion ends with the first of these, which is kept as its last token."""
    stop_strings: StopStrings | None = None
    """A completion ends with the token that completes one of these, even if the string ends inside that token."""
    depth_policy: DepthPolicy = DepthPolicy()
    early_stop: EarlyStop | None = None
    thinking_budget: ThinkingBudget | None = None
