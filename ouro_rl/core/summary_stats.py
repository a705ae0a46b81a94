"""Means, fractions and confidence intervals."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence

from ouro_rl.core.sampling_params import NO_DEPTH

Z_95 = 1.959963984540054
"""Two-sided 95% quantile of the standard normal distribution."""


def wilson_interval(correct: float, n: int) -> tuple[float, float]:
    """95% Wilson score interval of the proportion `correct / n`, as (low, high) within [0, 1].

    With n = 0 nothing is known: (0, 1). Raises ValueError unless 0 <= correct <= n.
    """
    if not 0 <= correct <= n:
        raise ValueError(f"need 0 <= correct <= n, got correct={correct}, n={n}")
    if n == 0:
        return 0.0, 1.0
    share, z2 = correct / n, Z_95**2
    center = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = Z_95 / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    # At 0 and n the bound equals the proportion exactly; rounding would put it about 1e-17 off.
    low = 0.0 if correct == 0 else center - half
    high = 1.0 if correct == n else center + half
    return low, high


def mean(values: Iterable[float]) -> float:
    """Mean, summed exactly so that it does not depend on the order of rollouts; NaN if empty."""
    values = list(values)
    return math.fsum(values) / len(values) if values else math.nan


def mean_depth(depths: Iterable[Sequence[int]]) -> float:
    """Mean number of loops per token, over all tokens of all completions (not a mean of means); NaN without tokens."""
    return mean(depth for completion in depths for depth in completion if depth != NO_DEPTH)


def loops_per_answer(depths: Iterable[Sequence[int]]) -> float:
    """Mean over completions of the sum of their tokens' depths; NaN without completions."""
    return mean(sum(completion) for completion in depths)


def depth_shares(depths: Iterable[int], max_loops: int) -> list[float]:
    """Fraction of tokens at depths 1, 2, ... `max_loops`; sums to 1. NO_DEPTH is skipped; all NaN without tokens.

    Raises ValueError for a depth outside 1..max_loops.
    """
    counts = Counter(depth for depth in depths if depth != NO_DEPTH)
    if illegal := [depth for depth in counts if not 1 <= depth <= max_loops]:
        raise ValueError(f"depths {sorted(illegal)} are outside 1..{max_loops}")
    total = counts.total()
    return [counts[depth] / total if total else math.nan for depth in range(1, max_loops + 1)]


def deviation(values: Sequence[float]) -> float:
    """Standard deviation of the population, finite for any finite values whose range is; NaN if empty."""
    largest = max((abs(value) for value in values), default=0.0)
    if largest == 0:
        return 0.0 if values else math.nan
    scaled = [value / largest for value in values]  # squares of large values would overflow
    center = mean(scaled)
    return largest * math.sqrt(mean((value - center) ** 2 for value in scaled))


def rank_correlation(xs: Sequence[float], ys: Sequence[float]) -> float | None:
    """Spearman's rank correlation, in [-1, 1]: Pearson's of the ranks, ties sharing their mean rank. None if one of the
    sequences does not vary. Raises ValueError if they differ in length."""
    if len(xs) != len(ys):
        raise ValueError(f"need as many xs as ys, got {len(xs)} and {len(ys)}")
    if len(set(xs)) < 2 or len(set(ys)) < 2:
        return None
    return statistics.correlation(_ranks(xs), _ranks(ys))


def _ranks(values: Sequence[float]) -> list[float]:
    """The mean rank of each value among all, from 1."""
    counts = Counter(values)
    below, ranks = 0, {}
    for value in sorted(counts):
        ranks[value] = below + (counts[value] + 1) / 2
        below += counts[value]
    return [ranks[value] for value in values]
