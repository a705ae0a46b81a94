"""Steal time: what other machines took of this one."""

from __future__ import annotations

from ouro_rl.bench.machine import cpu_ticks, stolen_share


def test_steal_time():
    assert stolen_share((100, 10), (300, 60)) == 0.25
    assert stolen_share((100, 10), (100, 10)) is None and stolen_share(None, (1, 0)) is None
    ticks = cpu_ticks()
    assert ticks is None or 0 <= ticks[1] <= ticks[0]
