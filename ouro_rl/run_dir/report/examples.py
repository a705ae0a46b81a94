"""The report's example rollouts: some of the first step next to some of the last, with tokens colored by depth."""

from __future__ import annotations

from html import escape
from typing import Any

from ouro_rl.run_dir.report.charts import number
from ouro_rl.run_dir.run_dir import RunDir

_SAMPLES = 3
_MAX_TOKENS_SHOWN = 600
_MAX_CHARACTERS_SHOWN = 3000

Row = dict[str, Any]


def examples_section(run: RunDir, max_loops: int) -> str:
    """HTML of the section, also if there are no rollouts yet."""
    steps = run.rollout_steps()
    if not steps:
        return '<h2>Examples</h2>\n<p class="muted">No rollouts yet.</p>\n'
    shown = [(step, _pick(list(run.read_rollouts(step)))) for step in dict.fromkeys((steps[0], steps[-1]))]
    columns = "".join(
        f'<section class="card"><h3>Step {step:,}</h3>{"".join(_sample(record) for record in records)}</section>'
        for step, records in shown
    )
    legend = "".join(f'<li class="d{depth}">{depth_label(depth)}</li>' for depth in range(1, max_loops + 1))
    colored = max_loops > 0 and any(_tokens(record) for _, records in shown for record in records)
    how = " Each token is colored by its depth, the number of loops it ran." if colored else ""
    return (
        "<h2>Examples</h2>\n<p>The best, the median and the worst reward of the first and of the last step."
        f"{how}</p>\n"
        + (f'<ul class="legend" aria-label="Depth of a token">{legend}</ul>' if colored else "")
        + f'<div class="grid">{columns}</div>\n'
    )


def _pick(records: list[Row]) -> list[Row]:
    """Best, median and worst by total reward: a fixed choice that favors neither end of the run."""
    ranked = sorted(records, key=_total_reward, reverse=True)
    if len(ranked) <= _SAMPLES:
        return ranked
    return [ranked[place * (len(ranked) - 1) // (_SAMPLES - 1)] for place in range(_SAMPLES)]


def _total_reward(record: Row) -> float:
    rewards = record.get("rewards")
    return sum(number(value) or 0.0 for value in rewards.values()) if isinstance(rewards, dict) else 0.0


def _sample(record: Row) -> str:
    rewards = record.get("rewards")
    rewards = rewards if isinstance(rewards, dict) else {}
    facts = [f"{name} {'unscored' if number(value) is None else f'{value:g}'}" for name, value in rewards.items()]
    if (advantage := number(record.get("advantage"))) is not None:
        facts.append(f"advantage {advantage:+.2f}".replace("-", "\N{MINUS SIGN}"))
    depths = [depth for depth in map(number, record.get("depths") or []) if depth]
    if depths:
        facts.append(f"mean depth {sum(depths) / len(depths):.2f} over {len(depths):,} tokens")
    prompt = f'<pre class="prompt">{escape_text(_cut(record["prompt"]))}</pre>' if record.get("prompt") else ""
    return (
        f'<div class="sample"><p class="muted">{escape_text(" · ".join(facts))}</p>{prompt}'
        f"<pre>{_tokens(record) or escape_text(_cut(record.get('completion') or ''))}</pre></div>"
    )


def _tokens(record: Row) -> str:
    """The completion as one colored span per token; empty if the record does not split its text into tokens."""
    tokens, depths = record.get("tokens"), record.get("depths")
    if not isinstance(tokens, list) or not isinstance(depths, list) or len(tokens) != len(depths):
        return ""
    spans = []
    for token, depth in zip(tokens[:_MAX_TOKENS_SHOWN], depths, strict=False):
        depth = int(number(depth) or 0)
        attributes = f' class="d{depth}" title="{depth_label(depth)}"' if depth > 0 else ""
        text = str(token).replace("\n", "↵\n")  # a line break is a token too, and its depth should show
        spans.append(f"<span{attributes}>{escape_text(text)}</span>")
    more = len(tokens) - len(spans)
    return "".join(spans) + (f' <span class="muted">… {more:,} more tokens</span>' if more else "")


def _cut(text: Any) -> str:
    text = str(text)
    more = len(text) - _MAX_CHARACTERS_SHOWN
    return text if more <= 0 else f"{text[:_MAX_CHARACTERS_SHOWN]} … {more:,} more characters"


def escape_text(value: Any) -> str:
    """Escape text of a run, which is untrusted, for HTML element content and quoted attributes."""
    return escape(str(value), quote=True)


def depth_label(depth: int) -> str:
    return "1 loop" if depth == 1 else f"{depth} loops"
