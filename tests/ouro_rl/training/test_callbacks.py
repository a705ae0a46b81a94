from types import SimpleNamespace

from ouro_rl.training.callbacks import LogToTrackers


def test_trackers_get_each_row_and_not_the_closing_summary():
    calls = []
    loggers = SimpleNamespace(update=lambda step: calls.append(step), close=lambda: calls.append("closed"))
    callback, state = LogToTrackers(loggers), SimpleNamespace(global_step=3)
    callback.on_log(None, state, None, logs={"loss": 0.5, "reward/mean": 1.0})
    callback.on_log(None, state, None, logs={"train_runtime": 1.0})
    callback.on_train_end(None, state, None)
    assert calls == [3, "closed"]
