"""What happens around the updates: stopping on a signal, the experiment trackers, and the progress bar."""

from __future__ import annotations

import os
import signal

from accelerate.utils import gather_object
from tqdm import tqdm
from transformers import TrainerCallback

from ouro_rl.core.watchdog import beat
from ouro_rl.run_dir.loggers import Loggers

STDERR = 2


class StopOnSignal(TrainerCallback):
    """SIGINT or SIGTERM stops the run after the current update, with a checkpoint. A second one exits at once."""

    def __init__(self) -> None:
        self.received: int | None = None

    def __enter__(self) -> StopOnSignal:
        self.previous = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, _frame) -> None:
        if self.received is not None:
            os._exit(128 + number)
        self.received = number
        # Not through Python's streams: the signal may have interrupted a write to one.
        os.write(STDERR, b"\nStopping after this update; interrupt again to exit immediately.\n")

    def on_step_end(self, args, state, control, **_):
        self.received = max(gather_object([self.received or 0])) or None  # all processes stop after the same update
        if self.received is not None:
            control.should_save = True
            control.should_training_stop = True


class LogToTrackers(TrainerCallback):
    """Gives each row of `metrics.jsonl` to the experiment trackers (`log`); on the main process."""

    def __init__(self, loggers: Loggers):
        self.loggers = loggers

    def on_log(self, args, state, control, logs=None, **_):
        if logs and "loss" in logs:  # the trainer has just written a row; the closing summary is none
            self.loggers.update(state.global_step)

    def on_train_end(self, args, state, control, **_):
        self.loggers.close()


class Beats(TrainerCallback):
    """Tells the watchdog that training gets on."""

    def on_step_begin(self, args, state, control, **_):
        beat(f"update {state.global_step + 1}")

    on_substep_end = on_step_end = on_save = on_step_begin


class Progress(TrainerCallback):
    """A progress bar over updates, with the reward, depth, cut-off share and tokens/s of the last one."""

    def __init__(self) -> None:
        self.bar = tqdm(disable=True)  # shows nothing, until training begins

    def close(self) -> None:
        """Leave the bar as it is, and its line: what is said next, such as why the run stopped, gets its own."""
        self.bar.close()

    def on_train_begin(self, args, state, control, **_):
        self.bar = tqdm(total=state.max_steps, initial=state.global_step, desc="train", unit="step", dynamic_ncols=True)

    def on_log(self, args, state, control, logs=None, **_):
        if logs and "reward/mean" in logs:  # absent when a batch of rollouts is reused
            self.bar.set_postfix_str(
                f"reward {logs['reward/mean']:.2f}, depth {logs['depth/mean']:.2f}, "
                f"cut off {logs['completion/cut_off']:.0%}, {logs['tokens/s']:.0f} tokens/s",
                refresh=False,
            )
        self.bar.update(state.global_step - self.bar.n)

    def on_train_end(self, args, state, control, **_):
        self.close()
