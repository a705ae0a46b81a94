"""`ouro-rl reward test`: runs one reward on a file and prints the verdict and time of each item."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from rewards.grade import read_rows, required_fields, score_rows
from rewards.scorer import Scorer
from rewards.spec import RewardSpec
from rewards.verdict import Verdict

_WIDTH = 60


def try_reward(
    spec: RewardSpec, path: Path, *, batch: int = 1, workers: int = 1, timeout_s: float = 10.0, limit: int | None = None
) -> Iterator[str | Verdict]:
    """Yields lines to print as they are ready, each after its verdict. `batch`: items per call of a function that takes
    a batch; 1 attributes every error to its item. Raises UserError as `grade_file` does."""
    rows = read_rows(path, required_fields(spec))[:limit]
    with Scorer([spec], workers=workers, timeout_s=timeout_s) as scorer:
        yield f"{'row':>6}  {'value':>8}  {'status':<14}  {'ms':>8}  answer or reason"
        for start in range(0, len(rows), batch):
            for offset, score in enumerate(score_rows(scorer, rows[start : start + batch], start + 1)):
                verdict = score.verdicts[spec.label]
                yield verdict
                yield line_of(start + offset + 1, verdict)


def line_of(row: int, verdict: Verdict) -> str:
    """The printed line of one item."""
    value = "-" if verdict.value is None else f"{verdict.value:.4g}"
    text = " ".join((verdict.detail or verdict.extracted or "").split())
    text = text if verdict.status in ("crash", "timeout") or len(text) <= _WIDTH else text[:_WIDTH] + "..."
    return f"{row:>6}  {value:>8}  {verdict.status:<14}  {verdict.ms:>8.2f}  {text}".rstrip()


def summary_of(name: str, verdicts: Sequence[Verdict]) -> str:
    """Summary of all items."""
    values = [verdict.value for verdict in verdicts if verdict.value is not None]
    times = sorted(verdict.ms for verdict in verdicts)
    counts = Counter(verdict.status for verdict in verdicts)
    mean = f"{sum(values) / len(values):.4f}" if values else "-"
    return (
        f"{name}: {len(verdicts)} items, {len(values)} scored, mean {mean}\n"
        f"statuses: {', '.join(f'{status} {count}' for status, count in counts.most_common())}\n"
        f"ms per item: median {times[len(times) // 2]:.2f}, "
        f"p99 {times[min(len(times) - 1, len(times) * 99 // 100)]:.2f}, max {times[-1]:.2f}"
    )
