"""The split must not change: published checkpoints and data sets depend on it."""

from __future__ import annotations

from ouro_rl.tasks.held_out import HELD_OUT_SHARE, is_held_out


def test_the_split_has_not_changed() -> None:
    assert [n for n in range(100) if is_held_out(f"{n}+3")] == [4, 9, 19, 35, 37, 40, 59, 70, 85]


def test_the_held_out_share_is_as_declared() -> None:
    texts = 20_000
    held_out = sum(is_held_out(str(number)) for number in range(texts))
    assert abs(held_out / texts - HELD_OUT_SHARE) < 0.01
