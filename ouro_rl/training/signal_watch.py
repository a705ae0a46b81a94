"""Which groups have a signal; and a message where nothing is learned, for lack of one.

A reward function that expects something else than it gets (texts, and it gets messages) scores everything alike, and a
run would go on for days without a word."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from ouro_rl.core.rollout import ScoredRollout

Group = Sequence[ScoredRollout]

SILENT_STEPS = 3
"""Steps in a row without a signal before it is said."""


class SignalWatch:
    """Sees the rollouts of every step. Says it once, and again if the signal comes back and is lost."""

    def __init__(self) -> None:
        self.silent = 0

    def is_silent(self, groups: Iterable[Group]) -> bool:
        """Whether it is time to say so, after these groups of one step."""
        self.silent = 0 if any(map(has_signal, groups)) else self.silent + 1
        return self.silent == SILENT_STEPS


def has_signal(group: Group) -> bool:
    """Whether two rewards of a group differ. If not, all its advantages are 0; what is unscored does not count."""
    return len({item.reward for item in group if item.reward is not None}) > 1


def split_groups(scored: Sequence[ScoredRollout], size: int) -> list[Group]:
    """The groups of `size` consecutive rollouts."""
    return [scored[first : first + size] for first in range(0, len(scored), size)]


def silence_message(scored: Sequence[ScoredRollout], passed: Mapping[str, str]) -> str:
    """What to look at, where rewards give no signal. `passed`: by reward, how it is given the first completion
    (`Scorer.as_passed`)."""
    lines = [
        f"No group has had a signal in {SILENT_STEPS} steps: all completions of a group scored alike, so nothing is "
        "learned. What the rewards were given in the last step, and what they answered:"
    ]
    for name, argument in passed.items():
        answers = Counter("unscored" if (value := item.rewards[name]) is None else f"{value:g}" for item in scored)
        most = ", ".join(f"{count} x {answer}" for answer, count in answers.most_common(3))
        lines.append(f"  {name}({argument}) -> {scored[0].rewards[name]}; in all {most} ({scored[0].statuses[name]})")
    return "\n".join(lines)
