"""The figures of an evaluation as plain text."""

from __future__ import annotations

from collections.abc import Sequence

from ouro_rl.core.progress import short_number
from ouro_rl.evaluation.by_group import difficulty_table
from ouro_rl.evaluation.rows import EvalRow


def table(rows: Sequence[EvalRow]) -> str:
    """The rows as plain text, one line each; below them what several samples give, and the same by difficulty, level
    and subject, if the problems say theirs."""
    width = max(len("exit rule"), *(len(row.name) for row in rows))
    lines = [f"{'exit rule':<{width}}  accuracy    95% interval   mean depth   mean length   cut off       n"]
    for row in rows:
        interval = f"{row.ci_low:.1%}-{row.ci_high:.1%}"
        note = f"  ({row.unscored} unscored)" if row.unscored else ""
        lines.append(
            f"{row.name:<{width}}  {row.accuracy:>8.1%}  {interval:>14}   {row.mean_depth:>10.2f}"
            f"   {row.mean_length:>11.1f}  {row.cut_off:>8.1%}  {row.n:>6}{note}"
        )
    lines += _samples(rows, width)
    if graded := [(row.name, row.by_difficulty) for row in rows if row.by_difficulty]:
        lines += ["", difficulty_table(graded)]
    for column in rows[0].by_group:
        lines += ["", *_groups(rows, column, width)]
    return "\n".join(lines)


def compute_table(rows: Sequence[EvalRow], seconds: Sequence[float | None]) -> str:
    """What the answers cost: loops, FLOPs and seconds per answer, and per right answer."""
    width = max(len("compute"), *(len(row.name) for row in rows))
    lines = [f"{'compute':<{width}}   loops/answer   FLOP/answer   seconds   loops/right   tokens/right   FLOP/right"]
    for row, spent in zip(rows, seconds, strict=True):
        flops = (_or_dash(row.flops_per_answer), _or_dash(row.flops_per_correct))
        time = "-" if spent is None else f"{spent:.1f}"
        lines.append(
            f"{row.name:<{width}}   {row.loops_per_answer:>12,.1f}   {flops[0]:>11}   {time:>7}"
            f"   {_or_dash(row.loops_per_correct):>11}   {_or_dash(row.tokens_per_correct):>12}   {flops[1]:>10}"
        )
    return "\n".join(lines)


def _or_dash(value: float | None) -> str:
    return "-" if value is None else short_number(value)


def cut_off_note(rows: Sequence[EvalRow], limit: int, key: str) -> str | None:
    """What to know where answers ended at the maximum length of `limit` tokens, which `key` sets; None if none did."""
    most = max(row.cut_off for row in rows)
    if most == 0:
        return None
    return (
        f"{most:.1%} of the answers were cut off at {limit:,} tokens ({key}) and can hardly be right; "
        "a longer limit may give another accuracy"
    )


def _samples(rows: Sequence[EvalRow], width: int) -> list[str]:
    """avg@k is the accuracy; pass@k and maj@k with their intervals."""
    with_several = [row for row in rows if row.pass_at_k]
    if not with_several:
        return []
    names = [f"pass@{k}" for k in with_several[0].pass_at_k] + [f"maj@{with_several[0].samples}"]
    lines = ["", f"{'samples':<{width}}" + "".join(f"{name:>22}" for name in names)]
    for row in with_several:
        found = [*row.pass_at_k.values(), row.majority]
        cells = ["-" if one is None else f"{one.value:.1%} [{one.low:.1%}, {one.high:.1%}]" for one in found]
        lines.append(f"{row.name:<{width}}" + "".join(f"{cell:>22}" for cell in cells))
    return lines


def _groups(rows: Sequence[EvalRow], column: str, width: int) -> list[str]:
    """One line per value of a column: accuracy, and in parentheses loops per answer, under every rule."""
    values = rows[0].by_group[column]
    first = max(len(f"by {column}"), *(len(group.value) for group in values))
    across = max(width + 2, 18)
    lines = [f"{'by ' + column:<{first}}" + "".join(f"{row.name:>{across}}" for row in rows)]
    for index, group in enumerate(values):
        cells = []
        for row in rows:
            found = row.by_group[column][index]
            share = "-" if found.accuracy is None else f"{found.accuracy:.1%}"
            cells.append(f"{share} ({found.loops_per_answer:,.0f})")
        lines.append(f"{group.value:<{first}}" + "".join(f"{cell:>{across}}" for cell in cells))
    return lines
