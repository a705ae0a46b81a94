"""Keys and values by (token, loop), in pages; the loop index is data, not structure.

A page holds what one token wrote at one loop, in every layer (same page number, one pool a layer). `table[slot, loop - 1, position]` names the
page to read for that position at that loop. A row that runs loop t writes a new page and enters it for loop t *and every deeper
loop*; running a further loop overwrites the deeper entries. So a token that leaves at depth d is read at loop min(t, d) by all
that follow (the last-exited rule) without a copy, and the pool's use follows the mean depth. Where every token runs all loops
(the rule `full`) the same entries are those of each loop.

Under the rule `skip` a block-table row (slot, loop) is a list of the tokens that ran that loop, in order: a token appends its page to
that row alone, and `counts[slot, loop - 1]` says how many there are. Prompts run all loops, so every block-table row begins with the prompt.

A slot is one sequence of the table: a sample, or a shared prefix whose pages other slots read. A shared prefix may itself start with a
shorter one: such a chain is a path in the tree of prefixes.
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
"""Entry of positions without keys. The page is real and holds zeros, so that padded reads need no care; nobody owns it."""


def page_bytes(config: OuroConfig, dtype: torch.dtype) -> int:
    """Bytes of one page: keys and values of one token at one loop, in all layers."""
    _, kv_heads, head_dim = config.attention_shape
    return 2 * config.num_hidden_layers * kv_heads * head_dim * dtype.itemsize


class KVCache:
    """Page pools, the page table and who owns what.

    With `max_pages` the pools have that size from the start, so that nothing passes it, not even while they would grow; the system
    commits memory as pages are first written (on a GPU, at once). Without, they double when they are full."""

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
        """Not cleared beyond the null page: a page is read only after it was written."""
        try:
            pool = in_large_pages(torch.empty(shape, dtype=dtype, device=device))
        except RuntimeError as error:  # torch.OutOfMemoryError is one
            size = shape[0] * self.page_bytes / 2**30
            raise UserError(
                f"{size:.2f} GiB of keys and values cannot be had on {device}: lower rollout.kv_memory_gib"
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
        """Pages in each pool, `NO_PAGE` among them."""
        return len(self.keys[0])

    @property
    def owned(self) -> int:
        """Pages in use."""
        return self.pages - 1 - self.free_count

    @property
    def available(self) -> int | float:
        """Pages that can still be allotted: infinite without a limit."""
        return float("inf") if self.max_pages is None else self.free_count

    @property
    def loops(self) -> int:
        """Most loops of a token."""
        return self.table.shape[1]

    def reserve(self, positions: int) -> None:
        """Make the table wide enough for sequences of `positions` tokens."""
        missing = positions - self.table.shape[2]
        if missing > 0:
            self.table = torch.nn.functional.pad(self.table, (0, missing), value=NO_PAGE)

    def reshape(self, positions: int, *, loops: int, rule: KVRule = KVRule.LAST_EXITED) -> None:
        """Prepare an empty cache for tokens of up to `loops` loops, read by `rule`, and sequences of `positions` tokens."""
        self.rule, self.peak = rule, 0  # of the call that begins
        if loops != self.loops:
            assert not self.table.any(), "the cache is in use"
            device = self.table.device
            self.table = torch.full((self.slots, loops, self.table.shape[2]), NO_PAGE, dtype=torch.int64, device=device)
            self.counts = torch.zeros(self.slots, loops, dtype=torch.int64, device=device)
            self.loop_numbers = torch.arange(1, loops + 1, device=device)
        self.reserve(positions)

    def open(self, slot: int, *, prefix: int | None = None, shared: int = 0) -> None:
        """Begin a sequence. Its first `shared` positions are those of the slot `prefix`, which stays until the last slot that reads it closes."""
        assert slot not in self.references, f"slot {slot} is taken"
        self.references[slot] = 1
        self.prefix_slot[slot], self.first_owned[slot] = prefix, shared
        if prefix is not None:
            self.references[prefix] += 1
            self.table[slot, :, :shared] = self.table[prefix, :, :shared]
            self.counts[slot] = shared

    def fill(self, slot: int, start: int, stop: int, depths: Tensor | None = None) -> None:
        """Allot the pages of positions start..stop-1 at once: of all loops (a prompt runs at full depth), or of the first `depths`
        [stop - start] of each (a completion that is computed again). Pages of a loop lie side by side, as they are read."""
        count = stop - start
        if depths is None or self.rule.runs_all_loops:
            self.table[slot, :, start:stop] = self._allot(self.loops * count).view(self.loops, count)
            self.counts[slot] += count
            return
        loops = self.loop_numbers.unsqueeze(1)
        runs = loops <= depths
        pages = torch.full(runs.shape, NO_PAGE, dtype=torch.int64, device=runs.device)
        pages[runs] = self._allot(int(depths.sum()))
        if self.rule.leaves_gaps:  # what ran a loop goes to the end of its block-table row, in order
            ends = (self.counts[slot].unsqueeze(1) + runs.cumsum(1) - 1)[runs]
            self.table[slot, loops.expand_as(runs)[runs] - 1, ends] = pages[runs]
            self.counts[slot] += runs.sum(1)
            return
        self.table[slot, :, start:stop] = pages.gather(0, torch.minimum(loops, depths) - 1)

    def extend(self, slots: Tensor, loops: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Allot one page to each row (slot, loop, position), entered for its loop and all deeper ones; under `skip` appended to the
        block-table row of its loop (one row of a slot at most). [n] each -> pages, and how many entries of the block-table row are read: [n] each."""
        pages = self._allot(len(slots))
        return pages, self.enter(pages, slots, loops, positions)

    def enter(self, pages: Tensor, slots: Tensor, loops: Tensor, positions: Tensor) -> Tensor:
        """What `extend` does with the pages [n] once they are allotted. Returns how many entries of its block-table row each row reads, [n]."""
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
        """Indices of the block-table rows of `slots` at `loops`, int64 [n] each, in `table` viewed as [slots * loops, positions]."""
        return slots * self.loops + (loops - 1)

    def read(self, slots: Tensor, loops: Tensor, context: int) -> Tensor:
        """The first `context` entries of the block-table rows of `slots` at `loops`: [n] -> [n, context], `NO_PAGE` where there are none."""
        return self.table.flatten(0, 1)[:, :context].index_select(0, self.table_rows(slots, loops))

    def write(self, layer: int, pages: Tensor, keys: Tensor, values: Tensor) -> None:
        """Store keys and values [n, kv heads, dim] in `pages` [n] of one layer."""
        self.keys[layer].index_copy_(0, pages, keys)
        self.values[layer].index_copy_(0, pages, values)

    def close(self, slots: Iterable[int]) -> list[int]:
        """Drop one reference to each. Returns the slots that nobody refers to any more (these, their shared prefixes, ...): they are free."""
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
        """Assert that no page leaks, none has two owners, free + owned = total, and shared entries equal those of the shared prefix."""
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
        """Pages that these slots themselves were allotted: entries beyond the borrowed ones that differ from the loop before."""
        entries = self.table[slots]
        borrowed = torch.tensor([self.first_owned[slot] for slot in slots], dtype=torch.int64, device=entries.device)
        fresh = (entries != NO_PAGE) & (
            torch.arange(entries.shape[2], device=entries.device) >= borrowed.view(-1, 1, 1)
        )
        fresh[:, 1:] &= entries[:, 1:] != entries[:, :-1]
        return entries[fresh]

    def make_room(self, count: int) -> None:
        """Have `count` free pages: the pools grow where they may."""
        while count > self.free_count:
            self._grow(count)

    def note_free(self, count: int) -> None:
        """Take over that only the first `count` of `free` are free any more."""
        self.free_count = count
        self.peak = max(self.peak, self.owned)

    def _allot(self, count: int) -> Tensor:
        self.make_room(count)
        self.note_free(self.free_count - count)
        return self.free[self.free_count : self.free_count + count].flip(0)  # the stack's top first: rising numbers

    def _release(self, pages: Tensor) -> None:
        self.free[self.free_count : self.free_count + len(pages)] = pages.flip(0)
        self.free_count += len(pages)

    def _grow(self, wanted: int) -> None:
        """Double the pools. With a limit they have their size already, and whoever asks looks at `available` first."""
        old = self.pages
        if self.max_pages is not None:
            raise RunError(f"the KV cache is full: {wanted} more pages wanted, {self.free_count} of {old} free")
        new = 2 * old
        try:
            for pools in (self.keys, self.values):
                for layer, pool in enumerate(pools):
                    pools[layer] = in_large_pages(pool.new_empty(new, *pool.shape[1:]))
                    pools[layer][:old] = pool
        except RuntimeError as error:  # torch's way to say that there is no memory left
            raise RunError(
                f"no memory for {new} pages of keys and values ({new * self.page_bytes / 2**30:.1f} GiB): set rollout.kv_memory_gib, or "
                "lower rollout.max_batch"
            ) from error
        added = torch.arange(new - 1, old - 1, -1, device=self.free.device)
        self.free = torch.cat([self.free[: self.free_count], added, self.free[self.free_count :]])
        self.free_count += new - old
