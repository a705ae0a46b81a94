"""Where a study stands: which runs are done, which are to be done (again), and how long that may take."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ouro_rl.evaluation.study.plan import Job, Run, Study, make_job, trained_checkpoint, weights_hash
from ouro_rl.run_dir.study_result import StudyResult, read_result

MEASURING = 0.2
"""Estimated time of measuring alone, as a part of a run that also trains."""


@dataclass(frozen=True, kw_only=True)
class State:
    """What is known of one run."""

    run: Run
    result: StudyResult | None
    """A result that is current; None if there is none."""
    job: Job | None
    """What to do, or what was done; None while other runs must come first."""
    reason: str
    """Why it is to be done again, or later; empty if it is done, or was never begun."""

    @property
    def done(self) -> bool:
        return self.result is not None

    @property
    def refused(self) -> bool:
        """Whether it can't be done: today's code would not do what its result is to be kept for."""
        return self.reason in (KEPT_MISSING, KEPT_WITHOUT_CHECKPOINT)


CHECKPOINT_GONE = "its checkpoint is gone"
"""The reason why a run is done again whose result is there and valid: another one starts from its checkpoint."""
KEPT_MISSING = "a result to be kept is missing, and today's code would make another one: restore it, or drop the arm"
KEPT_WITHOUT_CHECKPOINT = "its result is to be kept, its checkpoint is gone, and today's code would train another one"


def states_of(study: Study, only: Sequence[str] = ()) -> list[State]:
    """The state of every run, in the order in which they are done; `only` as in `Study.runs`.

    Raises UserError like `Study.runs` and `read_result`."""
    states: dict[str, State] = {}
    for run in study.runs(only):
        results = {need.arm: states[need.name].result for need in run.needs}
        states[run.name] = state_of(run, {arm: result for arm, result in results.items() if result is not None})
    for state in reversed(list(states.values())):  # a run that starts from another one's checkpoint comes after it
        start = start_of(state.run)
        if start is None or states[state.run.name].done:
            continue
        before = states[start.name]
        if before.result is not None and not has_checkpoint(before.run, before.result):
            reason = KEPT_WITHOUT_CHECKPOINT if start.arm_config.keep else CHECKPOINT_GONE
            states[start.name] = State(run=start, result=None, job=before.job, reason=reason)
    return list(states.values())


def state_of(run: Run, results: Mapping[str, StudyResult]) -> State:
    """The state of a run. `results`: of the runs that it needs, by arm, as far as they are done."""
    waits = [need.name for need in run.needs if need.arm not in results]
    if waits:
        return State(run=run, result=None, job=None, reason=f"after {' and '.join(waits)}")
    job, found = make_job(run, results), read_result(run.result_path)
    if found is None:
        reason = "its result has another format" if run.result_path.exists() else ""
        reason = KEPT_MISSING if run.arm_config.keep else reason
        return State(run=run, result=None, job=job, reason=reason)
    if not run.arm_config.keep and (change := job.changed(found.settings)):
        return State(run=run, result=None, job=job, reason=f"its config has changed: {change}")
    return State(run=run, result=found, job=job, reason="")


def start_of(run: Run) -> Run | None:
    """The run whose checkpoint a run starts from."""
    return next((need for need in run.needs if need.arm == run.arm_config.start), None)


def has_checkpoint(run: Run, result: StudyResult) -> bool:
    """Whether the checkpoint that a result was measured on is still there."""
    checkpoint = trained_checkpoint(run)
    return checkpoint is not None and weights_hash(str(checkpoint)) == result.checkpoint


def minutes_of(state: State, states: Sequence[State]) -> float:
    """How long a run took; else an estimate: the mean of its arm, of the study's runs of its kind, or the config's."""
    if state.result is not None:
        return state.result.minutes
    trains = state.run.arm_config.train
    timed = [
        (other.run.arm, other.result.minutes)
        for other in states
        if other.result is not None and other.run.arm_config.train == trains
    ]
    same = [minutes for arm, minutes in timed if arm == state.run.arm]
    if known := same or [minutes for _, minutes in timed]:
        return statistics.fmean(known)
    return state.run.study.config.minutes_per_run * (1 if trains else MEASURING)


def plan_table(study: Study, states: Sequence[State], jobs: int) -> str:
    """The plan as text, one line per run, with the time that is left."""
    width = max(len(state.run.name) for state in states)
    lines = [
        f"  {state.run.name:<{width}}  {'done' if state.done else 'to do':<5}  {minutes_of(state, states):6.1f} min"
        + (f"  {state.reason}" if state.reason else "")
        for state in states
    ]
    left = [minutes_of(state, states) for state in states if not state.done]
    head = f"{study.name}: {len(states) - len(left)} of {len(states)} runs done; "
    head += f"about {sum(left) / jobs:.0f} minutes are left with --jobs {jobs}" if left else "nothing is left to do"
    return "\n".join([head, *lines])
