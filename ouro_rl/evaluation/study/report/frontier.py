"""Accuracy against compute: means, intervals and paired differences over problems and seeds.

Seeds (training runs) and problems are crossed: every run answers the same problems. The bootstrap draws both, seeds
with replacement and, independently, problems with replacement, and computes every figure anew from the draw; two arms
are compared within the same draws, which makes their difference a paired one. With one seed only problems are drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from ouro_rl.core.summary_stats import rank_correlation
from ouro_rl.model.policy.read_out import READ_OUTS
from ouro_rl.run_dir.study_result import RIGHT, UNSCORED, RuleFigures, StudyResult

DRAWS = 2000
"""Draws of the bootstrap."""
BOOTSTRAP_SEED = 2510
LEVEL = (0.025, 0.975)
"""Quantiles of a 95% interval."""


ROUNDING = 1e-9
"""Relative difference below which two costs are equal."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A figure with its 95% interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Outcomes:
    """All answers of one arm, by seed, exit rule and problem."""

    results: tuple[StudyResult, ...]
    """One per seed, in ascending order; all measured with the same rules and problems."""
    rules: tuple[str, ...]
    """Keys of the rules (see `key_of`); the first is the served one."""

    @cached_property
    def right(self) -> Tensor:
        """1 where the answer is right: fp64 [seeds, rules, problems]."""
        return self._stack(lambda figures: [verdict == RIGHT for verdict in figures.correct])

    @cached_property
    def scored(self) -> Tensor:
        """1 where the answer could be scored: fp64 [seeds, rules, problems]."""
        return self._stack(lambda figures: [verdict != UNSCORED for verdict in figures.correct])

    @cached_property
    def loops(self) -> Tensor:
        """Loops of each answer: fp64 [seeds, rules, problems]."""
        return self._stack(lambda figures: figures.loops)

    @cached_property
    def tokens(self) -> Tensor:
        """Tokens of each answer: fp64 [seeds, rules, problems]."""
        return self._stack(lambda figures: figures.tokens)

    @cached_property
    def flops(self) -> Tensor | None:
        """FLOPs of each answer with its prompt: fp64 [seeds, rules, problems]; None if a result lacks them."""
        if any(figures.flops is None for result in self.results for figures in result.rules):
            return None
        return self._stack(lambda figures: figures.flops)

    @property
    def needed_loops(self) -> tuple[int, ...] | None:
        """Of each answer with every token at the depth that it needs, where the task says it."""
        return self.results[0].needed_loops

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(result.seed for result in self.results)

    @property
    def difficulty(self) -> tuple[int, ...]:
        return self.results[0].difficulty

    @cached_property
    def curve_rules(self) -> list[int]:
        """Places of the rules that make the arm's curve, by their value: those of the served kind if it reads the head,
        else those of Q-exit."""
        figures = by_key(self.results[0])
        kind = figures[self.rules[0]].kind
        kind = kind if kind in READ_OUTS else "threshold"
        values = {key: figures[key].value or 0.0 for key in self.rules if figures[key].kind == kind}
        return [self.rules.index(key) for key in sorted(values, key=lambda key: values[key])]

    def of_seeds(self, seeds: Sequence[int]) -> Outcomes:
        return Outcomes(results=tuple(result for result in self.results if result.seed in seeds), rules=self.rules)

    def _stack(self, row) -> Tensor:
        tables = [by_key(result) for result in self.results]
        return torch.tensor([[row(table[rule]) for rule in self.rules] for table in tables], dtype=torch.float64)


@dataclass(frozen=True, kw_only=True)
class Weights:
    """Draws of the bootstrap, as weights that sum to 1; the first row is the data itself."""

    seeds: Tensor
    """fp64 [1 + draws, seeds]."""
    problems: Tensor
    """fp64 [1 + draws, problems]."""

    def mean(self, values: Tensor) -> Tensor:
        """Weighted means of [seeds, rules, problems]: [1 + draws, rules]."""
        by_seed = torch.einsum("srp,bp->bsr", values, self.problems)
        return torch.einsum("bsr,bs->br", by_seed, self.seeds)


def key_of(figures: RuleFigures) -> str:
    """What a rule is called in all runs of an arm: probabilities of `iid` differ from seed to seed."""
    return figures.kind if figures.kind == "iid" else figures.rule


def by_key(result: StudyResult) -> dict[str, RuleFigures]:
    return {key_of(figures): figures for figures in result.rules}


def outcomes_of(results: Sequence[StudyResult]) -> Outcomes:
    """The outcomes of one arm. Rules that not all of its results have are left out."""
    ordered = sorted(results, key=lambda result: result.seed)
    served = key_of(ordered[0].served_figures)
    shared = [key for key in by_key(ordered[0]) if all(key in by_key(result) for result in ordered)]
    return Outcomes(results=tuple(ordered), rules=tuple(sorted(shared, key=lambda key: key != served)))


def weights(seeds: int, problems: int, draws: int = DRAWS) -> Weights:
    """The same draws for every call with the same sizes."""
    generator = torch.Generator().manual_seed(BOOTSTRAP_SEED)
    return Weights(seeds=_resampled(seeds, draws, generator), problems=_resampled(problems, draws, generator))


def _resampled(count: int, draws: int, generator: torch.Generator) -> Tensor:
    """Shares of `count` items in draws with replacement, below the uniform ones: fp64 [1 + draws, count]."""
    picks = torch.randint(count, (draws, count), generator=generator)
    counts = torch.zeros(draws, count, dtype=torch.float64)
    counts.scatter_add_(1, picks, torch.ones(draws, count, dtype=torch.float64))
    return torch.cat([torch.ones(1, count, dtype=torch.float64), counts]) / count


def estimate(values: Tensor) -> Estimate | None:
    """From a figure in the data and in every draw [1 + draws]; None if it is unknown (NaN) in the data. Draws in which
    it is unknown are left out."""
    if values[0].isnan():
        return None
    low, high = torch.nanquantile(values[1:], torch.tensor(LEVEL, dtype=values.dtype)).tolist()
    return Estimate(value=float(values[0]), low=low, high=high)


def accuracies(outcomes: Outcomes, drawn: Weights) -> Tensor:
    """Of every rule in every draw: [1 + draws, rules]."""
    return drawn.mean(outcomes.right) / drawn.mean(outcomes.scored)


def curve(outcomes: Outcomes, drawn: Weights) -> tuple[Tensor, Tensor]:
    """Loops per answer and accuracy of every rule in every draw: [1 + draws, rules] each."""
    return drawn.mean(outcomes.loops), accuracies(outcomes, drawn)


def interpolate(loops: Tensor, accuracy: Tensor, at: Tensor) -> Tensor:
    """Accuracy at `at` [n] loops per answer, on straight lines between the points [n, points] of each row.

    Beyond its most expensive point a curve stays level: it has that accuracy with fewer loops. Below its cheapest one
    it is unknown: NaN."""
    order = loops.argsort(1)
    x, y = loops.gather(1, order), accuracy.gather(1, order)
    right = torch.searchsorted(x, at.unsqueeze(1).contiguous()).clamp(1, x.shape[1] - 1) if x.shape[1] > 1 else None
    if right is None:
        value = y[:, 0]
    else:
        (x0, x1), (y0, y1) = (
            (part.gather(1, right - 1).squeeze(1), part.gather(1, right).squeeze(1)) for part in (x, y)
        )
        share = ((at - x0) / (x1 - x0).clamp(min=1e-12)).clamp(0, 1)
        value = y0 + share * (y1 - y0)
    value = torch.where(at >= x[:, -1], y[:, -1], value)
    return torch.where(at < x[:, 0] * (1 - ROUNDING), torch.nan, value)


def best_mixture(costs: Tensor, accuracy: Tensor, at: Tensor) -> Tensor:
    """The best accuracy for a mean cost of `at` [n], of the points [n, points] of each row: that of one point, or of
    two between which the problems are shared out at random. A point that is worse than such a mixture changes nothing.

    NaN below the cheapest point."""
    x, y, at = costs, accuracy, at.unsqueeze(1)
    affordable = x <= at * (1 + ROUNDING)
    single = torch.where(affordable, y, -torch.inf).amax(1)
    left, right = (x.unsqueeze(2), y.unsqueeze(2)), (x.unsqueeze(1), y.unsqueeze(1))
    share = (at.unsqueeze(2) - left[0]) / (right[0] - left[0])
    joined = left[1] + share * (right[1] - left[1])
    between = affordable.unsqueeze(2) & ~affordable.unsqueeze(1)
    mixed = torch.where(between, joined, -torch.inf).flatten(1).amax(1)
    best = torch.maximum(single, mixed)
    return torch.where(affordable.any(1), best, torch.nan)


@dataclass(frozen=True, kw_only=True)
class AtEqualCost:
    """The reference against another arm by what an answer costs: its loops, or its FLOPs with those of the prompt."""

    relative: Estimate
    """Cost of the reference relative to the other arm's, minus 1, each under the rule that it is served with; below 0:
    the reference is cheaper."""
    at_its: Estimate | None
    """Difference of accuracies at the cost of the other arm as it is served: the reference's curve, interpolated, minus
    the other arm's accuracy. None where the reference is never so cheap."""
    at_reference: Estimate | None
    """Difference of accuracies at the cost of the reference as it is served: its accuracy minus the best that the other
    arm reaches at that cost under any measured rule or mixture of two (`best_mixture`). None where the other arm is
    never so cheap."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The reference against another arm, over the seeds that both have; differences are reference minus other."""

    seeds: tuple[int, ...]
    accuracy: Estimate
    """Difference of accuracies, each arm under the rule that it is served with."""
    loops: AtEqualCost
    flops: AtEqualCost | None
    """None where results lack them."""


def compare(reference: Outcomes, other: Outcomes, draws: int = DRAWS) -> Comparison | None:
    """None without a seed that both arms have. Raises ValueError if they answered different problems."""
    seeds = tuple(seed for seed in reference.seeds if seed in other.seeds)
    if not seeds:
        return None
    if (reference.difficulty, reference.needed_loops) != (other.difficulty, other.needed_loops):
        raise ValueError("two arms were measured on different problems")
    reference, other = reference.of_seeds(seeds), other.of_seeds(seeds)
    drawn = weights(len(seeds), len(reference.difficulty), draws)
    right = accuracies(reference, drawn), accuracies(other, drawn)
    own = reference.curve_rules or list(range(len(reference.rules)))

    def at_equal(cost: Tensor, other_cost: Tensor) -> AtEqualCost:
        return _at_equal_cost((drawn.mean(cost), right[0]), (drawn.mean(other_cost), right[1]), own)

    flops, other_flops = reference.flops, other.flops
    return Comparison(
        seeds=seeds,
        accuracy=_known(right[0][:, 0] - right[1][:, 0]),
        loops=at_equal(reference.loops, other.loops),
        flops=None if flops is None or other_flops is None else at_equal(flops, other_flops),
    )


def _known(values: Tensor) -> Estimate:
    found = estimate(values)
    assert found is not None
    return found


def _at_equal_cost(reference: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor], own: Sequence[int]) -> AtEqualCost:
    """Of the costs and accuracies of all rules, [1 + draws, rules] each. own: the rules of the reference's curve."""
    (x, y), (other_x, other_y) = reference, other
    return AtEqualCost(
        relative=_known(x[:, 0] / other_x[:, 0] - 1),
        at_its=estimate(interpolate(x[:, own], y[:, own], other_x[:, 0]) - other_y[:, 0]),
        at_reference=estimate(y[:, 0] - best_mixture(other_x, other_y, x[:, 0])),
    )


def oracle_ratio(outcomes: Outcomes, drawn: Weights) -> Estimate | None:
    """Loops as served, relative to an oracle that gives every token the loops that it needs; None where the task does
    not say them."""
    if outcomes.needed_loops is None:
        return None
    oracle = drawn.problems @ torch.tensor(outcomes.needed_loops, dtype=torch.float64)
    return estimate(drawn.mean(outcomes.loops[:, :1])[:, 0] / oracle)


def router(outcomes: Outcomes) -> tuple[float, float, float | None] | None:
    """(accuracy, loops, FLOPs) per answer where every problem of difficulty k is answered at k loops for every token:
    what a router reaches that is told the difficulty; means over seeds. None unless all these depths were measured."""
    levels = torch.tensor(outcomes.difficulty)
    labels = {int(level): f"fixed {level}" for level in levels.unique().tolist()}
    if any(label not in outcomes.rules for label in labels.values()):
        return None
    places = torch.tensor([outcomes.rules.index(labels[level]) for level in levels.tolist()])

    def chosen(values: Tensor) -> Tensor:
        return values.gather(1, places.expand(len(values), 1, -1))[:, 0]

    accuracy = (chosen(outcomes.right).sum() / chosen(outcomes.scored).sum()).item()
    flops = None if outcomes.flops is None else chosen(outcomes.flops).mean().item()
    return accuracy, chosen(outcomes.loops).mean().item(), flops


def depth_correlations(outcomes: Outcomes) -> list[float | None]:
    """For each seed, Spearman's rank correlation of the problems' difficulty with the loops per token of their answers
    as served; None where one of them does not vary."""
    depths = outcomes.loops[:, 0] / outcomes.tokens[:, 0]
    return [rank_correlation(outcomes.difficulty, row) for row in depths.tolist()]
