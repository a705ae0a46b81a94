"""Side-by-side benchmarks, `ouro-rl bench NAME`: every figure comes from running things here and now, beside what it is compared with.

    workload   a random model of Ouro's form, prompts, and the trace of depths that makes every engine do the same work
    timing     one timed call of the engine or of `generate()`; rounds of several, taken in turns
    roofline   what the machine can do at best (reading, multiplying), and what a pass must cost at least
    rollout, replay, exact, cache, group, curves     the benchmarks
    predictions  what was expected of each figure, before it was measured
    results, page   JSON and the table; the page `docs/performance.md`

This file is read by the command line before anything heavy is imported.
"""

from __future__ import annotations

import difflib

from ouro_rl.core.errors import UserError

BENCHMARKS = {
    "rollout": "the engine against generate(), itself at fixed depth, synchronous compaction, and the machine's roofline",
    "replay": "the trainer's forward and backward at mean depth 2.5 against 4, and what `exact` costs",
    "cache": "memory of keys and values at mean depth 2.5 against full depth",
    "group": "a group that shares its prompt against samples that each compute it",
    "all": "these four",
    "curves": "cost as work grows: batch, context, group (not part of `all`)",
}
"""By name: what is measured."""
PAGE = "page"
"""The name that measures nothing: `ouro-rl bench page FILE.json...` prints JSON files as a Markdown page."""


def check_name(name: str) -> None:
    """Raise UserError, with the nearest name, for one that is no benchmark."""
    known = [*BENCHMARKS, PAGE]
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
        raise UserError(f"bench {name}: no benchmark of this name; {hint}")
