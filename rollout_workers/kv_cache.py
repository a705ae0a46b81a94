"""Keys and values by (token, loop), in pages; the loop index is data, not structure.

A page holds what one token wrote at one loop, in every layer (same page number, one pool a layer). `table[slot, loop - 1, position]` names the
page to read for that position at that loop. A row that runs loop t writes a new page and enters it for loop t *and every deeper
loop*; running a further loop overwrites the deeper entries. So a token that leaves at depth d is read at loop min(t, d) by all
that follow (the last-exited rule) without a copy, and the pool's use follows the mean depth.

A slot is one sequence's row of the table: a sample, or a prompt that lends its pages to the samples of its group.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from ouro_rl.errors import RunError
from ouro_rl.model import OuroConfig

NO_PAGE = 0
"""Entry of positions without keys. The page is real and holds zeros, so that padded reads need no care; nobody owns it."""


class KVCache:
    """Page pools, the page table and who owns what. Pools double when they are full, up to `max_pages`."""

    def __init__(
        self,
        config: OuroConfig,
        *,
        slots: int,
        dtype: torch.dtype,
        device: torch.device,
        pages: int = 1024,
        max_pages: int | None = None,
    ):
        self.loops, self.slots, self.max_pages = config.total_ut_steps, slots, max_pages
        pages = pages if max_pages is None else min(pages, max_pages)
        shape = (pages, config.num_key_value_heads, config.head_dim)
        self.keys = [torch.zeros(shape, dtype=dtype, device=device) for _ in range(config.num_hidden_layers)]
        self.values = [torch.zeros_like(keys) for keys in self.keys]
        self.table = torch.full((slots, self.loops, 0), NO_PAGE, dtype=torch.int64, device=device)
        self.loop_numbers = torch.arange(1, self.loops + 1, device=device)
        self.reset()

    def reset(self) -> None:
        """Forget every slot; the pools keep their size."""
        self.table.fill_(NO_PAGE)
        self.free = torch.arange(self.pages - 1, NO_PAGE, -1, device=self.table.device)
        self.free_count = len(self.free)
        self.peak = 0
        self.lender: dict[int, int | None] = {}
        self.first_owned: dict[int, int] = {}
        self.references: dict[int, int] = {}

    @property
    def pages(self) -> int:
        """Pages in each pool, `NO_PAGE` among them."""
        return len(self.keys[0])

    @property
    def owned(self) -> int:
        """Pages in use."""
        return self.pages - 1 - self.free_count

    def reserve(self, positions: int) -> None:
        """Make the table wide enough for sequences of `positions` tokens."""
        missing = positions - self.table.shape[2]
        if missing > 0:
            self.table = torch.nn.functional.pad(self.table, (0, missing), value=NO_PAGE)

    def open(self, slot: int, *, lender: int | None = None, shared: int = 0) -> None:
        """Begin a sequence. Its first `shared` positions are the lender's, which stays until its last borrower closes."""
        assert slot not in self.references, f"slot {slot} is taken"
        self.references[slot] = 1
        self.lender[slot], self.first_owned[slot] = lender, shared
        if lender is not None:
            self.references[lender] += 1
            self.table[slot, :, :shared] = self.table[lender, :, :shared]

    def fill(self, slot: int, length: int) -> None:
        """Allot pages of all loops to positions 0..length-1: a prompt always runs at full depth."""
        self.table[slot, :, :length] = self._allot(self.loops * length).view(self.loops, length)

    def extend(self, slots: Tensor, loops: Tensor, positions: Tensor) -> Tensor:
        """Allot one page to each row (slot, loop, position), entered for its loop and all deeper ones. [n] -> pages [n]."""
        pages = self._allot(len(slots))
        width = self.table.shape[2]
        places = ((slots * (self.loops * width) + positions).unsqueeze(1) + (self.loop_numbers - 1) * width).view(-1)
        entries = self.table.view(-1).index_select(0, places).view(-1, self.loops)
        here_or_deeper = self.loop_numbers >= loops.unsqueeze(1)
        entries = torch.where(here_or_deeper, pages.unsqueeze(1), entries)
        self.table.view(-1).index_copy_(0, places, entries.view(-1))
        return pages

    def lines(self, slots: Tensor, loops: Tensor) -> Tensor:
        """Numbers of the table's lines for rows at the given loops: index of `table` seen as [slots * loops, positions]."""
        return slots * self.loops + (loops - 1)

    def read(self, slots: Tensor, loops: Tensor, context: int) -> Tensor:
        """Pages of positions 0..context-1 for rows at the given loops: [n] -> [n, context], `NO_PAGE` where there are none."""
        return self.table.flatten(0, 1)[:, :context].index_select(0, self.lines(slots, loops))

    def write(self, layer: int, pages: Tensor, keys: Tensor, values: Tensor) -> None:
        """Store keys and values [n, kv heads, dim] in `pages` [n] of one layer."""
        self.keys[layer].index_copy_(0, pages, keys)
        self.values[layer].index_copy_(0, pages, values)

    def close(self, slots: Iterable[int]) -> list[int]:
        """Drop one reference to each. Returns the slots that nobody refers to any more (these, their lenders, ...): they are free."""
        released = []
        for slot in slots:
            current: int | None = slot
            while current is not None:
                self.references[current] -= 1
                if self.references[current]:
                    break
                released.append(current)
                current = self.lender[current]
        if released:
            self._release(self._owned_pages(released))
            self.table[released] = NO_PAGE
        for slot in released:
            del self.references[slot], self.lender[slot], self.first_owned[slot]
        return released

    def check_integrity(self) -> None:
        """Assert that no page leaks, none has two owners, free + owned = total, and borrowed entries are the lender's."""
        owned = self._owned_pages(list(self.references))
        free = self.free[: self.free_count]
        everything = torch.cat([owned, free, free.new_tensor([NO_PAGE])])
        assert len(everything) == self.pages, f"{len(everything)} pages are accounted for, of {self.pages}"
        assert len(everything.unique()) == self.pages, "a page has two owners"
        for slot, lender in self.lender.items():
            if lender is not None:
                shared = self.first_owned[slot]
                assert torch.equal(self.table[slot, :, :shared], self.table[lender, :, :shared]), (
                    f"slot {slot} lost its lender"
                )
        closed = [slot for slot in range(self.slots) if slot not in self.references]
        assert not self.table[closed].any(), "a closed slot still has pages"
        borrowers = [lender for lender in self.lender.values() if lender is not None]
        assert all(self.references[slot] >= borrowers.count(slot) for slot in self.references), (
            "a lender left too early"
        )
        assert not any(pool[NO_PAGE].any() for pool in [*self.keys, *self.values]), "the null page was written"

    def _owned_pages(self, slots: list[int]) -> Tensor:
        """Pages that these slots themselves were allotted: entries beyond the borrowed ones that differ from the loop before."""
        entries = self.table[slots]
        borrowed = torch.tensor([self.first_owned[slot] for slot in slots], dtype=torch.int64, device=entries.device)
        fresh = (entries != NO_PAGE) & (
            torch.arange(entries.shape[2], device=entries.device) >= borrowed.view(-1, 1, 1)
        )
        fresh[:, 1:] &= entries[:, 1:] != entries[:, :-1]
        return entries[fresh]

    def _allot(self, count: int) -> Tensor:
        while count > self.free_count:
            self._grow(count)
        self.free_count -= count
        self.peak = max(self.peak, self.owned)
        return self.free[self.free_count : self.free_count + count].clone()

    def _release(self, pages: Tensor) -> None:
        self.free[self.free_count : self.free_count + len(pages)] = pages
        self.free_count += len(pages)

    def _grow(self, wanted: int) -> None:
        """Double the pools. The place where memory limits act: admission and pre-emption would keep it from being reached."""
        old = self.pages
        new = 2 * old if self.max_pages is None else min(2 * old, self.max_pages)
        if new == old:
            raise RunError(
                f"the KV cache is full: {wanted} more pages wanted, {self.free_count} of {old} free; lower rollout.max_batch"
            )
        for pools in (self.keys, self.values):
            for layer, pool in enumerate(pools):
                pools[layer] = torch.cat([pool, pool.new_zeros(new - old, *pool.shape[1:])])
        added = torch.arange(new - 1, old - 1, -1, device=self.free.device)
        self.free = torch.cat([self.free[: self.free_count], added, self.free[self.free_count :]])
        self.free_count += new - old
