"""Which prompts an update takes: a function of the seed and the update's number alone.

transformers sees the whole run as one epoch, and asks the sampler again when a run is resumed; the sampler begins at
the update that is due. So no state of a sampler has to be saved, and nothing is skipped row by row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import torch
from torch.utils.data import Sampler

from ouro_rl.core.errors import UserError
from ouro_rl.core.rollout import Prompt

Order = Literal["shuffle", "sequential", "curriculum"]


class PromptOrder:
    """The prompts of every batch of rollouts.

    An epoch takes each prompt at most once; what does not fill a batch at its end is left out. `shuffle`: epoch e has
    the (e + 1)-th permutation drawn from a generator with the run's seed, so that it takes other prompts together, and
    leaves out others. `fixed` is the order of every epoch otherwise."""

    def __init__(self, count: int, per_batch: int, *, seed: int, fixed: Sequence[int] | None = None):
        assert 0 < per_batch <= count and (fixed is None or len(fixed) == count)
        self.count, self.per_batch, self.seed, self.fixed = count, per_batch, seed, fixed
        self.batches_per_epoch = count // per_batch
        self._restart()

    def batch(self, number: int) -> list[int]:
        """Places of the prompts of batch `number`, counted from 0."""
        epoch, place = divmod(number, self.batches_per_epoch)
        indices = self.epoch(epoch)
        return list(indices[place * self.per_batch : (place + 1) * self.per_batch])

    def epoch(self, epoch: int) -> Sequence[int]:
        """Places of all prompts in the order of an epoch, counted from 0."""
        if self.fixed is not None:
            return self.fixed
        if epoch < self._drawn:
            self._restart()
        while self._drawn < epoch:
            self._shuffled = torch.randperm(self.count, generator=self._generator).tolist()
            self._drawn += 1
        return self._shuffled

    def _restart(self) -> None:
        self._generator = torch.Generator().manual_seed(self.seed)
        self._drawn, self._shuffled = -1, list[int]()


class UpdateSampler(Sampler[int]):
    """Feeds a data loader: the places of all updates from `first_update()` on, which is asked at each start.

    As TRL expects, each prompt stands `group_size` times in a row, and the whole batch once for each of an update's
    `micro_steps` (forward and backward passes); TRL looks at the first only, and reuses its rollouts for
    `updates_per_batch` updates."""

    def __init__(
        self,
        order: PromptOrder,
        *,
        updates: int,
        updates_per_batch: int,
        micro_steps: int,
        group_size: int,
        first_update: Callable[[], int],
    ):
        self.order, self.updates, self.updates_per_batch = order, updates, updates_per_batch
        self.micro_steps, self.group_size, self.first_update = micro_steps, group_size, first_update

    def __iter__(self) -> Iterator[int]:
        for update in range(self.first_update(), self.updates):
            prompts = self.order.batch(update // self.updates_per_batch)
            places = [place for place in prompts for _ in range(self.group_size)]
            for _ in range(self.micro_steps):
                yield from places

    def __len__(self) -> int:
        """Of the whole run, also when it is resumed: transformers derives the number of epochs from it."""
        return self.updates * self.micro_steps * self.order.per_batch * self.group_size


def fixed_order(prompts: Sequence[Prompt], order: Order, column: str | None) -> list[int] | None:
    """The order of every epoch, or None to shuffle. Raises UserError if a prompt has no value to sort by."""
    if order == "shuffle":
        return None
    places = list(range(len(prompts)))
    if order == "sequential":
        return places
    assert column is not None, "the config requires it"
    keys = [_key(prompt, column) for prompt in prompts]
    if len({isinstance(key, str) for key in keys}) > 1:
        raise UserError(f"data.curriculum_column {column}: some rows have a text and some a number; give one of both")
    return sorted(places, key=keys.__getitem__)  # stable: equal values keep the order of the data


def _key(prompt: Prompt, column: str) -> Any:
    key = prompt.columns.get(column)
    if not isinstance(key, str | int | float) or key != key:  # NaN differs from itself
        have = ", ".join(prompt.columns) or "none"
        raise UserError(
            f"data.curriculum_column {column}: row {prompt.index + 1} has {key!r} there, which gives no order;\n"
            f"  name a column of numbers or texts (its columns: {have})"
        )
    return key
