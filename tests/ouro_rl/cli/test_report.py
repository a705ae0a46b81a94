"""`ouro-rl report` from its arguments to its page."""

import pytest

from ouro_rl.cli.main import main
from tests.ouro_rl.run_dir.report.test_page import SUMMARY, make_run


def test_one_run_and_two(tmp_path, capsys):
    one, two = (make_run(tmp_path / name, steps=1) for name in ("one", "two"))
    assert main(["report", str(one.path)]) == 0
    assert capsys.readouterr().out == f"report: {one.report_path}\n"
    assert main(["report", str(one.path), str(two.path), "--out", str(tmp_path / "both.html")]) == 0
    assert "one and two" in (tmp_path / "both.html").read_text(encoding="utf-8")


def test_watching_a_finished_run_ends_at_once(tmp_path, capsys):
    run = make_run(tmp_path / "run", steps=1, summary=SUMMARY)
    assert main(["report", str(run.path), "--watch"]) == 0
    assert capsys.readouterr().out == f"report: {run.report_path}\n"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["one", "two", "--watch"], "--watch follows one run"),
        (["one", "--out", "page.html"], "--out is the file of a comparison"),
        (["one", "one"], "given twice"),
        (["one", "none"], "no such run directory"),
    ],
)
def test_mistakes_are_told_in_a_line_or_two(options, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in ("one", "two"):
        make_run(tmp_path / name, steps=1)
    assert main(["report", *options]) == 2
    told = capsys.readouterr().err
    assert message in told and len(told.splitlines()) <= 3
    assert not list(tmp_path.rglob("*.html"))
