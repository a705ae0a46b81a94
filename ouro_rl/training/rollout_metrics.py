"""Numbers about rollouts, as pure functions. Names and units of a step's metrics are those of the run directory."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

from ouro_rl.core.rollout import ScoredRollout
from ouro_rl.core.summary_stats import _mean, depth_shares, mean_depth


def rollout_metrics(scored: Sequence[ScoredRollout], max_loops: int, policy_version: int) -> dict[str, float]:
    """The part of a step's metrics that its rollouts alone decide. NaN stands for the mean of nothing.

    reward/mean            mean weighted reward of the scored rollouts
    reward/<name>          mean raw score of that reward function, where it could score
    reward/<name>/status/<status>   share of the rollouts to which that function gave this status; what it never gave is left out
    reward/unscored        share of rollouts without a reward
    depth/mean, depth/p1.. loops a completion token; share of completion tokens at each depth
    groups/zero_variance   share of groups (one prompt_index each) without a signal: all scored rewards equal, or none
    staleness/mean         policy versions between the rollouts and `policy_version`, the trainer's
    completion/*           `length_mean` in tokens; `stopped` and `given_up`: share with the finish reason `stop`, and `abort`
    """
    rollouts = [item.rollout for item in scored]
    groups: dict[int, set[float]] = defaultdict(set)
    for item in scored:
        groups[item.rollout.prompt_index].update([] if item.reward is None else [item.reward])

    metrics = {"reward/mean": _mean(item.reward for item in scored if item.reward is not None)}
    for name in sorted({name for item in scored for name in item.rewards}):
        metrics[f"reward/{name}"] = _mean(value for item in scored if (value := item.rewards.get(name)) is not None)
        counts = Counter(item.statuses[name] for item in scored if name in item.statuses)
        metrics |= {f"reward/{name}/status/{status}": count / len(scored) for status, count in sorted(counts.items())}
    metrics["reward/unscored"] = _mean(item.reward is None for item in scored)
    metrics["depth/mean"] = mean_depth(rollout.depths for rollout in rollouts)
    shares = depth_shares((depth for rollout in rollouts for depth in rollout.depths), max_loops)
    metrics |= {f"depth/p{depth}": share for depth, share in enumerate(shares, start=1)}
    metrics["groups/zero_variance"] = _mean(len(rewards) <= 1 for rewards in groups.values())
    metrics["staleness/mean"] = _mean(policy_version - rollout.policy_version for rollout in rollouts)
    metrics["completion/length_mean"] = _mean(len(rollout.completion_ids) for rollout in rollouts)
    metrics["completion/stopped"] = _mean(rollout.finish_reason == "stop" for rollout in rollouts)
    metrics["completion/given_up"] = _mean(rollout.finish_reason == "abort" for rollout in rollouts)
    return metrics
