"""A scored rollout as a row of rollouts/*.jsonl."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from ouro_rl.core.rollout import Prompt, Rollout, ScoredRollout


def rollout_record(
    scored: ScoredRollout, advantage: float, step: int, tokens: list[str], prompt: Prompt
) -> dict[str, Any]:
    """One row of `rollouts/*.jsonl` (docs/architecture.md, "Run directory"). `tokens` are the texts of the completion's
    tokens; `question` is the user's last message, `answer` the gold answer as text (null: the data has none)."""
    rollout = scored.rollout
    return {
        "step": step,
        "policy_version": rollout.policy_version,
        "token_versions": rollout.token_versions if rollout.weight_changes else (),
        "weight_changes": [asdict(change) for change in rollout.weight_changes],
        "prompt_index": rollout.prompt_index,
        "sample_index": rollout.sample_index,
        "question": question_of(prompt),
        "answer": None if (gold := prompt.columns.get("answer")) is None else str(gold),
        "prompt_ids": rollout.prompt_ids,
        "completion_ids": rollout.completion_ids,
        "depths": rollout.depths,
        "token_logprobs": rollout.token_logprobs,
        "depth_logprobs": rollout.depth_logprobs,
        "exit_probs": exit_probs(rollout),
        "temperature": rollout.temperature,
        "finish_reason": rollout.finish_reason,
        "fixed_depth": rollout.fixed_depth,
        **asdict(rollout.depth_policy),
        **asdict(rollout.filters),
        "support_sizes": rollout.support_sizes,
        "forced": rollout.forced,
        "stop_string": rollout.stop_string,
        "completion": scored.completion,
        "tokens": tokens,
        "rewards": dict(scored.rewards),
        "statuses": dict(scored.statuses),
        "details": dict(scored.details),
        "reward": scored.reward,
        "advantage": advantage,
    }


def exit_probs(rollout: Rollout) -> list[list[float]]:
    """By completion token, the probability with which the gate leaves after loop 1, 2, ..., up to the token's depth, to
    the nearest 255th; [] if the rollout does not say. What is missing to 1 belongs to the loops that did not run."""
    shares, count = rollout.exit_shares, len(rollout.depths)
    loops = len(shares) // count if count else 0
    return [
        [round(share / 255, 3) for share in shares[place * loops :][:depth]]
        for place, depth in enumerate(rollout.depths if shares else ())
    ]


def question_of(prompt: Prompt) -> str:
    """The user's last message; empty if there is none."""
    return next((message["content"] for message in reversed(prompt.messages) if message["role"] == "user"), "")
