"""Dynamic sampling: groups without variance, from which nothing is learned, give way to further prompts.

The rounds depend on rewards alone, and further prompts on (seed, step) alone, so the groups of an update are the same
for any number of workers, and after a resumption (DAPO, arXiv 2503.14476, samples until a batch is full)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import torch

from ouro_rl.core.rollout import Prompt
from ouro_rl.core.seeds import named_seed
from ouro_rl.training.signal_watch import Group, has_signal


@dataclass(frozen=True, kw_only=True)
class Refilled:
    """The groups of an update, and what they took."""

    groups: list[Group]
    """As many as were given, in their order."""
    replaced: int
    """Groups that came from further prompts."""
    sampled: int
    """Groups that were sampled in all."""


def refill(
    groups: Sequence[Group], further: Iterator[Prompt], sample: Callable[[list[Prompt]], list[Group]], *, rounds: int
) -> Refilled:
    """Replace groups without variance, first come, first served, by those of `further` prompts that have some.

    Each of at most `rounds` rounds samples as many prompts as groups lack variance then; those of them that have none
    either are dropped. What has no variance after the last round, or when no prompt is left, stays."""
    groups, replaced, sampled = list(groups), 0, len(groups)
    for _ in range(rounds):
        lacking = [place for place, group in enumerate(groups) if not has_signal(group)]
        prompts = list(islice(further, len(lacking)))
        if not prompts:
            break
        found = sample(prompts)
        useful = [group for group in found if has_signal(group)]
        for place, group in zip(lacking, useful, strict=False):  # there may be fewer useful ones
            groups[place] = group
        replaced, sampled = replaced + len(useful), sampled + len(found)
    return Refilled(groups=groups, replaced=replaced, sampled=sampled)


def further_prompts(prompts: Sequence[Prompt], taken: Sequence[Prompt], *, seed: int, step: int) -> Iterator[Prompt]:
    """All prompts but those `taken`, in an order drawn anew for every step."""
    generator = torch.Generator().manual_seed(named_seed("refill", seed, step))
    indices = {prompt.index for prompt in taken}
    for place in torch.randperm(len(prompts), generator=generator).tolist():
        if prompts[place].index not in indices:
            yield prompts[place]
