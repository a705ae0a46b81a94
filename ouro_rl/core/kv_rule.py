"""What a token reads of those before it, when each of them ran its own number of loops.

Token j left after loop d_j, of `max_loops` allowed. A row at loop t (of position i >= j) reads, of token j:

    last_exited   what it wrote at loop min(t, d_j): a token that has left stays as it was
    full          what it wrote at loop t: every token runs all loops, and its depth only picks the state that the head takes (the
                  published code; saves nothing, and is there for comparison)
    skip          what it wrote at loop t, and nothing when it had left (t > d_j): a token is seen only at the loops that it ran
                  (arXiv 2507.10524, recursion-wise caching)

In each of them loop t depends on loops <= t alone, so one parallel forward reproduces a sequential generation. Prompts run
`max_loops` loops under every rule, and a token always reads itself (t <= d_i while it runs). When all depths are equal the rules agree.

The rollout engine, the trainer's replay and the slow reference of the tests all take the rule from here: the reference by
`loops_run` and `version_read`, the fast sides by the two questions that they need answered.
"""

from __future__ import annotations

from enum import StrEnum


class KVRule(StrEnum):
    LAST_EXITED = "last_exited"
    FULL = "full"
    SKIP = "skip"

    def loops_run(self, depth: int, max_loops: int) -> int:
        """Loops that a token of this depth runs, and writes keys and values at."""
        return max_loops if self.runs_all_loops else depth

    def version_read(self, loop: int, depth: int) -> int | None:
        """The loop (from 1) whose keys and values a row at `loop` reads of a token of this depth; None: it does not see it."""
        if self is KVRule.FULL:
            return loop
        if self is KVRule.SKIP:
            return loop if loop <= depth else None
        return min(loop, depth)

    @property
    def runs_all_loops(self) -> bool:
        """A token goes on after its depth is decided; the state at its depth is kept for the head."""
        return self is KVRule.FULL

    @property
    def leaves_gaps(self) -> bool:
        """At loop t some positions are not seen: what is read there is a list of fewer entries than positions."""
        return self is KVRule.SKIP
