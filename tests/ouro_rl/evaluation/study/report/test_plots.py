"""The plots of a study, however many arms it has."""

import matplotlib.figure
import pytest

from ouro_rl.evaluation.study.report.plots import FORMATS, Line, frontier_plot


@pytest.fixture
def drawn(monkeypatch):
    """The figures that are made, each once."""
    figures = {}
    save = matplotlib.figure.Figure.savefig

    def keep(figure, *arguments, **settings):
        figures[id(figure)] = figure
        return save(figure, *arguments, **settings)

    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", keep)
    return figures


@pytest.mark.parametrize("arms", [1, 12, 40])
def test_every_arm_is_in_the_legend_and_looks_different(tmp_path, drawn, arms):
    lines = [Line(name=f"arm_{index}", served=(index, 0.5)) for index in range(arms)]
    frontier_plot(lines, x_label="x", y_label="y", title="t", files=tmp_path / "plot")
    assert all((tmp_path / f"plot.{suffix}").stat().st_size for suffix in FORMATS)
    (figure,) = drawn.values()
    (axis,) = figure.axes
    legend = axis.get_legend()
    assert [text.get_text() for text in legend.get_texts()] == [line.name for line in lines]
    box, page = legend.get_window_extent(), figure.bbox
    assert box.y0 >= page.y0 and box.y1 <= page.y1 and box.x1 <= page.x1, (box, page)
    looks = {(tuple(bars.lines[0].get_color()), bars.lines[0].get_marker()) for bars in axis.containers}
    assert len(looks) == arms
    assert axis.get_position().height > 0.6
