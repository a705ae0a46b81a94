"""The rollouts that the page shows: which of them, and in what form they travel in it.

A run may leave gigabytes of rollouts, and a page must open on a phone. So some steps are read, spread evenly over the
run; of each, whole groups are kept, from the worst to the best mean reward; of a long completion, its beginning and its
end. What is left out is counted, and the page says so.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from ouro_rl.run_dir.report.text import number
from ouro_rl.run_dir.run_dir import RunDir

STEPS_SHOWN = 12
TOKENS_READ = 200_000
"""Of one step, at most: about 16 MB of its file. Reading ends with the group that passes this."""
PAGE_BYTES = 1_000_000
"""What all samples together may take in the page; each step has at least one group all the same."""
SAMPLES_OF_GROUP = 16
FIRST_TOKENS, LAST_TOKENS = 400, 200
"""Of a completion; its answer is at the end."""
CHARACTERS = 3000
"""Of a question, and of a completion whose record does not split it into tokens."""
_TOKEN_BYTES, _SAMPLE_BYTES = 20, 150
"""What a token and the rest of a sample take in the page, roughly."""
_VERDICTS = {"correct": "right", **dict.fromkeys(("wrong", "no_answer", "policy", "memory", "limit"), "wrong")}

T = TypeVar("T")
Row = dict[str, Any]
Group = list[Row]
"""The records of one prompt in one step."""


@dataclass(frozen=True, kw_only=True)
class StepSamples:
    """What was read of one step."""

    step: int
    groups: list[Group]
    whole: bool
    """Whether its file was read to the end."""


@dataclass(frozen=True, kw_only=True)
class Shown:
    """What the page shows of the rollouts, and what it leaves out."""

    data: Row
    """What the script of the page reads (`encode_group`): `words`, the texts of tokens; `groups`; `judge`, the name of
    the reward that says right or wrong; `loops`. The last step comes first."""
    steps: int
    steps_recorded: int
    groups: int
    groups_read: int
    samples: int
    part: bool
    """Whether a step was too large to be read to its end."""


def read_steps(run: RunDir) -> list[StepSamples]:
    """Some steps of the run, from the first to the last that has rollouts; [] if none has."""
    return [read_step(run, step) for step in spread(run.rollout_steps(), STEPS_SHOWN)]


def read_step(run: RunDir, step: int) -> StepSamples:
    """The groups of a step, in order, until there are enough tokens."""
    groups: list[Group] = []
    tokens = 0
    for group in split_groups(run.read_rollouts(step)):
        if tokens > TOKENS_READ:
            return StepSamples(step=step, groups=groups, whole=False)
        groups.append(group)
        tokens += sum(len(record.get("completion_ids") or ()) for record in group)
    return StepSamples(step=step, groups=groups, whole=True)


def split_groups(records: Iterable[Row]) -> Iterator[Group]:
    """Records in file order -> groups: a new one begins with another prompt, or where samples are counted anew."""
    group: Group = []
    for record in records:
        if group and not _continues(group[-1], record):
            yield group
            group = []
        group.append(record)
    if group:
        yield group


def _continues(before: Row, after: Row) -> bool:
    places = number(before.get("sample_index")), number(after.get("sample_index"))
    same = before.get("prompt_index") == after.get("prompt_index")
    return same and places[0] is not None and places[1] is not None and places[0] < places[1]


def spread(items: Sequence[T], most: int) -> list[T]:
    """At most `most` of the items at even distances, with the first and the last."""
    if len(items) <= most:
        return list(items)
    if most == 1:
        return [items[0]]
    return [items[place * (len(items) - 1) // (most - 1)] for place in range(most)]


def choose(steps: Sequence[StepSamples], *, recorded: int, loops: int) -> Shown:
    """The groups that the page shows, within its size."""
    words: dict[str, int] = {}
    encoded: list[Row] = []
    for one in reversed(steps):
        ranked = sorted(one.groups, key=_mean_reward)
        size = statistics.fmean(map(_size, ranked)) if ranked else 1
        for group in spread(ranked, max(1, int(PAGE_BYTES / len(steps) / size))):
            encoded.append(encode_group(one.step, group, words))
    names = [name for one in steps for group in one.groups for name in _scores(group[0])]
    return Shown(
        data={"loops": loops, "judge": names[0] if names else None, "words": list(words), "groups": encoded},
        steps=len(steps),
        steps_recorded=recorded,
        groups=len(encoded),
        groups_read=sum(len(one.groups) for one in steps),
        samples=sum(len(group["samples"]) for group in encoded),
        part=not all(one.whole for one in steps),
    )


def encode_group(step: int, group: Group, words: dict[str, int]) -> Row:
    """`step`, `prompt` (its index), `question`, `gold`, `of` (samples in the group) and `samples` (`encode_sample`).
    New token texts are added to `words`."""
    first = group[0]
    gold = first.get("answer")
    return {
        "step": step,
        "prompt": first.get("prompt_index"),
        "question": _cut(first.get("question") or ""),
        "gold": None if gold is None else _cut(gold),
        "of": len(group),
        "samples": [encode_sample(record, words) for record in group[:SAMPLES_OF_GROUP]],
    }


def encode_sample(record: Row, words: dict[str, int]) -> Row:
    """`reward`, `advantage`, `verdict`, `scores` ([name, score, status, detail]), `end` (the finish reason), `tokens`
    and `depth` (means over the whole completion), and the completion: as `text`, or as tokens: `t` (places in `words`),
    `k` (depths), `l` (log-probs in thousandths of a nat), `e` (probabilities of leaving at that depth, in thousandths),
    `p` (by token, the probabilities of leaving at each loop before that), and `out`, [place, number] of tokens left out
    there."""
    depths = [depth for value in _list(record, "depths") if (depth := number(value))]
    scores = _scores(record)
    statuses, details = record.get("statuses") or {}, record.get("details") or {}
    return {
        "reward": number(record.get("reward")),
        "advantage": number(record.get("advantage")),
        "verdict": verdict(record),
        "scores": [
            [name, number(value), statuses.get(name), str(details.get(name, ""))[:300]]
            for name, value in scores.items()
        ],
        "end": record.get("finish_reason"),
        "tokens": len(_list(record, "completion_ids")),
        "depth": round(statistics.fmean(depths), 4) if depths else None,
        **(_encode_tokens(record, words) or {"text": _cut(record.get("completion") or "")}),
    }


def verdict(record: Row) -> str:
    """`right`, `wrong` or `unscored`, as the first reward function says."""
    status = next(iter((record.get("statuses") or {}).values()), None)
    if status is None:
        return "unscored"
    return _VERDICTS.get(status, "unscored")


def _encode_tokens(record: Row, words: dict[str, int]) -> Row | None:
    """The completion token by token; None if its record does not split its text into tokens."""
    tokens, depths = record.get("tokens"), _list(record, "depths")
    if not isinstance(tokens, list) or len(tokens) != len(depths):
        return None
    left_out = len(tokens) - FIRST_TOKENS - LAST_TOKENS
    places = list(range(len(tokens)))
    if left_out > 0:
        places = places[:FIRST_TOKENS] + places[-LAST_TOKENS:]
    logprobs, exits = _list(record, "token_logprobs"), _list(record, "depth_logprobs")
    encoded: Row = {
        "t": [words.setdefault(str(tokens[place]), len(words)) for place in places],
        "k": [int(number(depths[place]) or 0) for place in places],
        "out": [FIRST_TOKENS, left_out] if left_out > 0 else None,
    }
    if len(logprobs) == len(exits) == len(tokens):
        encoded["l"] = [_thousandths(number(logprobs[place])) for place in places]
        encoded["e"] = [_thousandths(_exp(number(exits[place]))) for place in places]
    by_loop = [share for share in _list(record, "exit_probs") if isinstance(share, list)]
    if len(by_loop) == len(tokens):
        encoded["p"] = [
            [_thousandths(number(share)) for share in by_loop[place][: max(depth - 1, 0)]]
            for place, depth in zip(places, encoded["k"], strict=True)
        ]
    return encoded


def as_json(data: Row) -> str:
    """Compact JSON for a script element: no `<`, so that no text of a model can end the element."""
    return json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def _exp(value: float | None) -> float | None:
    return None if value is None else math.exp(min(value, 0.0))


def _thousandths(value: float | None) -> int | None:
    return None if value is None else round(1000 * value)


def _scores(record: Row) -> Row:
    scores = record.get("rewards")
    return scores if isinstance(scores, dict) else {}


def _list(record: Row, key: str) -> list[Any]:
    value = record.get(key)
    return value if isinstance(value, list) else []


def _mean_reward(group: Group) -> float:
    """Groups without any reward come first."""
    rewards = [reward for record in group if (reward := number(record.get("reward"))) is not None]
    return statistics.fmean(rewards) if rewards else -math.inf


def _size(group: Group) -> float:
    """What a group takes in the page, roughly, in bytes."""
    shown = group[:SAMPLES_OF_GROUP]
    tokens = sum(min(len(_list(record, "completion_ids")), FIRST_TOKENS + LAST_TOKENS) for record in shown)
    return tokens * _TOKEN_BYTES + len(shown) * _SAMPLE_BYTES


def _cut(text: Any) -> str:
    text = str(text)
    more = len(text) - CHARACTERS
    return text if more <= 0 else f"{text[:CHARACTERS]} … {more:,} more characters"
