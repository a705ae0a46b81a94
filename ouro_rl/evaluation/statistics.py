"""Statistics of evaluations: estimates from several samples per problem, intervals, and paired comparisons.

The unit is the problem: samples of one problem are not independent, so intervals draw problems, with all their samples
(a cluster bootstrap). Needs numpy alone."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from statistics import NormalDist

import numpy as np

from ouro_rl.core.summary_stats import Z_95, wilson_interval

DRAWS = 2000
"""Draws of the bootstrap."""
SEED = 2510
"""Of the draws: the same data always have the same interval."""
_DRAWN_AT_ONCE = 2**20
"""Counts in a block of draws, which bounds memory: up to 1,000 problems there is one block."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A figure with its 95% interval."""

    value: float
    low: float
    high: float


def pass_at_k(samples: int, correct: int, k: int) -> float:
    """Unbiased estimate of the chance that at least one of k samples is right (arXiv 2107.03374):
    1 - C(samples - correct, k) / C(samples, k), in exact arithmetic, rounded once.

    Raises ValueError unless 0 <= correct <= samples and 1 <= k <= samples."""
    if not (0 <= correct <= samples and 1 <= k <= samples):
        raise ValueError(f"need 0 <= correct <= samples and 1 <= k <= samples, got {correct}, {samples} and k={k}")
    return float(1 - Fraction(math.comb(samples - correct, k), math.comb(samples, k)))


def majority_correct(votes: Sequence[tuple[Hashable, bool]]) -> float:
    """Whether the most frequent answer is right: `votes` holds the answer of every sample that has one, and whether it
    is right. Right answers count as one answer, however they are spelled. Of answers with equally many votes one is
    drawn, so the result may be a fraction; without votes it is 0."""
    counts = Counter(True if right else (False, answer) for answer, right in votes)
    most = max(counts.values(), default=0)
    first = [answer for answer, count in counts.items() if count == most]
    return (True in first) / len(first) if first else 0.0


def clustered_mean(totals: Sequence[float], weights: Sequence[float]) -> Estimate:
    """The mean of all samples, sum of `totals` by sum of `weights`, with the bootstrap interval over problems.

    totals[i], weights[i]: sum of the values of problem i, and the number of its samples. Problems without samples are
    left out. Where all problems have the same mean, draws cannot show any spread; a proportion then has the Wilson
    interval of as many problems, another value its own. Raises ValueError if nothing is left."""
    kept = [(total, weight) for total, weight in zip(totals, weights, strict=True) if weight]
    if not kept:
        raise ValueError("no problem has a sample")
    sums, counts = np.array(kept, dtype=np.float64).T
    value = math.fsum(sums) / math.fsum(counts)
    means = sums / counts
    if np.ptp(means) == 0:
        low, high = wilson_interval(value * len(kept), len(kept)) if value in (0, 1) else (value, value)
        return Estimate(value=value, low=low, high=high)
    low, high = bootstrap_interval(np.stack([sums, counts]), ratio)
    return Estimate(value=value, low=low, high=high)


def ratio(drawn: np.ndarray) -> np.ndarray:
    """The first row of sums by the second: [2, draws] -> [draws]."""
    return drawn[0] / drawn[1]


def bootstrap_interval(values: np.ndarray, statistic=ratio, *, draws: int = DRAWS) -> tuple[float, float]:
    """95% interval of `statistic` of sums over problems, from draws of problems with replacement.

    values: [rows, problems]. `statistic` gets the sums of every draw, [rows, draws], and gives [draws]. The quantiles
    are those of the expanded percentile interval (Hesterberg 2015, doi 10.1080/00031305.2015.1089789), which covers
    what the plain one misses where problems are few. Draws without a value (NaN) are left out."""
    problems = values.shape[1]
    block = max(1, _DRAWN_AT_ONCE // problems)
    parts = [values @ _drawn(problems, start, min(block, draws - start)) for start in range(0, draws, block)]
    sums = np.concatenate(parts, axis=1)
    tail = expanded_tail(problems)
    low, high = np.nanquantile(statistic(sums), [tail, 1 - tail])
    return float(low), float(high)


@lru_cache(maxsize=8)
def _drawn(problems: int, first: int, count: int) -> np.ndarray:
    """How often each problem comes up in `count` draws from number `first` on: [problems, count]."""
    generator = np.random.default_rng((SEED, first))
    picks = generator.integers(problems, size=(count, problems)) + problems * np.arange(count)[:, None]
    return np.bincount(picks.ravel(), minlength=count * problems).reshape(count, problems).T.astype(np.float64)


def expanded_tail(problems: int) -> float:
    """The share of draws on either side of a 95% interval: 2.5%, less where problems are few."""
    if problems < 2:
        return 0.0
    wider = math.sqrt(problems / (problems - 1)) * student_quantile(problems - 1)
    return NormalDist().cdf(-wider)


def student_quantile(freedom: int) -> float:
    """Two-sided 95% quantile of Student's t distribution: exact for 1 and 2 degrees of freedom, else the expansion in
    1 / freedom (Abramowitz and Stegun 26.7.5), within 0.005 of it."""
    if freedom == 1:
        return math.tan(math.pi * 0.475)
    if freedom == 2:
        return 0.95 * math.sqrt(2 / (1 - 0.95**2))
    z, v = Z_95, freedom
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + sum(term / v**power for power, term in enumerate(terms, start=1))


def mcnemar(first_only: int, second_only: int) -> float:
    """Exact two-sided p-value of McNemar's test: `first_only` problems that only the first of two got right, and
    `second_only` that only the second did, are equally likely under the null hypothesis. 1 if there are none."""
    n, fewer = first_only + second_only, min(first_only, second_only)
    tail = sum(math.comb(n, k) for k in range(fewer + 1))
    return min(1.0, float(Fraction(2 * tail, 2**n)))


def paired_difference(first: Sequence[float], second: Sequence[float]) -> Estimate:
    """The mean over problems of second minus first, with its bootstrap interval. The two belong together problem by
    problem. Raises ValueError if there are none or not as many of both."""
    differences = np.array([b - a for a, b in zip(first, second, strict=True)], dtype=np.float64)
    if not len(differences):
        raise ValueError("there is no problem that both have answered")
    value = math.fsum(differences) / len(differences)
    if np.ptp(differences) == 0:
        return Estimate(value=value, low=value, high=value)
    low, high = bootstrap_interval(np.stack([differences, np.ones(len(differences))]))
    return Estimate(value=value, low=low, high=high)
