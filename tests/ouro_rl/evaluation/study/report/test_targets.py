"""Whether a controller met its target, from made-up training curves."""

from __future__ import annotations

import pytest

from ouro_rl.config.study import ArmConfig, StudyConfig
from ouro_rl.evaluation.study.report.page import write_study_page
from ouro_rl.evaluation.study.report.targets import SETTLED_UPDATES, WINDOW, overshoot, target_outcome
from ouro_rl.run_dir.study_result import write_result
from tests.ouro_rl.evaluation.study.report.made_up import result, rule

RULES = [rule("threshold 0.5", "11", [2, 4], [1, 1])]
FALLING = [4.0] * WINDOW + [1.8] * WINDOW + [2.1] * SETTLED_UPDATES


def trained(gate, depths=FALLING, prices=()):
    return result("new", 0, RULES, [1, 2], gate=gate, depths=depths, prices=prices)


@pytest.mark.parametrize(
    "curve, beyond",
    [
        (FALLING, 0.1),
        ([1.0] * WINDOW + [2.5] * WINDOW + [2.0] * WINDOW, 0.25),
        ([3.0] * WINDOW + [2.2] * WINDOW, 0.0),
        ([3.0, *([2.0] * WINDOW), 1.0, *([2.0] * WINDOW)], 1 / (2 * WINDOW)),
        ([3.0, 1.0], 0.0),
    ],
)
def test_the_overshoot_is_that_of_a_moving_mean_on_the_far_side_of_the_target(curve, beyond):
    assert overshoot(curve, target=2.0) == pytest.approx(beyond)


def test_a_run_with_a_target_is_judged_by_its_last_updates():
    found = target_outcome(trained({"mode": "policy", "target_depth": 2.0}))
    assert found is not None
    assert (found.target, found.reached, found.overshoot) == pytest.approx((2.0, 2.1, 0.1))


@pytest.mark.parametrize(
    "prices, free, beyond",
    [([0.1] * 80, 0, 0.5), ([0.0] * WINDOW + [0.1] * 70, WINDOW, 0.0), ([0.0] * 80, 80, 0.0)],
)
def test_what_happens_before_the_price_opens_is_no_overshoot(prices, free, beyond):
    depths = [1.0] * (WINDOW // 2) + [3.0] * WINDOW + [2.0] * (80 - WINDOW - WINDOW // 2)
    found = target_outcome(trained({"mode": "policy", "target_depth": 2.0}, depths, prices))
    assert found is not None
    assert (found.opened, found.overshoot) == (free, pytest.approx(beyond))


def test_updates_without_a_figure_count_in_the_curve_as_in_the_prices():
    depths = [*([None] * WINDOW), 3.0, *([1.5] * WINDOW), *([2.0] * SETTLED_UPDATES)]
    prices = [0.0] * WINDOW + [0.1] * (len(depths) - WINDOW)
    found = target_outcome(trained({"mode": "policy", "target_depth": 2.0}, depths, prices))
    assert found is not None
    assert (found.opened, found.reached, found.overshoot) == (WINDOW, 2.0, 0.25)


@pytest.mark.parametrize("gate", [{}, {"mode": "off", "target_depth": 2.0}, {"mode": "policy", "target_depth": None}])
def test_a_run_without_a_target_is_not(gate):
    assert target_outcome(trained(gate)) is None


@pytest.mark.parametrize("gate, shown", [({"mode": "policy", "target_depth": 2.0}, True), ({"mode": "off"}, False)])
def test_the_page_has_the_table_if_an_arm_has_a_target(gate, shown, tmp_path):
    write_result(tmp_path / "new-0.json", trained(gate))
    config = StudyConfig(base=("x",), seeds=(0,), arms={"new": ArmConfig()})
    page = write_study_page(tmp_path, "made_up", config, {}, draws=20).read_text()
    assert ("| new | 1 | 2 | 2.10 | +5.0% | 0 | 10.0% |" in page) == ("## Targets" in page) == shown
