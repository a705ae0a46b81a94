"""What a study has measured so far: its config, and the answers of every arm."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ouro_rl.config.study import StudyConfig
from ouro_rl.evaluation.study.report.frontier import Outcomes, outcomes_of
from ouro_rl.run_dir.study_result import StudyResult, read_results


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A study's config and what has been measured so far."""

    name: str
    config: StudyConfig
    arms: Mapping[str, Outcomes]
    """In the order of the config; arms without a result are left out."""
    missing: Mapping[str, tuple[int, ...]]
    """Arms with runs that have no result -> their seeds."""
    outdated: Mapping[str, str]
    """Runs whose config has changed since -> what has changed."""

    @property
    def has_oracle(self) -> bool:
        """Whether the task says how many loops its answers need."""
        return all(arm.needed_loops is not None for arm in self.arms.values())

    @property
    def references(self) -> tuple[str, ...]:
        """Those with results."""
        return tuple(arm for arm in self.config.reference_arms if arm in self.arms)


def collect(folder: Path, name: str, config: StudyConfig, outdated: Mapping[str, str]) -> Measured:
    """The results of the arms that the config has."""
    results: dict[str, list[StudyResult]] = {arm: [] for arm in config.arms}
    for result in read_results(folder):
        if result.arm in results and result.seed in config.seeds_of(result.arm):
            results[result.arm].append(result)
    missing = {
        arm: tuple(seed for seed in config.seeds_of(arm) if seed not in {result.seed for result in found})
        for arm, found in results.items()
    }
    arms = {arm: outcomes_of(found) for arm, found in results.items() if found}
    missing = {arm: seeds for arm, seeds in missing.items() if seeds}
    return Measured(name=name, config=config, arms=arms, missing=missing, outdated=outdated)
