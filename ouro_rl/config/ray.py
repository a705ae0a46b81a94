"""The `ray` section of the configuration: where rollout actors run, and when one of them has failed."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ouro_rl.config.section import Section


class RayConfig(Section):
    """Used with `rollout.workers` above 0 (docs/faults.md)."""

    address: str | None = None
    """A Ray cluster that runs already: `host:port` of its head, `auto` (the one that `ray start` started on this
    machine), or `local` (one of the run's own). null: that of the environment variable `RAY_ADDRESS`, else `local`."""
    placement: Literal["pack", "spread"] = "pack"
    """Actors on as few nodes as possible, or evenly on all."""
    heartbeat_s: float = Field(default=10.0, ge=3)
    """An actor that does not answer for so many seconds (stopped, or its machine unreachable) is killed and
    replaced."""
    stall_s: float = Field(default=600.0, gt=0)
    """An actor that has samples to continue and does not get on for so many seconds is killed and replaced; the log
    says where it was."""
    tries: int = Field(default=3, ge=1)
    """A prompt whose actor has died so many times while nothing else ran on it is set aside: it is left out of the
    update, counted in `rollout/lost`, and not tried again in this run."""
