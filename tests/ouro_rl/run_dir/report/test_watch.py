import pytest

from ouro_rl.core.errors import UserError
from ouro_rl.run_dir.report import watch as watch_module
from ouro_rl.run_dir.report.watch import POLL_S, watch
from tests.ouro_rl.run_dir.report.test_page import SUMMARY, make_run, metrics

RELOAD = f'<meta http-equiv="refresh" content="{POLL_S:g}">'


def test_the_page_follows_the_run_until_it_has_finished(tmp_path, capsys, monkeypatch):
    run = make_run(tmp_path / "run", steps=1, summary=None)
    seen, written, write = [], [], watch_module.write_report
    monkeypatch.setattr(watch_module, "write_report", lambda *a, **o: written.append(len(seen)) or write(*a, **o))

    def sleep(seconds: float) -> None:
        page = run.report_path.read_text(encoding="utf-8")
        seen.append((RELOAD in page, "step 2" in page))
        assert seconds >= POLL_S
        if len(seen) == 2:  # nothing new after the first look
            run.append_metrics(metrics(2))
        if len(seen) == 3:
            run.write_summary(SUMMARY)

    assert watch(run.path, sleep=sleep) == run.report_path
    assert seen == [(True, False), (True, False), (True, True)]
    assert written == [0, 2, 3], "not written after the first look, when nothing was new"
    page = run.report_path.read_text(encoding="utf-8")
    assert RELOAD not in page and "finished, step 2" in page
    assert "Ctrl-C" in capsys.readouterr().out


def test_without_a_run_there_is_nothing_to_watch(tmp_path):
    with pytest.raises(UserError, match="no such run directory"):
        watch(tmp_path / "none", sleep=lambda _: pytest.fail("it waits"))
