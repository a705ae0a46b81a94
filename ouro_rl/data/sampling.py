"""From the `rollout` section of a config to sampling parameters."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ouro_rl.config.rollout import RolloutConfig
from ouro_rl.core.errors import UserError
from ouro_rl.core.sampling_params import THOUGHT_END, SamplingParams, ThinkingBudget
from ouro_rl.model.token_bytes import stop_strings_of
from ouro_rl.model.tokenizer import stop_token_ids

StopKeys = tuple[str, str]
OF_ROLLOUTS: StopKeys = ("rollout.stop_token_ids", "rollout.stop_strings")


def sampling_params(
    rollout: RolloutConfig, tokenizer: Any, keys: StopKeys = OF_ROLLOUTS, eval_length: int | None = None
) -> SamplingParams:
    """The sampling parameters of rollouts. Raises UserError for stop strings that the tokenizer cannot produce and for
    unknown token ids, which errors call by `keys`, and for a thought that leaves no room for an answer. `eval_length`:
    the limit that an evaluation has in place of that of rollouts."""
    budget = thinking_budget(rollout, tokenizer)
    length, key = rollout.max_new_tokens, "rollout.max_new_tokens"
    if eval_length is not None:
        length, key = eval_length, "eval.max_new_tokens, or --max-new-tokens,"
    _require_room_for_answer(budget, length, key)
    return SamplingParams(
        max_new_tokens=length,
        temperature=rollout.temperature,
        filters=rollout.filters(),
        exit_rule=rollout.exit_rule.rule(),
        stop_token_ids=stop_token_ids(tokenizer, rollout.stop_token_ids, keys[0]),
        stop_strings=stop_strings_of(tokenizer, rollout.stop_strings, keys[1]),
        depth_policy=rollout.depth_policy(),
        early_stop=None if rollout.early_stop is None else rollout.early_stop.rule(),
        thinking_budget=budget,
    )


def thinking_budget(rollout: RolloutConfig, tokenizer: Any) -> ThinkingBudget | None:
    """Raises UserError for a closing text that the tokenizer cannot produce."""
    if rollout.thinking_budget is None:
        return None
    ids = tuple(tokenizer(rollout.thinking_closing, add_special_tokens=False)["input_ids"])
    closing = stop_strings_of(tokenizer, (rollout.thinking_closing,), "rollout.thinking_closing")
    assert closing is not None, "made for one string"
    return ThinkingBudget(tokens=rollout.thinking_budget, closing_ids=ids, end=replace(closing, strings=(THOUGHT_END,)))


def _require_room_for_answer(budget: ThinkingBudget | None, max_new_tokens: int, key: str) -> None:
    if budget is not None and budget.tokens + len(budget.closing_ids) >= max_new_tokens:
        raise UserError(
            f"rollout.thinking_budget: {budget.tokens} tokens of thought and {len(budget.closing_ids)} that close it "
            f"leave no room for an answer within {key} ({max_new_tokens}); lower the one or raise the other"
        )
