"""Which settings read loops that tokens did not run, and what they need."""

from __future__ import annotations

from collections.abc import Mapping

from ouro_rl.config.section import Conflict

READING_ALL_LOOPS = ("rao_blackwell", "expected", "stage2", "rltt_uniform", "rltt_progressive", "rltt_exit")
"""Values of `gate.mode`, `gate.credit`, `gate.cost` and `trainer.credit` that need probed loops."""
FINITE = ("stage2", "rltt_uniform", "rltt_progressive", "rltt_exit")
"""Those that need a token's log-prob at every loop, which is -inf where a loop's filters drop the token."""


def check_probes(settings: Mapping[str, str], *, probe_share: float, restricted: bool) -> None:
    """Raise `Conflict` where one of the `settings` (their values by dotted key) lacks what it reads.

    `restricted`: rollouts drop tokens by rank or probability."""
    for key, value in settings.items():
        if value not in READING_ALL_LOOPS:
            continue
        if not probe_share:
            raise Conflict(
                f"{key} `{value}` reads all loops of a token; set gate.probe_share above 0", key, "gate.probe_share"
            )
        if key in ("gate.credit", "gate.cost") and settings["gate.mode"] != "policy":
            mode = settings["gate.mode"]
            raise Conflict(
                f"{key} `{value}` has no effect with gate.mode `{mode}`; set it to `policy`", key, "gate.mode"
            )
        if value in FINITE and restricted:
            raise Conflict(
                f"{key} `{value}` needs each token's probability at every loop, which rollout.top_k, top_p and min_p "
                "can make 0; switch them off",
                key,
                "rollout.top_k",
                "rollout.top_p",
                "rollout.min_p",
            )
