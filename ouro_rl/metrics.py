"""Numbers about rollouts, as pure functions. Names and units of a step's metrics are those of the run directory."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from ouro_rl.types import NO_DEPTH, ScoredRollout

Z_95 = 1.959963984540054
"""Two-sided 95 % point of the normal distribution."""


def wilson_interval(correct: int, n: int) -> tuple[float, float]:
    """95 % Wilson score interval of the share `correct / n`, as (low, high) within [0, 1].

    With n = 0 nothing is known: (0, 1). Raises ValueError unless 0 <= correct <= n.
    """
    if not 0 <= correct <= n:
        raise ValueError(f"need 0 <= correct <= n, got correct={correct}, n={n}")
    if n == 0:
        return 0.0, 1.0
    share, z2 = correct / n, Z_95**2
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = Z_95 / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    # At 0 and n the bound is exactly the share; rounding would leave it some 1e-17 off.
    low = 0.0 if correct == 0 else centre - half
    high = 1.0 if correct == n else centre + half
    return low, high


def mean_depth(depths: Iterable[Sequence[int]]) -> float:
    """Mean number of loops a token, over all tokens of all completions (not a mean of means); NaN without tokens."""
    return _mean(depth for completion in depths for depth in completion if depth != NO_DEPTH)


def depth_shares(depths: Iterable[int], max_loops: int) -> list[float]:
    """Share of tokens at depth 1, 2, ... `max_loops`; sums to 1. NO_DEPTH is skipped; all NaN without tokens.

    Raises ValueError at a depth outside 1..max_loops.
    """
    counts = Counter(depth for depth in depths if depth != NO_DEPTH)
    if illegal := [depth for depth in counts if not 1 <= depth <= max_loops]:
        raise ValueError(f"depths {sorted(illegal)} are outside 1..{max_loops}")
    total = counts.total()
    return [counts[depth] / total if total else math.nan for depth in range(1, max_loops + 1)]


def rollout_metrics(scored: Sequence[ScoredRollout], max_loops: int, policy_version: int) -> dict[str, float]:
    """The part of a step's metrics that its rollouts alone decide. NaN stands for the mean of nothing.

    reward/mean            mean weighted reward of the scored rollouts
    reward/<name>          mean raw score of that reward function, where it could score
    reward/<name>/status/<status>   share of the rollouts to which that function gave this status; what it never gave is left out
    reward/unscored        share of rollouts without a reward
    depth/mean, depth/p1.. loops a completion token; share of completion tokens at each depth
    groups/zero_variance   share of groups (one prompt_index each) without a signal: all scored rewards equal, or none
    staleness/mean         policy versions between the rollouts and `policy_version`, the trainer's
    completion/*           mean length in tokens; share that ended with a stop token; share that was given up early
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
    metrics["completion/given_up"] = _mean(rollout.finish_reason == "stopped" for rollout in rollouts)
    return metrics


def _mean(values: Iterable[float]) -> float:
    """Mean, summed without rounding so that the order of rollouts does not show; NaN of nothing."""
    values = list(values)
    return math.fsum(values) / len(values) if values else math.nan
