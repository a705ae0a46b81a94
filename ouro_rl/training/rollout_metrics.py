"""Metrics of a step's rollouts, as pure functions. Names and units are those of the run directory's `metrics.jsonl`."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from ouro_rl.core.errors import RunError
from ouro_rl.core.rollout import ScoredRollout
from ouro_rl.core.summary_stats import depth_shares, deviation, mean, mean_depth
from ouro_rl.training.signal_watch import Group, has_signal


def rollout_metrics(scored: Sequence[ScoredRollout], max_loops: int, policy_version: int) -> dict[str, float]:
    """The metrics of a step that depend only on its rollouts. The mean of no values is NaN.

    rollout/lost           share of rollouts that do not exist, because their prompts kill workers; what follows is
                           without them
    reward/mean            mean weighted reward of the scored rollouts
    reward/std             standard deviation of those rewards (of the population)
    reward/<name>          mean raw score of that reward function over the rollouts that it scored
    reward/<name>/status/<status>   share of rollouts with this status from that function; absent if it never occurred
    reward/unscored        share of rollouts without a reward
    anytime/reward_<d>     mean reward of the anytime samples of depth d (`rollout.anytime`)
    depth/mean, depth/p1.. loops per completion token; share of completion tokens at each depth; of the completions
                           whose depths the exit rule chose
    staleness/mean         how many policy versions the rollouts are behind `policy_version`, the trainer's
    completion/*           `length_mean`, `length_max` in tokens; `stopped`, `cut_off`, `given_up`: share with finish
                           reason `stop`, `length`, `abort`; `thought_closed`: share whose thought was closed by
                           `rollout.thinking_budget`
    """
    lost = mean(item.rollout.finish_reason == "lost" for item in scored)
    scored = [item for item in scored if item.rollout.finish_reason != "lost"]
    rollouts = [item.rollout for item in scored]
    rewards = [item.reward for item in scored if item.reward is not None]
    metrics = {"rollout/lost": lost, "reward/mean": mean(rewards), "reward/std": deviation(rewards)}
    for name in sorted({name for item in scored for name in item.rewards}):
        metrics[f"reward/{name}"] = mean(value for item in scored if (value := item.rewards.get(name)) is not None)
        counts = Counter(item.statuses[name] for item in scored if name in item.statuses)
        metrics |= {f"reward/{name}/status/{status}": count / len(scored) for status, count in sorted(counts.items())}
    metrics["reward/unscored"] = mean(item.reward is None for item in scored)
    chosen = [rollout.depths for rollout in rollouts if rollout.fixed_depth is None]
    metrics["depth/mean"] = mean_depth(chosen)
    shares = depth_shares((depth for depths in chosen for depth in depths), max_loops)
    metrics |= {f"depth/p{depth}": share for depth, share in enumerate(shares, start=1)}
    for depth in sorted({rollout.fixed_depth for rollout in rollouts if rollout.fixed_depth is not None}):
        metrics[f"anytime/reward_{depth}"] = mean_reward([i for i in scored if i.rollout.fixed_depth == depth])
    metrics["staleness/mean"] = mean(policy_version - rollout.mean_version for rollout in rollouts)
    metrics["completion/length_mean"] = mean(len(rollout.completion_ids) for rollout in rollouts)
    metrics["completion/length_max"] = max((len(rollout.completion_ids) for rollout in rollouts), default=math.nan)
    metrics["completion/stopped"] = mean(rollout.finish_reason == "stop" for rollout in rollouts)
    metrics["completion/cut_off"] = mean(rollout.finish_reason == "length" for rollout in rollouts)
    metrics["completion/given_up"] = mean(rollout.finish_reason == "abort" for rollout in rollouts)
    metrics["completion/thought_closed"] = mean(rollout.forced != (0, 0) for rollout in rollouts)
    return metrics


def zero_variance(groups: Sequence[Group]) -> float:
    """Share of groups without a signal."""
    return mean(not has_signal(group) for group in groups)


def in_flight_metrics(scored: Sequence[ScoredRollout], policy_version: int) -> dict[str, float]:
    """The metrics of a step whose rollouts may have had several weights (`trainer.in_flight`).

    staleness/older_tokens   share of completion tokens that weights older than `policy_version`, the trainer's, drew
    staleness/changed        share of completions under which weights changed
    """
    rollouts = [item.rollout for item in scored if item.rollout.finish_reason != "lost"]
    return {
        "staleness/older_tokens": mean(
            version < policy_version for rollout in rollouts for version in rollout.token_versions
        ),
        "staleness/changed": mean(len(rollout.weight_changes) > 0 for rollout in rollouts),
    }


def mean_reward(scored: Sequence[ScoredRollout]) -> float:
    """Of those with a reward; NaN if there are none."""
    return mean(item.reward for item in scored if item.reward is not None)


def check_unscored(scored: Sequence[ScoredRollout], limit: float) -> None:
    """Raise RunError, with what failed and how often, if more than a share of `limit` has no reward; what is lost is
    left out."""
    scored = [item for item in scored if item.rollout.finish_reason != "lost"]
    share = mean(item.reward is None for item in scored)
    if not share > limit:
        return
    failed = [(item, name) for item in scored for name, value in item.rewards.items() if value is None]
    counts = Counter(f"{name}: {item.statuses[name]}" for item, name in failed)
    why = next((f" ({item.details[name]})" for item, name in failed if name in item.details), "")
    raise RunError(
        f"{share:.0%} of this step's completions could not be scored (limit {limit:.0%}): "
        f"{', '.join(f'{count} x {what}' for what, count in sorted(counts.items()))}{why}.\n"
        "Fix the reward function, or raise rewards.max_unscored"
    )
