import math
import re

import pytest

from ouro_rl.run_dir.report import charts
from ouro_rl.run_dir.report.run_charts import reward_parts
from ouro_rl.run_dir.report.style import contrast, depth_palette
from ouro_rl.run_dir.report.text import number, short


def test_a_gap_of_zero_has_a_place_of_its_own():
    rows = [{"step": step, "logp_gap/max": 0.0} for step in range(1, 4)]
    panel = charts.Panel(title="Gap", keys=("logp_gap/max",), log=True)
    chart = charts.step_chart("Replay", [panel], rows)
    assert chart.caption == "Gap: 0 at every step."
    labels = re.findall(r"<text[^>]*>([^<]*)</text>", chart.svg)
    assert "0" in labels and "1e-8" in labels
    some = charts.step_chart("Replay", [panel], [*rows, {"step": 4, "logp_gap/max": 2e-6}])
    assert some.caption == "Gap: at most 2e-06." and "1e-6" in some.svg


def test_parts_of_the_reward_are_drawn_where_there_are_several():
    rows = [{"step": 1, "reward/mean": 1.0, "reward/math": 0.5, "reward/std": 0.1, "reward/unscored": 0.0}]
    assert reward_parts(rows) == {}
    rows[0] |= {"reward/length": 0.2, "reward/math/status/correct": 0.5}
    assert reward_parts(rows) == {"reward/length": "length", "reward/math": "math"}


def test_a_long_run_stays_small():
    rows = [{"step": step, "reward/mean": step / 10_000} for step in range(10_000)]
    chart = charts.step_chart("Reward", [charts.Panel(title="Mean reward", keys=("reward/mean",))], rows)
    assert len(chart.svg) < 40_000


def test_binned_smoothed_and_move():
    points = [(step, float(step)) for step in range(1, 7)]
    assert charts.binned(points, max, limit=3) == [(2, 2.0), (4, 4.0), (6, 6.0)]
    assert charts.binned(points, max, limit=6) == points
    assert charts.binned([], max) == []
    assert charts.smoothed(points) == points  # too short to smooth
    line = [(step, 2.0 * step) for step in range(40)]
    smooth = charts.smoothed(line)
    assert smooth[20] == (20, 40.0) and smooth[0] == (0, 2.0)  # mean of 36..44; mean of 0, 2, 4
    assert charts.move(line, "{:g}".format) == "3 → 75"  # means of 0, 2, 4, 6 and of 72, 74, 76, 78
    assert charts.move([(1, 5.0)], "{:g}".format) == "5"


@pytest.mark.parametrize(("value", "text"), [(0.12345, "0.123"), (2406.6, "2,407"), (-0.5, "−0.5"), (0.0, "0")])
def test_short(value, text):
    assert short(value) == text


@pytest.mark.parametrize("value", [None, math.nan, math.inf, "1", True, [1]])
def test_values_that_are_not_numbers(value):
    assert number(value) is None


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("max_loops", [1, 2, 4, 8])
def test_depth_palette_is_legible_and_ordered(max_loops, dark):
    palette = depth_palette(max_loops, dark=dark)
    assert len(palette) == max_loops
    assert all(contrast(background, text) >= 4.5 for background, text in palette)
    brightness = [contrast(background, "#000000") for background, _ in palette]
    assert brightness == sorted(brightness, reverse=not dark)
