"""The units that a call is cut into: what one worker is given at a time."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

UNITS_PER_WORKER = 8
"""At least so many units for each worker, where there are enough groups: with fewer, the last one may keep all others
waiting; with many more, the messages cost time."""


@dataclass(frozen=True, kw_only=True)
class Unit:
    """Samples that are given to a worker together, and sampled again together if it is lost."""

    places: tuple[int, ...]
    """The indices of its samples in the result of the call."""
    requests: tuple[int, ...]
    """The requests that the samples belong to, one entry per sample."""

    def __len__(self) -> int:
        return len(self.places)

    def by_request(self) -> Iterator[Unit]:
        """The same samples, request by request."""
        for request in dict.fromkeys(self.requests):
            places = tuple(place for place, of in zip(self.places, self.requests, strict=True) if of == request)
            yield Unit(places=places, requests=(request,) * len(places))


def _parts(sizes: Sequence[int], workers: int) -> list[int]:
    """Into how many units each group is split: the largest piece first, until there is a unit for every worker."""
    parts = [int(size > 0) for size in sizes]
    while sum(parts) < min(workers, sum(sizes)):
        largest = max(range(len(sizes)), key=lambda index: sizes[index] / parts[index] if parts[index] else 0.0)
        parts[largest] += 1
    return parts


def cut(sizes: Sequence[int], workers: int, *, skipped: Collection[int] = ()) -> list[Unit]:
    """Units for groups of these sizes, in their order, without the groups `skipped`. Small groups share a unit. A group
    is split only if there are fewer groups than workers: each part computes the prompt again."""
    wanted = [0 if index in skipped else size for index, size in enumerate(sizes)]
    target = math.ceil(sum(wanted) / (workers * UNITS_PER_WORKER))
    parts = _parts(wanted, workers)
    few = sum(size > 0 for size in wanted) < workers
    units: list[Unit] = []
    open_unit: list[tuple[int, int]] = []

    def close() -> None:
        if open_unit:
            places, requests = zip(*open_unit, strict=True)
            units.append(Unit(places=places, requests=requests))
            open_unit.clear()

    first = 0
    for request, size in enumerate(wanted):
        if open_unit and len(open_unit) + size > target:
            close()
        pieces = parts[request]
        for piece in range(pieces):
            open_unit += [
                (first + k, request) for k in range(-(-size * piece // pieces), -(-size * (piece + 1) // pieces))
            ]
            if len(open_unit) >= target or few:
                close()
        first += sizes[request]
    close()
    return units
