"""Shared prefixes of the prompts of one generation, as a tree. A prefix is computed once, for every prompt beneath it.

Keys and values of a prompt's position depend only on the tokens up to it (prompts run at full depth), so sharing does
not change them. All prompts are known before the first one runs: the tree is built once, by sorting, and each node
counts the samples beneath it that still wait.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

SHARED_BLOCK = 16
"""Different prompts share prefixes in multiples of this many tokens: shorter ones are not worth a block-table slot."""


@dataclass(eq=False, kw_only=True)
class Prefix:
    """Positions parent.stop..stop-1 of every prompt beneath it."""

    parent: Prefix | None
    stop: int
    waiting: int = 0
    """Samples beneath it that wait to be admitted (or readmitted)."""
    slot: int | None = None
    """The slot that holds its keys and values, while they are in the cache."""

    def path(self) -> Iterator[Prefix]:
        """The nodes from here up to the root, without the root, which is the empty prefix."""
        node = self
        while node.parent is not None:
            yield node
            node = node.parent


def prefix_tree(prompts: Sequence[tuple[int, ...]]) -> list[Prefix]:
    """For each prompt the node of all its tokens but the last, whose depth the gate decides. O(n log n) comparisons."""
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
    """Length of the prefix that two prompts share, without their last tokens: whole blocks, unless it is all of
    both."""
    low, high = 0, min(len(first), len(second)) - 1
    most = high
    while low < high:  # bisection: comparing slices runs at memory speed
        middle = (low + high + 1) // 2
        if first[low:middle] == second[low:middle]:
            low = middle
        else:
            high = middle - 1
    if low == most and len(first) == len(second):
        return low
    return max(0, low) // SHARED_BLOCK * SHARED_BLOCK
