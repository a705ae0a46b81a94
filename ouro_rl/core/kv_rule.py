"""KV rules: which keys and values of earlier tokens attention reads when every token ran its own number of loops.

Token j exited after loop d_j of at most `max_loops`. A query at position i >= j and loop t reads from token j:

    last_exited   the keys and values of loop min(t, d_j): an exited token keeps those of its last loop
    full          those of loop t: every token runs all loops, and its depth only selects the state for the LM head
                  (as in the published code; saves no compute, kept for comparison)
    skip          those of loop t if t <= d_j, else nothing: a token is visible only at the loops it ran
                  (recursion-wise caching, arXiv 2507.10524)

Under every rule loop t depends only on loops <= t, so one parallel forward pass reproduces sequential generation.
Prompt tokens run `max_loops` loops under every rule, and a token always reads itself (t <= d_i while it runs). When all
depths are equal, the rules agree.

The rollout engine, the trainer's replay and the slow reference in the tests all take the rule from here: the reference
through `loops_run` and `version_read`, the engine and the replay through the two properties.
"""

from __future__ import annotations

from enum import StrEnum


class KVRule(StrEnum):
    LAST_EXITED = "last_exited"
    FULL = "full"
    SKIP = "skip"

    def loops_run(self, depth: int, max_loops: int) -> int:
        """Number of loops at which a token of this depth runs and writes keys and values."""
        return max_loops if self.runs_all_loops else depth

    def version_read(self, loop: int, depth: int) -> int | None:
        """The loop (1-based) whose keys and values a query at `loop` reads from a token of this depth. None: it does
        not see the token."""
        if self is KVRule.FULL:
            return loop
        if self is KVRule.SKIP:
            return loop if loop <= depth else None
        return min(loop, depth)

    @property
    def runs_all_loops(self) -> bool:
        """Whether a token keeps running after its exit; the state at its depth is kept for the LM head."""
        return self is KVRule.FULL

    @property
    def leaves_gaps(self) -> bool:
        """Whether some positions are not visible at a loop, so that its block table has fewer entries than
        positions."""
        return self is KVRule.SKIP
