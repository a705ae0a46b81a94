"""Chunked prefill of known tokens: prompts, and completions that are recomputed after a preemption.

Tasks wait in a queue and are split where a pass has no more room; the pieces that start in the same pass go through all
loops together. A row at loop t needs every earlier position written at loop t, in this pass or before. Pieces start in
order and never pause, so this holds for later pieces (in the same or a later pass), for the positions of slots that
read a shared prefix, and for a sample that joins in the pass in which its last piece starts.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import chain, repeat

import torch
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class Task:
    """Positions of one slot to compute: `tokens` from position `start` on."""

    slot: int
    start: int
    tokens: Sequence[int]
    depths: Sequence[int]
    """Number of loops that each of the tokens runs."""
    earlier: Sequence[int] = ()
    """Numbers of loops of the positions before `start`, from the first that did not run all; empty when all did."""

    def cut(self, count: int) -> tuple[Task, Task]:
        """The first `count` positions, and the rest."""
        first = replace(self, tokens=self.tokens[:count], depths=self.depths[:count])
        rest = replace(
            self, start=self.start + count, tokens=self.tokens[count:], depths=self.depths[count:],
            earlier=[*self.earlier, *self.depths[:count]],
        )  # fmt: skip
        return first, rest

    def seen_before(self, loop: int) -> int:
        """Positions before `start` that ran `loop`."""
        return self.start - sum(depth < loop for depth in self.earlier)


@dataclass(frozen=True, kw_only=True)
class Piece:
    """The rows of one slot in a pass."""

    slot: int
    rows: int
    context: int
    """Maximum number of block-table entries that one of the rows reads: that of the last row."""
    is_causal: bool
    """Whether the rows start at the slot's first entry: row i reads i + 1 entries."""


class Prefill:
    """Pieces that started together; each pass runs one loop. Rows are ordered by piece, then by position; loop t runs
    those of depth >= t."""

    def __init__(self, tasks: Sequence[Task], embed: nn.Embedding, *, leaves_gaps: bool = False):
        """`leaves_gaps`: the KV rule hides positions at loops that they did not run."""
        self.tasks, self.leaves_gaps, self.loop = list(tasks), leaves_gaps, 1
        self.device = embed.weight.device
        self.states = embed(self._column(chain.from_iterable(task.tokens for task in tasks)))
        """[rows, hidden], the input of the next loop."""
        positions = (range(task.start, task.start + len(task.tokens)) for task in tasks)
        self.positions = self._column(chain.from_iterable(positions))
        self.row_slots = self._column(chain.from_iterable(repeat(task.slot, len(task.tokens)) for task in tasks))
        self.depths = [depth for task in tasks for depth in task.depths]
        """Depth of each row."""
        self._note_depths()

    def __len__(self) -> int:
        """Rows in the next pass."""
        return len(self.depths)

    def pieces(self) -> list[Piece]:
        """The pieces that the rows belong to, in the order of the rows."""
        pieces = []
        for task in self.tasks:
            rows = sum(depth >= self.loop for depth in task.depths)
            if rows:
                context = task.seen_before(self.loop) + rows if self.leaves_gaps else task.start + len(task.tokens)
                pieces.append(Piece(slot=task.slot, rows=rows, context=context, is_causal=rows == context))
        return pieces

    def advance(self, states: Tensor) -> bool:
        """Take the normalized states [rows, hidden] after a loop; false when no row goes deeper."""
        self.states, self.loop = states, self.loop + 1
        if self.shallowest < self.loop:
            self._keep([depth >= self.loop for depth in self.depths])
        elif self.leaves_gaps:  # earlier pieces may have left fewer entries at this loop
            self._note_depths()
        return bool(self.depths)

    def keeps(self, closed: Collection[int]) -> bool:
        """Drop the rows of closed slots; false when no row is left."""
        if any(task.slot in closed for task in self.tasks):
            mask = [task.slot not in closed for task in self.tasks for depth in task.depths if depth >= self.loop]
            self.tasks = [task for task in self.tasks if task.slot not in closed]
            self._keep(mask)
        return bool(self.depths)

    def _keep(self, mask: list[bool]) -> None:
        index = self._column(row for row, kept in enumerate(mask) if kept)
        self.states, self.positions, self.row_slots = (
            part.index_select(0, index) for part in (self.states, self.positions, self.row_slots)
        )
        self.depths = [depth for depth, kept in zip(self.depths, mask, strict=True) if kept]
        self._note_depths()

    def _note_depths(self) -> None:
        self.shallowest = min(self.depths, default=0)
        self.contexts = self.positions + 1
        """Entries of its block-table row that each row of the pass reads, int64 [rows]."""
        if self.leaves_gaps:
            ranges = (range(piece.context - piece.rows + 1, piece.context + 1) for piece in self.pieces())
            self.contexts = self._column(chain.from_iterable(ranges))

    def _column(self, values: Iterable[int]) -> Tensor:
        return torch.tensor(list(values), dtype=torch.int64, device=self.device)


class PrefillQueue:
    """Waiting tasks, in order, and samples that join once the tasks before them have started; at most `rows` rows per
    pass."""

    def __init__(self, embed: nn.Embedding, rows: int | None, *, leaves_gaps: bool = False):
        self.embed, self.rows, self.leaves_gaps = embed, rows, leaves_gaps
        self.waiting: deque[Task | int] = deque()
        """Tasks, and slots of samples."""
        self.running: list[Prefill] = []

    def start(self) -> list[int]:
        """Start the tasks that the next pass has room for. Returns the slots of the samples that join it."""
        room = float("inf") if self.rows is None else self.rows - sum(map(len, self.running))
        tasks, joining = [], []
        while self.waiting:
            item = self.waiting[0]
            if isinstance(item, int):
                joining.append(item)
            elif room <= 0:
                break
            elif len(item.tokens) <= room:
                tasks.append(item)
                room -= len(item.tokens)
            else:
                first, self.waiting[0] = item.cut(int(room))
                tasks.append(first)
                break
            self.waiting.popleft()
        if tasks:
            self.running.append(Prefill(tasks, self.embed, leaves_gaps=self.leaves_gaps))
        return joining

    def advance(self, states: Tensor) -> None:
        """Take the states of all prefill rows of a pass, in the order of `running`."""
        parts = states.split([len(prefill) for prefill in self.running])
        self.running = [prefill for prefill, part in zip(self.running, parts, strict=True) if prefill.advance(part)]

    def drop(self, closed: Collection[int]) -> None:
        """Drop closed slots: preempted or cancelled samples, and evicted prefixes."""
        if self.waiting:
            self.waiting = deque(
                item for item in self.waiting if (item if isinstance(item, int) else item.slot) not in closed
            )
        self.running = [prefill for prefill in self.running if prefill.keeps(closed)]
