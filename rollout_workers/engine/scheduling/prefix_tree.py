"""Shared prefixes of the prompts of one generation, as a tree. A prefix is computed once and read by every prompt beneath it.

Keys and values of a prompt's positions depend on the tokens up to them alone (prompts run at full depth), so sharing changes no value.
All prompts are known before the first runs: the tree is made once, by sorting, and each node knows how many samples beneath it
still wait.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

SHARED_BLOCK = 16
"""Different prompts share prefixes in multiples of this many tokens: a shorter one is not worth a slot of the block table."""


@dataclass(eq=False, kw_only=True)
class Prefix:
    """The positions parent.stop..stop-1 of every prompt beneath it."""

    parent: Prefix | None
    stop: int
    waiting: int = 0
    """Samples beneath it that are yet to be admitted (again)."""
    slot: int | None = None
    """The slot that holds its keys and values, while they are in the cache."""

    def path(self) -> Iterator[Prefix]:
        """From here up to the root, without it: the root is the empty beginning."""
        node = self
        while node.parent is not None:
            yield node
            node = node.parent


def prefix_tree(prompts: Sequence[tuple[int, ...]]) -> list[Prefix]:
    """For each prompt the node of all its tokens but the last, whose depth is the gate's to decide. O(n log n) comparisons."""
    leaves: dict[int, Prefix] = {}
    path = [Prefix(parent=None, stop=0)]  # from the root to the last prompt's node
    last: tuple[int, ...] = ()
    for index in sorted(range(len(prompts)), key=prompts.__getitem__):
        prompt = prompts[index]
        alike, full = _shared(last, prompt), len(prompt) - 1
        below = None
        while path[-1].stop > alike:
            below = path.pop()
        if alike > path[-1].stop:
            node = Prefix(parent=path[-1], stop=alike)
            assert below is not None, "the last prompt's node is no shorter than what is shared with it"
            below.parent = node
            path.append(node)
        if full > path[-1].stop:
            path.append(Prefix(parent=path[-1], stop=full))
        leaves[index], last = path[-1], prompt
    return [leaves[index] for index in range(len(prompts))]


def _shared(first: tuple[int, ...], second: tuple[int, ...]) -> int:
    """Length of the beginning that two prompts share, last tokens apart: in blocks, unless it is the whole of both."""
    low, high = 0, min(len(first), len(second)) - 1
    most = high
    while low < high:  # by bisection: slices are compared at the speed of memory
        middle = (low + high + 1) // 2
        if first[low:middle] == second[low:middle]:
            low = middle
        else:
            high = middle - 1
    if low == most and len(first) == len(second):
        return low
    return max(0, low) // SHARED_BLOCK * SHARED_BLOCK
