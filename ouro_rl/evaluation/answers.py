"""Graded answers: the lines of `samples.jsonl`, from which every figure of an evaluation is computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from ouro_rl.core.benchmarks import TEST_COLUMNS
from ouro_rl.core.rollout import FinishReason, Prompt, Rollout
from ouro_rl.core.sampling_params import DepthPolicy, ExitRule, SamplingParams
from ouro_rl.model.configuration_ouro import OuroConfig
from ouro_rl.model.flops import answer_flops
from ouro_rl.model.policy.read_out import reads_out
from ouro_rl.model.tokenizer import completion_texts
from rewards.scorer import Scorer
from rewards.spec import RewardSpec
from rewards.verdict import Verdict

GROUPS = ("subject", "level", "difficulty")
"""Columns of problems by which figures are also given."""
GRADER_PROCESSES = 2


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One graded sample."""

    benchmark: str
    row: str
    """Name of the row of the table that it belongs to: the exit rule, and the budget if there are several."""
    problem: int
    """`Prompt.index`: place of the problem in its data."""
    sample: int
    """0, 1, ...: which of the problem's samples."""
    seed: int
    question: str
    """The user's last message."""
    gold: str | None
    """The gold answer; None where tests grade."""
    groups: dict[str, Any] = field(default_factory=dict)
    """The problem's values of the columns in `GROUPS`, where it has them."""
    prompt: str
    """The rendered prompt."""
    completion: str
    """The text that was graded."""
    value: float | None
    """1: right; None: could not be scored."""
    status: str
    """Why, as the reward says it: correct, wrong, no_answer, gold_unparsable, timeout, crash, policy, memory, limit."""
    extracted: str | None
    """The final answer that was found in the completion; None if there is none."""
    detail: str
    """More about the status; empty if there is no more."""
    finish_reason: FinishReason
    prompt_tokens: int
    completion_ids: tuple[int, ...]
    depths: tuple[int, ...]
    """Loops of every completion token."""
    flops: int | None
    """Of the answer and its prompt (`ouro_rl/model/flops.py`). None: the model's shape is not known."""

    @property
    def correct(self) -> bool:
        return self.value == 1.0

    @property
    def key(self) -> tuple[int, int]:
        return self.problem, self.sample

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def of_dict(cls, values: Mapping[str, Any]) -> Answer:
        """Raises TypeError if `values` are not those of `to_dict`."""
        sequences = {name: tuple(values[name]) for name in ("completion_ids", "depths")}
        return cls(**{**values, **sequences})


@dataclass(frozen=True, kw_only=True)
class Budget:
    """A limit of one answer; what is beyond it is cut off."""

    tokens: int | None = None
    loops: int | None = None
    """Of the sum of the depths of an answer."""

    def label(self) -> str:
        parts = [f"{self.tokens:,} tokens"] if self.tokens is not None else []
        return ", ".join(parts + ([f"{self.loops:,} loops"] if self.loops is not None else []))

    def cut(self, rollout: Rollout) -> Rollout:
        """The completion as it would be with this budget: sampling reads only what came before, so a shorter limit
        gives the beginning of the same answer."""
        kept = len(rollout.completion_ids) if self.tokens is None else min(self.tokens, len(rollout.completion_ids))
        if self.loops is not None:
            spent = 0
            for index, depth in enumerate(rollout.depths[:kept]):
                spent += depth
                if spent > self.loops:
                    kept = index
                    break
        if kept == len(rollout.completion_ids):
            return rollout
        return replace(
            rollout,
            completion_ids=rollout.completion_ids[:kept],
            token_logprobs=rollout.token_logprobs[:kept],
            depths=rollout.depths[:kept],
            depth_logprobs=rollout.depth_logprobs[:kept],
            exit_shares=rollout.exit_shares[: kept * len(rollout.exit_shares) // len(rollout.completion_ids)],
            support_sizes=rollout.support_sizes[:kept],
            forced=(min(rollout.forced[0], kept), min(rollout.forced[1], kept)),
            stop_string=None,
            finish_reason="length",
        )


WHOLE = Budget()
"""No limit beyond `max_new_tokens`."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """How the answers of one row come about."""

    benchmark: str
    row: str
    params: SamplingParams
    budget: Budget = WHOLE


LOST = Verdict(value=None, status="crash", detail="its prompt kills the rollout workers")
"""For an answer that there is none of."""


def grade(
    setting: Setting,
    prompts: Sequence[Prompt],
    seeds: Sequence[int],
    rollouts: Sequence[Rollout],
    *,
    tokenizer: Any,
    scorer: Scorer,
    shape: OuroConfig | None,
) -> list[Answer]:
    """The answers of rollouts: prompts[i], its problem, and seeds[i] belong to rollouts[i]."""
    rollouts = [setting.budget.cut(rollout) for rollout in rollouts]
    texts = completion_texts(tokenizer, rollouts)
    names = sorted({name for prompt in prompts for name in prompt.columns})
    columns = {name: [prompt.columns.get(name) for prompt in prompts] for name in names}
    scores = scorer.score([prompt.messages for prompt in prompts], texts, columns)
    rendered = tokenizer.batch_decode([list(prompt.token_ids) for prompt in prompts], skip_special_tokens=False)
    found = []
    for prompt, seed, rollout, text, asked, score in zip(
        prompts, seeds, rollouts, texts, rendered, scores, strict=True
    ):
        (label,) = score.rewards
        verdict = LOST if rollout.finish_reason == "lost" else score.verdicts[label]
        gold = prompt.columns.get("answer")
        found.append(
            Answer(
                benchmark=setting.benchmark,
                row=setting.row,
                problem=prompt.index,
                sample=rollout.sample_index,
                seed=seed,
                question=next((m["content"] for m in reversed(prompt.messages) if m["role"] == "user"), ""),
                gold=None if gold is None else str(gold),
                groups={name: prompt.columns[name] for name in GROUPS if prompt.columns.get(name) is not None},
                prompt=asked,
                completion=text,
                value=verdict.value,
                status=verdict.status,
                extracted=verdict.extracted,
                detail=verdict.detail,
                finish_reason=rollout.finish_reason,
                prompt_tokens=len(rollout.prompt_ids),
                completion_ids=rollout.completion_ids,
                depths=rollout.depths,
                flops=None
                if shape is None
                else rollout_flops(shape, rollout, setting.params.exit_rule, setting.params.depth_policy),
            )
        )
    return found


def rollout_flops(shape: OuroConfig, rollout: Rollout, rule: ExitRule, policy: DepthPolicy) -> int:
    """FLOPs of an answer and its prompt, attention included (`answer_flops`)."""
    most = policy.max_loops(shape.total_ut_steps)
    depths = [most] * len(rollout.depths) if policy.kv_rule.runs_all_loops else rollout.depths
    return answer_flops(shape, len(rollout.prompt_ids), depths, prompt_loops=most, head_every_loop=reads_out(rule))


Kind = Literal["math", "code"]


def kind_of(prompts: Sequence[Prompt]) -> Kind:
    """The reward that grades these problems: `code` where there are tests and no gold answer."""
    columns = prompts[0].columns if prompts else {}
    tests = any(columns.get(name) is not None for name in TEST_COLUMNS)
    return "code" if tests and columns.get("answer") is None else "math"


def answer_scorer(
    tokenizer: Any, prompts: Sequence[Prompt], options: Mapping[str, Mapping[str, Any]] | None = None
) -> Scorer:
    """The scorer of an evaluation: `math`, or `code` where tests grade. If prompts end with `<think>`, only text after
    `</think>` is the answer. `options`: keyword arguments by reward, such as those that training uses."""
    kind = kind_of(prompts)
    thinking = bool(prompts) and tokenizer.decode(prompts[0].token_ids).rstrip().endswith("<think>")
    kwargs = {"thinking": thinking, **(options or {}).get(kind, {})}
    return Scorer([RewardSpec(kind, kwargs=kwargs)], workers=GRADER_PROCESSES)
