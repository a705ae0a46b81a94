"""Side-by-side benchmarks, `ouro-rl bench NAME`: both sides of every comparison are measured on this machine in one
process.

    workload   a random model of Ouro's architecture, prompts, and a trace of depths: the same work for every engine
    timing     timed calls of the engine and of `generate()`, interleaved pass by pass or round by round
    roofline   the machine's peak read bandwidth and GEMM rate, and the least time of a pass
    rollout, replay, exact, cache, group, curves, probes, dispatch, publication     the benchmarks
    predictions  the predicted value of each figure, written before it was measured
    results, page   the JSON and the table; the page `docs/performance.md`

The command line imports this module before anything heavy.
"""

from __future__ import annotations

import difflib

from ouro_rl.core.errors import UserError

BENCHMARKS = {
    "rollout": "the engine against generate(), fixed depth, synchronous compaction, and the machine's roofline",
    "replay": "the trainer's forward and backward at mean depth 2.5 against 4, and the cost of `exact`",
    "cache": "KV memory at mean depth 2.5 against full depth",
    "group": "a group with a shared prompt against samples that each compute it",
    "all": "these four",
    "curves": "cost by batch size, context length and group size (not part of `all`)",
    "dispatch": "how busy two rollout actors are when half of the answers are long (not part of `all`)",
    "publication": "how long new weights of Ouro-1.4B's size take to two rollout actors (not part of `all`)",
    "probes": "what probe rows cost the trainer, and what they save in variance (not part of `all`)",
}
"""Name -> what is measured."""
PAGE = "page"
"""Not a benchmark: `ouro-rl bench page FILE.json...` prints JSON files as a Markdown page."""


def check_name(name: str) -> None:
    """Raise UserError, with the closest name, if there is no benchmark `name`."""
    known = [*BENCHMARKS, PAGE]
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
        raise UserError(f"bench {name}: no benchmark of this name; {hint}")
