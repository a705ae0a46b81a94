"""Keys and values by (token, loop), in pages; the loop index is data, not structure.

A page holds what one token wrote at one loop, in every layer (same page number, one pool per layer).
`table[slot, loop - 1, position]` names the page to read for that position at that loop. A row that runs loop t writes a
new page and enters it for loop t *and every deeper loop*; running a further loop overwrites the deeper entries. So all
later tokens read a token that exits at depth d at loop min(t, d) (the last-exited rule) without a copy, and memory use
follows the mean depth. Under the rule `full` every token runs all loops, so each loop has its own entries.

Under the rule `skip` a block-table row (slot, loop) lists the tokens that ran that loop, in order: a token appends its
page to that row alone, and `counts[slot, loop - 1]` is the number of entries. Prompts run all loops, so every
block-table row begins with the prompt.

A slot is one sequence of the table: a sample, or a shared prefix whose pages other slots read. A shared prefix may
itself start with a shorter one: such a chain is a path in the prefix tree.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from ouro_rl.core.errors import RunError, UserError
from ouro_rl.core.kv_rule import KVRule
from ouro_rl.kernels.cpu.huge_pages import in_large_pages
from ouro_rl.model.configuration_ouro import OuroConfig

NO_PAGE = 0
"""Entry of positions without keys. The page exists and holds zeros, so padded reads are safe; no slot owns it."""


def page_bytes(config: OuroConfig, dtype: torch.dtype) -> int:
    """Bytes of one page: keys and values of one token at one loop, in all layers."""
    _, kv_heads, head_dim = config.attention_shape
    return 2 * config.num_hidden_layers * kv_heads * head_dim * dtype.itemsize


class KVCache:
    """Page pools, the block table and page ownership.

    With `max_pages` the pools have that size from the start, so memory never exceeds it, not even while growing; the
    operating system commits memory as pages are first written (on a GPU: immediately). Without it, the pools double
    when they are full."""

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
        self.slots, self.max_pages = slots, max_pages
        self.page_bytes = page_bytes(config, dtype)
        shape = (pages if max_pages is None else max_pages, *config.attention_shape[1:])
        self.keys, self.values = (
            [self._pool(shape, dtype, device) for _ in range(config.num_hidden_layers)] for _ in range(2)
        )
        self.table = torch.full((slots, 0, 0), NO_PAGE, dtype=torch.int64, device=device)
        self.counts: Tensor  # as many loops as the table: `reshape` makes both
        self.reshape(0, loops=config.total_ut_steps)
        self.reset()

    def _pool(self, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
        """One layer's keys or values. Only the null page is cleared: any other page is written before it is read.

        Raises `UserError` when memory does not suffice."""
        try:
            pool = in_large_pages(torch.empty(shape, dtype=dtype, device=device))
        except RuntimeError as error:  # torch.OutOfMemoryError is one
            size = shape[0] * self.page_bytes / 2**30
            raise UserError(
                f"cannot allocate {size:.2f} GiB for keys and values on {device}: lower rollout.kv_memory_gib"
            ) from error
        pool[NO_PAGE] = 0
        return pool

    def reset(self) -> None:
        """Forget every slot; the pools keep their size."""
        self.table.fill_(NO_PAGE)
        self.counts.zero_()
        self.free = torch.arange(self.pages - 1, NO_PAGE, -1, device=self.table.device)
        self.free_count = len(self.free)
        self.peak = 0
        self.prefix_slot: dict[int, int | None] = {}
        self.first_owned: dict[int, int] = {}
        self.references: dict[int, int] = {}

    @property
    def pages(self) -> int:
        """Pages in each pool, including `NO_PAGE`."""
        return len(self.keys[0])

    @property
    def owned(self) -> int:
        """Pages in use."""
        return self.pages - 1 - self.free_count

    @property
    def available(self) -> int | float:
        """Pages that can still be allocated: infinite without a limit."""
        return float("inf") if self.max_pages is None else self.free_count

    @property
    def loops(self) -> int:
        """Maximum loops per token."""
        return self.table.shape[1]

    def reserve(self, positions: int) -> None:
        """Make the table wide enough for sequences of `positions` tokens."""
        missing = positions - self.table.shape[2]
        if missing > 0:
            self.table = torch.nn.functional.pad(self.table, (0, missing), value=NO_PAGE)

    def reshape(self, positions: int, *, loops: int, rule: KVRule = KVRule.LAST_EXITED) -> None:
        """Prepare an empty cache for sequences of `positions` tokens of up to `loops` loops each, read by `rule`."""
        self.rule, self.peak = rule, 0  # of the call that begins
        if loops != self.loops:
            assert not self.table.any(), "the cache is in use"
            device = self.table.device
            self.table = torch.full((self.slots, loops, self.table.shape[2]), NO_PAGE, dtype=torch.int64, device=device)
            self.counts = torch.zeros(self.slots, loops, dtype=torch.int64, device=device)
            self.loop_numbers = torch.arange(1, loops + 1, device=device)
        self.reserve(positions)

    def open(self, slot: int, *, prefix: int | None = None, shared: int = 0) -> None:
        """Begin a sequence. Its first `shared` positions are those of the slot `prefix`, which stays open until the
        last slot that reads it is closed."""
        assert slot not in self.references, f"slot {slot} is taken"
        self.references[slot] = 1
        self.prefix_slot[slot], self.first_owned[slot] = prefix, shared
        if prefix is not None:
            self.references[prefix] += 1
            self.table[slot, :, :shared] = self.table[prefix, :, :shared]
            self.counts[slot] = shared

    def fill(self, slot: int, start: int, stop: int, depths: Tensor | None = None) -> None:
        """Allocate the pages of positions start..stop-1 together: for all loops (a prompt runs at full depth), or for
        the first `depths` [stop - start] loops of each (a recomputed completion). The pages of one loop are contiguous,
        in the order in which they are read."""
        count = stop - start
        if depths is None or self.rule.runs_all_loops:
            self.table[slot, :, start:stop] = self._allot(self.loops * count).view(self.loops, count)
            self.counts[slot] += count
            return
        loops = self.loop_numbers.unsqueeze(1)
        runs = loops <= depths
        pages = torch.full(runs.shape, NO_PAGE, dtype=torch.int64, device=runs.device)
        pages[runs] = self._allot(int(depths.sum()))
        if self.rule.leaves_gaps:  # append the tokens that ran a loop to its block-table row, in order
            ends = (self.counts[slot].unsqueeze(1) + runs.cumsum(1) - 1)[runs]
            self.table[slot, loops.expand_as(runs)[runs] - 1, ends] = pages[runs]
            self.counts[slot] += runs.sum(1)
            return
        self.table[slot, :, start:stop] = pages.gather(0, torch.minimum(loops, depths) - 1)

    def extend(self, slots: Tensor, loops: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Allocate one page per row (slot, loop, position) and enter it for its loop and all deeper ones; under `skip`,
        append it to the block-table row of its loop (at most one row per slot). [n] each -> the pages, and how many
        entries of its block-table row each row reads: [n] each."""
        pages = self._allot(len(slots))
        return pages, self.enter(pages, slots, loops, positions)

    def enter(self, pages: Tensor, slots: Tensor, loops: Tensor, positions: Tensor) -> Tensor:
        """Enter pages [n] that are already allocated, as `extend` does. Returns how many entries of its block-table row
        each row reads, [n]."""
        if self.rule.leaves_gaps:
            table_rows = self.table_rows(slots, loops)
            contexts = self.counts.view(-1).index_select(0, table_rows) + 1
            self.counts.view(-1).index_copy_(0, table_rows, contexts)
            self.table.view(-1).index_copy_(0, table_rows * self.table.shape[2] + contexts - 1, pages)
            return contexts
        width = self.table.shape[2]
        places = ((slots * (self.loops * width) + positions).unsqueeze(1) + (self.loop_numbers - 1) * width).view(-1)
        entries = self.table.view(-1).index_select(0, places).view(-1, self.loops)
        here_or_deeper = self.loop_numbers >= loops.unsqueeze(1)
        entries = torch.where(here_or_deeper, pages.unsqueeze(1), entries)
        self.table.view(-1).index_copy_(0, places, entries.view(-1))
        return positions + 1

    def table_rows(self, slots: Tensor, loops: Tensor) -> Tensor:
        """Indices of the block-table rows of `slots` at `loops`, int64 [n] each, in `table` viewed as [slots * loops,
        positions]."""
        return slots * self.loops + (loops - 1)

    def read(self, slots: Tensor, loops: Tensor, context: int) -> Tensor:
        """The first `context` entries of the block-table rows of `slots` at `loops`: [n] -> [n, context], padded with
        `NO_PAGE`."""
        return self.table.flatten(0, 1)[:, :context].index_select(0, self.table_rows(slots, loops))

    def write(self, layer: int, pages: Tensor, keys: Tensor, values: Tensor) -> None:
        """Store keys and values [n, kv heads, dim] in `pages` [n] of one layer."""
        self.keys[layer].index_copy_(0, pages, keys)
        self.values[layer].index_copy_(0, pages, values)

    def close(self, slots: Iterable[int]) -> list[int]:
        """Drop one reference to each slot. Returns the slots that are free now, those without references left: of these
        and of their shared prefixes."""
        released = []
        for slot in slots:
            current: int | None = slot
            while current is not None:
                self.references[current] -= 1
                if self.references[current]:
                    break
                released.append(current)
                current = self.prefix_slot[current]
        if released:
            self._release(self._owned_pages(released))
            self.table[released] = NO_PAGE
            self.counts[released] = 0
        for slot in released:
            del self.references[slot], self.prefix_slot[slot], self.first_owned[slot]
        return released

    def check_integrity(self) -> None:
        """Assert that no page leaks, none has two owners, free + owned = total, and shared entries equal the
        prefix's."""
        owned = self._owned_pages(list(self.references))
        free = self.free[: self.free_count]
        everything = torch.cat([owned, free, free.new_tensor([NO_PAGE])])
        assert len(everything) == self.pages, f"{len(everything)} pages are accounted for, of {self.pages}"
        assert len(everything.unique()) == self.pages, "a page has two owners"
        for slot, prefix in self.prefix_slot.items():
            if prefix is not None:
                shared = self.first_owned[slot]
                assert torch.equal(self.table[slot, :, :shared], self.table[prefix, :, :shared]), (
                    f"slot {slot} lost its shared prefix"
                )
        closed = [slot for slot in range(self.slots) if slot not in self.references]
        assert not self.table[closed].any(), "a closed slot still has pages"
        if self.rule.leaves_gaps:
            assert torch.equal((self.table != NO_PAGE).sum(2), self.counts), (
                "a block-table row has gaps, or its count is wrong"
            )
        borrowers = [prefix for prefix in self.prefix_slot.values() if prefix is not None]
        assert all(self.references[slot] >= borrowers.count(slot) for slot in self.references), (
            "a shared prefix was closed too early"
        )
        assert not any(pool[NO_PAGE].any() for pool in [*self.keys, *self.values]), "the null page was written"

    def _owned_pages(self, slots: list[int]) -> Tensor:
        """Pages allocated to these slots themselves: entries after the shared ones that differ from the previous
        loop's."""
        entries = self.table[slots]
        borrowed = torch.tensor([self.first_owned[slot] for slot in slots], dtype=torch.int64, device=entries.device)
        fresh = (entries != NO_PAGE) & (
            torch.arange(entries.shape[2], device=entries.device) >= borrowed.view(-1, 1, 1)
        )
        fresh[:, 1:] &= entries[:, 1:] != entries[:, :-1]
        return entries[fresh]

    def make_room(self, count: int) -> None:
        """Ensure `count` free pages: grow the pools unless they have a limit. Raises `RunError` when that fails."""
        while count > self.free_count:
            self._grow(count)

    def note_free(self, count: int) -> None:
        """Record that only the first `count` of `free` are still free."""
        self.free_count = count
        self.peak = max(self.peak, self.owned)

    def _allot(self, count: int) -> Tensor:
        self.make_room(count)
        self.note_free(self.free_count - count)
        return self.free[self.free_count : self.free_count + count].flip(0)  # top of the stack first: ascending numbers

    def _release(self, pages: Tensor) -> None:
        self.free[self.free_count : self.free_count + len(pages)] = pages.flip(0)
        self.free_count += len(pages)

    def _grow(self, wanted: int) -> None:
        """Double the pools. With a limit they cannot grow: callers check `available` first."""
        old = self.pages
        if self.max_pages is not None:
            raise RunError(f"the KV cache is full: {wanted} more pages needed, {self.free_count} of {old} free")
        new = 2 * old
        try:
            for pools in (self.keys, self.values):
                for layer, pool in enumerate(pools):
                    pools[layer] = in_large_pages(pool.new_empty(new, *pool.shape[1:]))
                    pools[layer][:old] = pool
        except RuntimeError as error:  # torch raises it when memory runs out
            raise RunError(
                f"not enough memory for {new} pages of keys and values ({new * self.page_bytes / 2**30:.1f} GiB): "
                "set rollout.kv_memory_gib, or lower rollout.max_batch"
            ) from error
        added = torch.arange(new - 1, old - 1, -1, device=self.free.device)
        self.free = torch.cat([self.free[: self.free_count], added, self.free[self.free_count :]])
        self.free_count += new - old
