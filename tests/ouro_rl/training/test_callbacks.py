from types import SimpleNamespace

from ouro_rl.training.callbacks import LogToTrackers, Progress


def test_trackers_get_each_row_and_not_the_closing_summary():
    calls = []
    loggers = SimpleNamespace(update=lambda step: calls.append(step), close=lambda: calls.append("closed"))
    callback, state = LogToTrackers(loggers), SimpleNamespace(global_step=3)
    callback.on_log(None, state, None, logs={"loss": 0.5, "reward/mean": 1.0})
    callback.on_log(None, state, None, logs={"train_runtime": 1.0})
    callback.on_train_end(None, state, None)
    assert calls == [3, "closed"]


def test_what_is_said_after_the_bar_has_its_own_line(capsys):
    """Also where training stops with an error, and transformers calls no `on_train_end`."""
    progress, state = Progress(), SimpleNamespace(global_step=0, max_steps=3)
    progress.close()
    assert capsys.readouterr().err == "", "no bar yet"
    progress.on_train_begin(None, state, None)
    shown = capsys.readouterr().err
    progress.close()
    progress.on_train_end(None, state, None)
    shown += capsys.readouterr().err
    assert shown.count("\n") == 1 and shown.endswith("\n")
