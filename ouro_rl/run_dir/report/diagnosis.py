"""What the metrics of a run say, in plain words: what is well, and what to look at.

Figures are means over the last tenth of the steps, next to the first tenth where a change matters. The limits below are
rules of thumb: what a person who reads the charts would point at."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from ouro_rl.core.summary_stats import mean
from ouro_rl.run_dir.report.charts import end_means, series
from ouro_rl.run_dir.report.headline import TIMES, accuracy_intervals
from ouro_rl.run_dir.report.record import RunRecord
from ouro_rl.run_dir.report.text import depth_label, escape_text, number, percent, short

NO_SIGNAL = 0.5
"""Share of groups without a signal above which most of the sampling is wasted."""
EASY, HARD = 0.8, 0.2
"""Mean rewards above and below which prompts are called too easy or too hard, where rewards go from 0 to 1."""
ONE_DEPTH = 0.98
"""Share of tokens at one depth from which the gate no longer chooses."""
ENTROPY_LOST = 0.1
"""Part of its first value below which an entropy has collapsed."""
LONGER = 1.5
"""Growth of the mean length that is worth a look."""
CUT_OFF, UNSCORED, CLIPPED = 0.05, 0.01, 0.2
"""Shares of completions cut off or unscored, and of clipped tokens, that are worth a look."""

Kind = Literal["good", "look", "know"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    kind: Kind
    """`good`: as it should be; `look`: probably a problem; `know`: neither."""
    text: str
    """One sentence or two."""


def diagnosis_section(record: RunRecord, title: str = "In plain words") -> str:
    """HTML of the findings; empty before the first step."""
    findings = diagnose(record)
    if not findings:
        return ""
    names = {"good": "Good", "look": "Look at this", "know": "To know"}
    order: list[Kind] = ["look", "good", "know"]
    items = "".join(
        f'<li class="{kind}"><b>{names[kind]}</b><span>{escape_text(finding.text)}</span></li>'
        for kind in order
        for finding in findings
        if finding.kind == kind
    )
    return f'<section class="card findings"><h3>{escape_text(title)}</h3><ul>{items}</ul></section>\n'


def diagnose(record: RunRecord) -> list[Finding]:
    """All findings about a run, in the order of the checks."""
    if not record.rows:
        return []
    ends = Ends(record)
    checks: list[Callable[[RunRecord, Ends], Iterator[Finding]]] = [
        _accuracy, _signal, _depth, _entropy, _length, _cut_off, _unscored, _gap, _staleness, _clipping, _time,
    ]  # fmt: skip
    return [finding for check in checks for finding in check(record, ends)]


class Ends:
    """Means of metrics over the first and the last tenth of the steps."""

    def __init__(self, record: RunRecord):
        self.rows = record.rows

    def of(self, key: str) -> tuple[float, float] | None:
        """(first, last); None if the run has not recorded the metric."""
        values = [value for _, value in series(self.rows, key)]
        return end_means(values) if values else None

    def last(self, key: str) -> float | None:
        found = self.of(key)
        return None if found is None else found[1]


def _accuracy(record: RunRecord, ends: Ends) -> Iterator[Finding]:
    before, after = (number(record.figures.get(f"accuracy_{when}")) for when in ("before", "after"))
    if before is None or after is None:
        return
    points = f"{100 * (after - before):+.1f} points, {percent(before)} to {percent(after)}".replace(
        "-", "\N{MINUS SIGN}"
    )
    intervals = accuracy_intervals(before, after, record.figures)
    if intervals and intervals[0][1] >= intervals[1][0] and intervals[1][1] >= intervals[0][0]:
        yield Finding(kind="know", text=f"Held-out accuracy: {points}; the 95% intervals overlap, so it may be chance.")
    elif after > before:
        yield Finding(kind="good", text=f"Held-out accuracy rose: {points}.")
    else:
        yield Finding(kind="look", text=f"Held-out accuracy fell: {points}.")


def _signal(record: RunRecord, ends: Ends) -> Iterator[Finding]:
    share, reward = ends.last("groups/zero_variance"), ends.last("reward/mean")
    if share is None:
        return
    if share < NO_SIGNAL:
        yield Finding(kind="good", text=f"{percent(1 - share)} of the groups have a signal.")
        return
    why = (
        " and the mean reward is high: harder prompts would teach more"
        if reward is not None and reward > EASY
        else " and the mean reward is low: easier prompts would teach more, or the reward expects another form"
        if reward is not None and reward < HARD
        else ""
    )
    yield Finding(
        kind="look",
        text=f"No signal in {percent(share)} of the groups: their rewards are all equal and teach nothing{why}.",
    )


def _depth(record: RunRecord, ends: Ends) -> Iterator[Finding]:
    shares = {depth: ends.last(f"depth/p{depth}") or 0.0 for depth in range(1, record.max_loops + 1)}
    depth = max(shares, key=lambda key: shares[key], default=0)
    if record.max_loops > 1 and shares[depth] >= ONE_DEPTH and record.setting("rollout.exit_rule.kind") != "fixed":
        text = f"{percent(shares[depth])} of the tokens run {depth_label(depth)}: the exit gate no longer chooses."
        yield Finding(kind="look", text=f"Depth has collapsed. {text}")
    elif (means := ends.of("depth/mean")) is not None:
        yield Finding(kind="know", text=f"Mean depth {means[0]:.2f} to {means[1]:.2f} loops per token.")


def _entropy(record: RunRecord, ends: Ends) -> Iterator[Finding]:
    for key, name, what in (
        ("token/entropy", "Token entropy", "the samples of a group hardly differ, and rewards stop telling them apart"),
        ("gate/entropy", "Gate entropy", "depths hardly vary, and the price has nothing to choose from"),
    ):
        values = ends.of(key)
        if values is not None and values[0] > 0 and values[1] < ENTROPY_LOST * values[0]:
            text = f"{name} has collapsed, {short(values[0])} to {short(values[1])} nats: {what}."
            yield Finding(kind="look", text=text)


def _length(record: RunRecord, ends: Ends) -> Iterator[Finding]:
    lengths = ends.of("completion/length_mean")
    if lengths is None or lengths[0] <= 0 or lengths[1] < LONGER * lengths[0]:
        return
    text = (
        f"Answers grow: {short(lengths[0])} to {short(lengths[1])} tokens ({percent(lengths[1] / lengths[0] - 1)} more)"
    )
    loops = ends.of("compute/loops_per_answer")
    text += f", and an answer takes {short(loops[0])} to {short(loops[1])} loops." if loops else "."
    yield Finding(kind="look", text=text)


def _cut_off(record: RunRecord, ends: Ends) -> Iterator[Finding]:
    share, limit = ends.last("completion/cut_off"), record.setting("rollout.max_new_tokens")
    if share is not None and share >= CUT_OFF:
        at = f" ({limit:,} tokens)" if isinstance(limit, int) else ""
        text = f"{percent(share)} of the completions are cut off at the maximum length{at}, and can hardly be right."
        yield Finding(kind="look", text=text)


def _unscored(record: RunRecord, ends: Ends) -> Iterator[Finding]:
    share = ends.last("reward/unscored")
    if share is not None and share >= UNSCORED:
        text = f"{percent(share)} of the completions could not be scored, and teach nothing; the samples say why."
        yield Finding(kind="look", text=text)


def _gap(record: RunRecord, ends: Ends) -> Iterator[Finding]:
    gaps, compared = ([value for _, value in series(record.rows, f"logp_gap/{key}")] for key in ("max", "compared"))
    cause = "token that the weights in training drew, with keys and values of their own"
    if gaps and max(gaps) == 0:
        where = "at every step" if len(gaps) == len(record.rows) else f"at the {len(gaps)} steps that can compare them"
        yield Finding(kind="good", text=f"Worker and trainer agree to the bit: the log-prob gap is 0 {where}.")
    elif gaps:
        yield Finding(kind="know", text=f"Worker and trainer differ by {max(gaps):.2g} nats at most on a log-prob.")
    elif compared:
        yield Finding(kind="look", text=f"The log-prob gap is not known: no step has had a {cause}.")
    if without := len(record.rows) - len(gaps) if gaps else 0:
        share = f" {percent(mean(compared))} of all tokens could be compared." if compared else ""
        yield Finding(
            kind="know",
            text=f"{without} of {len(record.rows)} steps say nothing of the log-prob gap: they have no {cause}.{share}",
        )


def _staleness(record: RunRecord, ends: Ends) -> Iterator[Finding]:
    ages = [value for _, value in series(record.rows, "staleness/mean")]
    if ages and any(ages):
        share = sum(age > 0 for age in ages) / len(ages)
        yield Finding(
            kind="know",
            text=f"{percent(share)} of the updates use stale rollouts; the mean staleness is {short(mean(ages))}.",
        )


def _clipping(record: RunRecord, ends: Ends) -> Iterator[Finding]:
    for head, name in (("token", "tokens"), ("gate", "decisions of the gate")):
        share = (ends.last(f"clip/{head}_low") or 0.0) + (ends.last(f"clip/{head}_high") or 0.0)
        if share >= CLIPPED:
            text = f"{percent(share)} of the {name} are clipped and have no gradient: the updates are large."
            yield Finding(kind="look", text=text)


def _time(record: RunRecord, ends: Ends) -> Iterator[Finding]:
    spent = {name: sum(value for _, value in series(record.rows, key)) for name, key in TIMES.items()}
    total = sum(spent.values())
    if total > 0:
        shares = sorted(spent.items(), key=lambda entry: -entry[1])
        text = ", ".join(f"{name} {percent(seconds / total)}" for name, seconds in shares if seconds > 0)
        yield Finding(kind="know", text=f"Where the time of a step goes: {text}.")
