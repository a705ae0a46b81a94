"""`ouro-rl gate calibrate`: the cheapest Q-exit threshold with a bound on the accuracy that it loses.

For each threshold, the same held-out problems are answered at full depth and with Q-exit, and the difference of the two
accuracies gets a 95% interval for paired proportions (Agresti and Min, 2005: the Wald interval after adding half a
problem to each of the four outcomes). Thresholds are tested from the most cautious down, and testing stops at the first
whose interval exceeds the loss allowed: tested in a fixed order, one after another, no threshold needs a correction for
the others (fixed-sequence testing; arXiv 2110.01052).
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from ouro_rl.config.train import TrainConfig
from ouro_rl.core.atomic_write import write_atomically
from ouro_rl.core.errors import RunError
from ouro_rl.core.sampling_params import ExitRule
from ouro_rl.core.summary_stats import Z_95, loops_per_answer
from ouro_rl.evaluation.under_rules import RuleAnswers, answers_under
from ouro_rl.model.checkpoint import load_model_config

PSEUDO = 0.5
"""Problems added to each outcome (both right, one, the other, neither)."""


@dataclass(frozen=True, kw_only=True)
class ThresholdRow:
    """One threshold against full depth, on the same problems."""

    threshold: float
    accuracy: float
    full_accuracy: float
    loss: float
    """Accuracy lost: full depth minus threshold."""
    loss_low: float
    loss_high: float
    """95% interval of the loss."""
    n: int
    """Problems that could be scored under both."""
    loops_per_answer: float
    full_loops_per_answer: float
    cut_off: float
    """Share of the answers that reached the maximum length."""
    full_cut_off: float


def calibrate(
    config: TrainConfig, model: str, thresholds: Sequence[float], *, max_loss: float, dtype: str, out: Path | None
) -> ThresholdRow:
    """Measure, print, write `out` (JSON) and return the chosen threshold. `max_loss`: allowed loss, a fraction.

    Raises RunError, after writing, if no threshold meets the bound."""
    loops = load_model_config(model).total_ut_steps
    rules = [ExitRule(kind="fixed", value=loops), *(ExitRule(kind="threshold", value=value) for value in thresholds)]
    full, *others = answers_under(config, model, rules, dtype=dtype).rules
    rows = [row_of(full, other) for other in others]
    chosen = choose(rows, max_loss)
    print(table(rows, max_loss))
    if out is not None:
        record = {
            "model": model,
            "benchmark": config.eval.source,
            "max_loss": max_loss,
            "threshold": None if chosen is None else chosen.threshold,
            "rows": [asdict(row) for row in rows],
        }
        write_atomically(out, [json.dumps(record, indent=2), "\n"])
    if chosen is None:
        best = min(rows, key=lambda row: row.loss_high)
        raise RunError(
            f"no threshold loses at most {max_loss:.1%} for certain: with {best.n} problems, threshold "
            f"{best.threshold:g} may lose up to {best.loss_high:.1%};\n"
            "  give more problems, or allow more with --max-loss"
        )
    return chosen


def row_of(full: RuleAnswers, other: RuleAnswers) -> ThresholdRow:
    """The comparison of two rules, over the problems that could be scored under both."""
    pairs = [
        (at_full, at_other)
        for at_full, at_other in zip(full.correct, other.correct, strict=True)
        if at_full is not None and at_other is not None
    ]
    lost, won = pairs.count((True, False)), pairs.count((False, True))
    low, high = paired_interval(lost, won, len(pairs))
    return ThresholdRow(
        threshold=other.rule.level,
        accuracy=sum(at_other for _, at_other in pairs) / len(pairs),
        full_accuracy=sum(at_full for at_full, _ in pairs) / len(pairs),
        loss=(lost - won) / len(pairs),
        loss_low=low,
        loss_high=high,
        n=len(pairs),
        loops_per_answer=loops_per_answer(rollout.depths for rollout in other.rollouts),
        full_loops_per_answer=loops_per_answer(rollout.depths for rollout in full.rollouts),
        cut_off=_cut_off(other),
        full_cut_off=_cut_off(full),
    )


def _cut_off(answers: RuleAnswers) -> float:
    return sum(rollout.finish_reason == "length" for rollout in answers.rollouts) / len(answers.rollouts)


def paired_interval(lost: int, won: int, n: int) -> tuple[float, float]:
    """95% interval of the loss (lost - won) / n, from `lost` problems that only the first of two got right and `won`
    that only the second did."""
    total, lost_, won_ = n + 4 * PSEUDO, lost + PSEUDO, won + PSEUDO
    center = (lost_ - won_) / total
    half = Z_95 * math.sqrt((lost_ + won_) / total - center**2) / math.sqrt(total)
    return center - half, center + half


def choose(rows: Sequence[ThresholdRow], max_loss: float) -> ThresholdRow | None:
    """The lowest threshold down to which every interval stays within `max_loss`; None if the highest does not."""
    chosen = None
    for row in sorted(rows, key=lambda row: -row.threshold):
        if row.loss_high > max_loss:
            break
        chosen = row
    return chosen


def table(rows: Sequence[ThresholdRow], max_loss: float) -> str:
    """The rows as plain text, from the most cautious threshold down."""
    lines = ["threshold   accuracy   accuracy lost, 95% interval   loops per answer   cut off"]
    for row in sorted(rows, key=lambda row: -row.threshold):
        interval = f"{row.loss:+.1%} [{row.loss_low:+.1%}, {row.loss_high:+.1%}]"
        mark = "" if row.loss_high <= max_loss else f"  may lose more than {max_loss:.1%}"
        lines.append(
            f"{row.threshold:>9g}   {row.accuracy:>8.1%}   {interval:>27}   {row.loops_per_answer:>16.1f}   "
            f"{row.cut_off:>7.1%}{mark}"
        )
    first = rows[0]
    full = (
        f"full depth: {first.full_accuracy:.1%}, {first.full_loops_per_answer:.1f} loops per answer, "
        f"{first.full_cut_off:.1%} cut off"
    )
    return "\n".join([f"{first.n} problems, {full}", *lines])


def write_threshold(checkpoint: Path, threshold: float) -> None:
    """Set `early_exit_threshold` in the checkpoint's config.json."""
    file = checkpoint / "config.json"
    values = json.loads(file.read_text(encoding="utf-8"))
    write_atomically(file, [json.dumps(values | {"early_exit_threshold": threshold}, indent=2), "\n"])
