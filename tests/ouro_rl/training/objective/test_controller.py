"""The controller on a plant with delay and noise, and its rules by hand."""

import math
import random
from dataclasses import replace

import pytest

from ouro_rl.training.objective.controller import SETTLED_WINDOW, PriceRule, settled

RULE = PriceRule(start=0.0, target=30.0, rate=0.002, gain=0.05, largest=0.2, window=4, tighten=0.1, after=0, warmup=0)


def plant(rule: PriceRule, start: float, updates: int, seed: int) -> tuple[list[float], list[float]]:
    """Loops per answer and prices: loops drift at a speed that the price of some updates ago sets, with noise."""
    noise, state = random.Random(seed), rule.first_state()
    level, loops, prices = math.log(start), [], [0.0] * 3
    for step in range(updates):
        measured = math.exp(level) * (1 + noise.gauss(0, 0.03))
        price, state = rule.next(state, measured, reward=0.5, step=step)
        prices.append(price)
        loops.append(math.exp(level))
        level += (
            0.05 * (math.log(start) - level) - 1.5 * prices[-3]
        )  # what the reward wants back, and the delayed price
    return loops, prices


@pytest.mark.parametrize("target", [50.0, 40.0, 30.0])
@pytest.mark.parametrize("seed", range(4))
def test_each_target_is_met_within_5_percent_and_overshot_by_no_more_than_10(target, seed):
    loops, _ = plant(replace(RULE, target=target), 60.0, 300, seed)
    settled_at = sum(loops[-50:]) / 50
    assert settled_at == pytest.approx(target, rel=0.05)
    assert min(loops) >= 0.9 * target


def test_it_also_raises_what_is_too_low():
    loops, prices = plant(replace(RULE, target=50.0), 40.0, 300, 0)
    assert sum(loops[-50:]) / 50 == pytest.approx(50.0, rel=0.05) and min(prices) < 0
    assert max(loops) <= 1.1 * 50


def test_the_integral_stands_still_where_it_cannot_act():
    rule = replace(RULE, after=2, warmup=3, tighten=1.0, gain=0.0, rate=0.01)
    state, integrals = rule.first_state(), []
    for step in range(8):
        price, state = rule.next(state, 60.0, 0.5, step)
        integrals.append(state.integral)
        assert (price == 0.0) == (step < 6)
    assert integrals[:5] == [0.0] * 5, "gated, then warming up"
    assert integrals[-1] > 0
    bounded = replace(RULE, tighten=1.0, gain=1.0, rate=0.01)  # the proportional part alone is at the bound
    _, state = bounded.next(bounded.first_state(), 60.0, 0.5, 0)
    assert state.integral == 0.0


def test_without_a_target_the_price_is_constant_after_its_warmup():
    rule, prices = replace(RULE, start=0.1, target=None, warmup=1, after=1), []
    state = rule.first_state()
    for step in range(4):
        price, state = rule.next(state, 99.0, 0.5, step)
        prices.append(price)
    assert prices == pytest.approx([0.0, 0.05, 0.1, 0.1])


def test_the_setpoint_falls_in_steps_each_when_the_last_is_met():
    rule = replace(RULE, target=40.0, gain=0.0, rate=0.0)
    state, seen = rule.first_state(), []
    for step, measured in enumerate([60.0, 60.0, 54.0, 54.0, 54.0, 54.0, 48.0]):
        _, state = replace(rule, window=1).next(state, measured, 0.5, step)
        seen.append(state.setpoint)
    assert seen == pytest.approx([54.0, 54.0, 48.6, 48.6, 48.6, 48.6, 43.74])


@pytest.mark.parametrize(
    "start, beyond, target, steps",
    [(60.0, 44.0, 40.0, [48.6, 43.74, 40.0, 40.0]), (20.0, 31.0, 33.0, [24.2, 26.62, 29.282, 32.2102])],
)
def test_loops_that_are_past_the_setpoint_are_not_called_back(start, beyond, target, steps):
    """On the way down no loop is paid for, on the way up none is charged, until the target is passed."""
    rule = replace(RULE, target=target, window=1)
    _, state = rule.next(rule.first_state(), start, 0.5, 0)
    for step, wanted in enumerate(steps):
        _, state = rule.next(state, beyond, 0.5, step + 1)
        assert state.setpoint == pytest.approx(wanted)


def test_the_price_waits_until_the_reward_has_settled():
    rising = [0.3 + 0.01 * step for step in range(40)] + [0.7] * 30
    assert not settled(rising[: 2 * SETTLED_WINDOW - 1]) and not settled(rising[:40]) and settled(rising)
    rule, state = replace(RULE, after="settled"), RULE.first_state()
    for step, reward in enumerate(rising):
        price, state = rule.next(state, 60.0, reward, step)
        assert price == 0.0 or step > 40
    assert state.opened is not None and 45 <= state.opened <= 60
    assert not settled([0.5] * 19 + [math.nan])
