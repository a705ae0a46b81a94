import pytest

from ouro_rl.core.errors import UserError
from ouro_rl.run_dir.report.compare import overlaid_panels, overlaid_rows, write_comparison
from ouro_rl.run_dir.report.record import load_record
from tests.ouro_rl.run_dir.report.test_page import SUMMARY, Page, make_run, metrics


def test_two_runs_on_one_page(tmp_path):
    one = make_run(tmp_path / "one", steps=6, summary=SUMMARY | {"length_before": 10.0, "length_after": 20.0})
    two = make_run(tmp_path / "two", steps=3, summary=None)
    two.config_path.write_text("run: {seed: 4, dir: two}\ntrainer: {logp_gap_limit: 1.0e-05}\n")
    path = write_comparison([one.path, two.path])
    assert path == one.path / "report_with_two.html"
    page = Page(path.read_text(encoding="utf-8"))
    for words in (
        "one and two",
        "finished, step 6",
        "stopped before its end, step 3",
        "40 % → 65 %",
        "run.seed34",
        "10 → 20",
    ):
        assert words in page.text, words
    assert "run.dir" not in page.text and "logp_gap_limit" not in page.text  # the folder, and what does not differ
    assert "Mean reward: one 0.1 → 0.6, two 0.1 → 0.3." in page.text
    assert "script" not in page.tags


def test_rows_and_panels_hold_a_line_for_each_run(tmp_path):
    records = [load_record(make_run(tmp_path / name, steps=steps).path) for name, steps in (("a", 2), ("b", 3))]
    rows = overlaid_rows(records)
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert rows[0]["0:reward/mean"] == rows[0]["1:reward/mean"] == metrics(1)["reward/mean"]
    assert "0:reward/mean" not in rows[2] and rows[2]["1:reward/mean"] == metrics(3)["reward/mean"]
    panels = overlaid_panels(records)
    assert panels["Reward"][0].keys == ("0:reward/mean", "1:reward/mean") and panels["Reward"][0].labels == ("a", "b")
    assert [panel.title for panel in panels["Answers"]][:2] == [
        "Tokens per completion: mean",
        "Tokens per completion: longest",
    ]
    assert [panel.title for panel in panels["Depth"]] == ["Mean depth (loops per token)"]  # no stack


def test_runs_of_one_name_are_told_apart_by_their_folders(tmp_path):
    runs = [make_run(tmp_path / name / "run", steps=1, summary=None).path for name in ("x", "y")]
    page = Page(write_comparison(runs, tmp_path / "page.html").read_text(encoding="utf-8"))
    assert "x/run and y/run" in page.text and "The same, but for the folders" in page.text


def test_what_cannot_be_compared_is_refused(tmp_path):
    run = make_run(tmp_path / "run", steps=1).path
    with pytest.raises(UserError, match="given twice"):
        write_comparison([run, run])
    with pytest.raises(UserError, match="compares 2 to 4"):
        write_comparison([run] * 5)
    with pytest.raises(UserError, match="no such run directory"):
        write_comparison([run, tmp_path / "none"])
    assert sorted(path.name for path in run.glob("*.html")) == []
