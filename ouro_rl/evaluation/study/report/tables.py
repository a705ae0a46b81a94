"""The tables of a study's page, as lines of Markdown."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from ouro_rl.evaluation.study.report.frontier import (
    AtEqualCost,
    Comparison,
    Estimate,
    Outcomes,
    compare,
    curve,
    depth_correlations,
    estimate,
    oracle_ratio,
    router,
    weights,
)
from ouro_rl.evaluation.study.report.measured import Measured
from ouro_rl.evaluation.study.report.targets import SETTLED_UPDATES, target_outcome
from ouro_rl.model.policy.read_out import READ_OUTS
from ouro_rl.run_dir.study_result import RuleFigures

LAST_UPDATES = 10
"""Updates whose mean is the end of a training curve."""
NONE = "-"
MINUS = "\N{MINUS SIGN}"


def served_table(measured: Measured, draws: int) -> Iterator[str]:
    careful = any(
        figures.careful_lines is not None for arm in measured.arms.values() for figures in served_figures(arm)
    )
    oracle = measured.has_oracle
    yield from _head(
        "arm", "seeds", "exit rule", "accuracy", "loops per answer", "loops per token", "tokens per answer",
        "MFLOP per answer", "cut off", "depth and difficulty",
        *(["careful lines"] if careful else []), *(["loops, oracle = 1"] if oracle else []),
    )  # fmt: skip
    for name, arm in measured.arms.items():
        drawn = weights(len(arm.seeds), len(arm.difficulty), draws)
        loops, accuracy = curve(arm, drawn)
        figures = served_figures(arm)
        correlations = [value for value in depth_correlations(arm) if value is not None]
        yield _row(
            name, len(arm.seeds), arm.rules[0],
            _interval(estimate(accuracy[:, 0]), percent), _interval(estimate(loops[:, 0]), "{:.1f}".format),
            f"{statistics.fmean(one.loops_per_token for one in figures):.2f}",
            f"{statistics.fmean(one.tokens_per_answer for one in figures):.1f}",
            f"{statistics.fmean(one.flops_per_answer for one in figures) / 1e6:.1f}",
            percent(statistics.fmean(one.cut_off for one in figures)),
            _span(correlations),
            *([_careful(figures)] if careful else []),
            *([_interval(oracle_ratio(arm, drawn), "{:.2f}".format)] if oracle else []),
        )  # fmt: skip


def comparison_table(measured: Measured, reference: str, draws: int) -> Iterator[str]:
    yield from _head(
        "other arm", "seeds", "accuracy, points", "loops per answer", "points at its loops",
        "points at the reference's loops", "FLOPs", "points at its FLOPs", "points at the reference's FLOPs",
    )  # fmt: skip
    for name, arm in measured.arms.items():
        found = compare(measured.arms[reference], arm, draws) if name != reference else None
        if found is not None:
            yield _comparison_row(name, found)


def _comparison_row(name: str, found: Comparison) -> str:
    return _row(
        name, len(found.seeds), _interval(found.accuracy, _points), *_cost_cells(found.loops), *_cost_cells(found.flops)
    )


def _cost_cells(found: AtEqualCost | None) -> Iterator[str]:
    yield _interval(None if found is None else found.relative, _relative)
    yield _interval(None if found is None else found.at_its, _points)
    yield _interval(None if found is None else found.at_reference, _points)


def router_line(measured: Measured) -> str | None:
    """The best of all arms; None if no arm was measured at every depth that is the difficulty of a problem, or if the
    task does not say what its answers need."""
    if not measured.has_oracle:
        return None
    found = {name: told for name, arm in measured.arms.items() if (told := router(arm)) is not None}
    if not found:
        return None
    name, (accuracy, loops, flops) = max(found.items(), key=lambda item: item[1][0])
    cost = f"{loops:.1f} loops" + ("" if flops is None else f" and {flops / 1e6:.1f} MFLOP")
    return (
        "A router that is told the difficulty k of every problem, and gives all of its tokens k loops, gets "
        f"{percent(accuracy)} at {cost} per answer (with the checkpoints of {name}, at fixed depths).\n"
    )


def difficulty_table(measured: Measured) -> Iterator[str]:
    levels = sorted(
        {int(level) for arm in measured.arms.values() for one in served_figures(arm) for level in one.by_difficulty}
    )
    yield "As served: accuracy and, in parentheses, loops per token and loops per answer; means over seeds.\n"
    yield from _head("arm", *(f"difficulty {level}" for level in levels))
    for name, arm in measured.arms.items():
        cells = []
        for level in levels:
            known = [one.by_difficulty[str(level)] for one in served_figures(arm) if str(level) in one.by_difficulty]
            cells.append(
                f"{percent(_mean(known, 'accuracy'))} ({_mean(known, 'loops_per_token'):.2f}, "
                f"{_mean(known, 'loops_per_answer'):.1f})"
                if any("accuracy" in one for one in known)
                else NONE
            )
        yield _row(name, *cells)


def frontier_table(measured: Measured) -> Iterator[str]:
    """The rules that several arms share, as a table; below it, those that one arm has for itself."""
    arms = measured.arms
    uses = Counter(rule for arm in arms.values() for rule in arm.rules)
    shared = sorted((rule for rule, count in uses.items() if count > 1 or len(arms) == 1), key=_rule_order)
    own: list[str] = []
    yield from _head("arm", *shared)
    for name, arm in arms.items():
        loops, accuracy = curve(arm, weights(len(arm.seeds), len(arm.difficulty), draws=0))
        cells = {
            rule: f"{percent(float(accuracy[0, place]))} ({float(loops[0, place]):.1f})"
            for place, rule in enumerate(arm.rules)
        }
        yield _row(name, *(cells.get(rule, NONE) for rule in shared))
        if alone := sorted((rule for rule in arm.rules if rule not in shared), key=_rule_order):
            own.append(f"- {name}: " + ", ".join(f"{rule} {cells[rule]}" for rule in alone))
    if own:
        yield "\nRules of one arm alone:\n"
        yield from own


def training_table(measured: Measured) -> Iterator[str]:
    yield (
        f"Sampled completions, means over seeds: the first update, and the last {LAST_UPDATES}. The log-prob gap is "
        "the largest between worker and trainer, in nats, over all updates and seeds.\n"
    )
    yield from _head("arm", "updates", "reward", "loops per token", "tokens", "log-prob gap", "minutes per run")
    for name, arm in measured.arms.items():
        records = [result.training for result in arm.results if result.training]
        if not records:
            continue
        gaps = [record["logp_gap_max"] for record in records if record["logp_gap_max"] is not None]
        steps = sorted({record["steps"] for record in records})
        yield _row(
            name,
            " to ".join(map(str, dict.fromkeys((steps[0], steps[-1])))),
            *(_ends(records, metric, digits) for metric, digits in
              (("reward/mean", 2), ("depth/mean", 2), ("completion/length_mean", 1))),
            f"{max(gaps):.1e}" if gaps else NONE,
            f"{statistics.fmean(result.minutes for result in arm.results):.1f}",
        )  # fmt: skip


def target_table(measured: Measured) -> Iterator[str]:
    """Nothing for a study in which no arm has a target."""
    found = {
        name: [outcome for result in arm.results if (outcome := target_outcome(result)) is not None]
        for name, arm in measured.arms.items()
    }
    if not any(found.values()):
        return
    reached = f"mean of the last {SETTLED_UPDATES} updates"
    yield from _head("arm", "seeds", "target", reached, "off by", "free updates", "overshoot")
    for name, outcomes in found.items():
        if outcomes:
            misses = [100 * (outcome.reached / outcome.target - 1) for outcome in outcomes]
            yield _row(
                name, len(outcomes), f"{outcomes[0].target:g}",
                f"{statistics.fmean(outcome.reached for outcome in outcomes):.2f}",
                ", ".join(f"{_signed(miss)}%" for miss in misses),
                ", ".join(str(outcome.opened) for outcome in outcomes),
                ", ".join(percent(outcome.overshoot) for outcome in outcomes),
            )  # fmt: skip


def arms_list(measured: Measured) -> Iterator[str]:
    for name, arm in measured.config.arms.items():
        parts = [f"- **{name}**: {arm.about or 'see its config'}"]
        if arm.start is not None:
            parts.append(f"starts from the checkpoint of {arm.start}")
        if not arm.train:
            parts.append("not trained")
        if arm.marginal_of is not None:
            parts.append(f"with the shares of depths of {arm.marginal_of}")
        yield "; ".join(parts)


def served_figures(arm: Outcomes) -> list[RuleFigures]:
    """As the arm is served, by seed."""
    return [result.served_figures for result in arm.results]


def _mean(records: Sequence[Mapping[str, float]], key: str) -> float:
    return statistics.fmean(record[key] for record in records if key in record)


def _careful(figures: Sequence[RuleFigures]) -> str:
    known = [one.careful_lines for one in figures if one.careful_lines is not None]
    return percent(statistics.fmean(known)) if known else NONE


def _ends(records: Sequence[Mapping[str, Any]], metric: str, digits: int) -> str:
    """`first → last` of a metric, means over seeds."""
    curves = [[value for value in record["curves"].get(metric, []) if value is not None] for record in records]
    curves = [values for values in curves if values]
    if not curves:
        return NONE
    first = statistics.fmean(values[0] for values in curves)
    last = statistics.fmean(statistics.fmean(values[-LAST_UPDATES:]) for values in curves)
    return f"{first:.{digits}f} → {last:.{digits}f}"


def _rule_order(rule: str) -> tuple[int, float]:
    kind, _, value = rule.partition(" ")
    order = ["fixed", "threshold", "sample", "iid", *READ_OUTS]
    return (order.index(kind) if kind in order else len(order), float(value) if value else 0.0)


def percent(share: float) -> str:
    return f"{100 * share:.1f}%"


def _signed(value: float) -> str:
    return f"{value:+.1f}".replace("-", MINUS)


def _relative(share: float) -> str:
    return f"{_signed(100 * share)}%"


def _points(difference: float) -> str:
    return _signed(100 * difference)


def _interval(found: Estimate | None, text: Callable[[float], str]) -> str:
    return NONE if found is None else f"{text(found.value)} [{text(found.low)}, {text(found.high)}]"


def _span(values: Sequence[float]) -> str:
    """The mean over seeds, and the lowest and highest."""
    if not values:
        return NONE
    return f"{statistics.fmean(values):.2f} [{min(values):.2f}, {max(values):.2f}]".replace("-", MINUS)


def _head(*names: str) -> Iterator[str]:
    yield _row(*names)
    yield "| " + " | ".join("---" for _ in names) + " |"


def _row(*cells: Any) -> str:
    return "| " + " | ".join(map(str, cells)) + " |"
