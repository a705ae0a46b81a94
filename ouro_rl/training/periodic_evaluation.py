"""Held-out evaluation during training: its figures in the metrics, the best weights kept, and an early stop.

The state is what the run folder holds (the rows of `metrics.jsonl`), so a resumed run decides as one that was not
interrupted."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from accelerate.utils import broadcast_object_list
from transformers import TrainerCallback

from ouro_rl.evaluation.rows import EvalRow
from ouro_rl.run_dir.open_or_resume import evaluated_alike_since
from ouro_rl.run_dir.run_dir import RunDir

if TYPE_CHECKING:
    from ouro_rl.training.trainer import OuroGRPOTrainer

METRICS = {
    "eval/accuracy": "accuracy",
    "eval/depth": "mean_depth",
    "eval/length": "mean_length",
    "eval/cut_off": "cut_off",
}
"""Names in `metrics.jsonl` -> fields of `EvalRow`."""
BEST_FILE = "evaluation.json"
"""In the folder of the best weights: the update that made them, and their evaluation."""

History = list[tuple[int, float]]
"""(update, accuracy) of every evaluation so far, in order; update 0 is the policy before training."""


def history_of(run_dir: RunDir) -> History:
    """Without evaluations that were made in another way than now, with which none of now can be compared."""
    before, since = (run_dir.read_summary() or {}).get("accuracy_before"), evaluated_alike_since(run_dir)
    rows = [row for row in run_dir.read_metrics() if "eval/accuracy" in row and row["step"] > since]
    return [*([] if before is None else [(0, before)]), *((row["step"], row["eval/accuracy"]) for row in rows)]


def best_of(history: History) -> tuple[int, float]:
    """The evaluation with the highest accuracy; of equal ones the first."""
    return max(history, key=lambda entry: (entry[1], -entry[0]))


def best_kept(run_dir: RunDir) -> tuple[int, float] | None:
    """(update, accuracy) of the weights in the folder of the best ones; None if it is empty."""
    path = run_dir.best_path / BEST_FILE
    if not path.exists():
        return None
    figures = json.loads(path.read_text())
    return figures["step"], figures["accuracy"]


def best_figures(run_dir: RunDir) -> dict:
    """The evaluation of the best weights that are kept, under the keys of `summary.json`: None where no weights were
    better than those before training."""
    step, accuracy = best_kept(run_dir) or (None, None)
    return {"best_step": step, "best_accuracy": accuracy}


def drop_foreign_best(run_dir: RunDir) -> None:
    """Delete the best weights if their evaluation is not in the run's history: a resumed run went back to before it,
    or evaluates in another way now."""
    kept = best_kept(run_dir)
    if kept is not None and kept not in history_of(run_dir):
        print(f"{run_dir.best_path}: dropped; the run as resumed has no such evaluation after update {kept[0]}")
        shutil.rmtree(run_dir.best_path)


def is_stalled(history: History, patience: int | None) -> bool:
    """Whether the last `patience` evaluations, or more, were no better than one before them."""
    return patience is not None and bool(history) and sum(step > best_of(history)[0] for step, _ in history) >= patience


class PeriodicEvaluation(TrainerCallback):
    """Evaluates every `eval.every` updates and after the last one, always in the same way.

    `examine` evaluates what `publish` has given to the rollout workers; both are None off the main process."""

    def __init__(
        self,
        trainer: OuroGRPOTrainer,
        examine: Callable[[str], EvalRow] | None,
        publish: Callable | None,
    ):
        self.trainer, self.examine, self.publish = trainer, examine, publish
        self.run_dir, self.asked = trainer.run_dir, trainer.train_config.eval
        self.history: History = []
        self.last: tuple[int, EvalRow] | None = None
        """The newest evaluation, after so many updates."""

    def on_train_begin(self, args, state, control, **_):
        if self.examine is not None:
            self.history = history_of(self.run_dir)

    def on_step_end(self, args, state, control, **_):
        assert self.asked.every is not None
        step = state.global_step
        if step % self.asked.every and step < state.max_steps:
            return
        stalled = [False]
        if self.examine is not None:
            self._evaluate(step)
            stalled = [is_stalled(self.history, self.asked.patience)]
        if broadcast_object_list(stalled)[0] and step < state.max_steps:
            control.should_save = control.should_training_stop = True

    def row_after(self, step: int) -> EvalRow | None:
        """The evaluation of the policy after this update, if it was made during training: the one after training."""
        return None if self.last is None or self.last[0] != step else replace(self.last[1], name="after")

    def _evaluate(self, step: int) -> None:
        assert self.examine is not None and self.publish is not None
        started = time.monotonic()
        if self.trainer.prefetcher is not None:
            self.trainer.prefetcher.wait()  # weights do not change under a sample
        self.publish(self.trainer.accelerator.unwrap_model(self.trainer.model).state_dict(), step)
        row = self.examine(f"update {step}")
        self.last = step, row
        self.history.append((step, row.accuracy))
        if self._is_best(row.accuracy):
            self._keep(step, row)
        figures = {name: getattr(row, field) for name, field in METRICS.items()}
        self.trainer.step_metrics.update(figures | {"time/eval_s": time.monotonic() - started})

    def _is_best(self, accuracy: float) -> bool:
        """Whether it is higher than that of the weights that are kept, or else than that before training."""
        to_beat = best_kept(self.run_dir) or next((entry for entry in self.history if entry[0] == 0), None)
        return to_beat is None or accuracy > to_beat[1]

    def _keep(self, step: int, row: EvalRow) -> None:
        """Write the weights beside the best ones so far and take their place."""
        folder = self.run_dir.best_tmp_path
        shutil.rmtree(folder, ignore_errors=True)
        self.trainer.save_model(str(folder), _internal_call=True)
        (folder / BEST_FILE).write_text(json.dumps({"step": step, **asdict(row)}, indent=2) + "\n")
        self.run_dir.replace_best()
