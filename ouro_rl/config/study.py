"""The configuration of `ouro-rl study`: many training runs, measured alike."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, model_validator

from ouro_rl.config.rollout import ExitRuleConfig
from ouro_rl.config.section import Conflict, Section
from ouro_rl.config.train import Seed

ARM_NAME = re.compile(r"[a-z][a-z0-9_]*")


class StudyEvaluation(Section):
    """How every checkpoint is measured: greedy answers to the same held-out problems, under several exit rules."""

    problems: int = Field(default=500, ge=2)
    """Number of held-out problems, from `eval.source` of the base config."""
    depths: tuple[Annotated[int, Field(ge=1)], ...] = (1, 2, 3, 4)
    """Fixed numbers of loops to measure at."""
    thresholds: tuple[Annotated[float, Field(gt=0, le=1)], ...] = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
    """Q-exit thresholds to measure at."""
    sample: bool = True
    """Also measure with depths sampled from the gate."""
    difficulty: str = "difficulty"
    """Column that holds each problem's difficulty, a whole number; generated problems have `difficulty`."""


class ArmConfig(Section):
    """One way of training. `eval.exit_rule` of its config is the rule that it is served with."""

    about: str = ""
    """One line for the tables."""
    configs: tuple[str, ...] = ()
    """Further config files, merged over those of `base`."""
    overrides: dict[str, Any] = {}
    """Dotted keys of the training config and their values."""
    start: str | None = None
    """Arm whose checkpoint of the same seed this arm starts from. null: `model.path`."""
    train: bool = True
    """false: nothing is trained, and the checkpoint that the arm starts from is measured."""
    marginal_of: str | None = None
    """Arm whose depths (of the same seed, under the rule that it is served with) give the probabilities of this arm's
    exit rule `iid`, in rollouts and in evaluation."""
    rules: tuple[ExitRuleConfig, ...] = ()
    """Exit rules to measure besides those of `evaluation`."""
    keep: bool = False
    """true: results that are there are kept whatever has changed since, and none is made: what they measured, today's
    code no longer does."""
    seeds: tuple[Seed, ...] | None = None
    """The arm runs at those of the study's seeds that are among these. null: at all of them."""

    @property
    def needs(self) -> tuple[str, ...]:
        """The arms that must be measured before this one can begin."""
        return tuple(dict.fromkeys(name for name in (self.start, self.marginal_of) if name is not None))


class StudyConfig(Section):
    """`ouro-rl study`. The file's name is the study's."""

    base: tuple[str, ...] = Field(min_length=1)
    """Training configs, merged from left to right: files (relative to this one) or names of packaged configs."""
    overrides: dict[str, Any] = {}
    """Dotted keys of the training config and their values, for all arms."""
    arms: dict[str, ArmConfig] = Field(min_length=1)
    """The arms by name; each is trained with every seed."""
    seeds: tuple[Seed, ...] = Field(default=(0, 1, 2, 3, 4), min_length=1)
    """Seeds (`run.seed`); runs with the same seed are compared as pairs."""
    evaluation: StudyEvaluation = StudyEvaluation()
    """How every checkpoint is measured."""
    references: tuple[str, ...] = ()
    """Arms that are compared with all others, at equal loops per answer, with a table each. Empty: the first arm."""
    minutes_per_run: float = Field(default=5.0, gt=0)
    """Estimate for the plan, until runs have been timed."""
    runs: Path = Path("runs/study")
    """Folder of the training runs, with their checkpoints."""

    @property
    def reference_arms(self) -> tuple[str, ...]:
        return self.references or (next(iter(self.arms)),)

    def seeds_of(self, arm: str) -> tuple[int, ...]:
        seeds = self.arms[arm].seeds
        return tuple(seed for seed in self.seeds if seeds is None or seed in seeds)

    @model_validator(mode="after")
    def _fits(self) -> StudyConfig:
        if wrong := [name for name in self.arms if not ARM_NAME.fullmatch(name)]:
            text = f"arms.{wrong[0]}: use lower-case letters, digits and _ in the name of an arm"
            raise Conflict(text, f"arms.{wrong[0]}")
        if unknown := [name for name in self.references if name not in self.arms]:
            text = f"references: there is no arm {unknown[0]}; there are {', '.join(self.arms)}"
            raise Conflict(text, "references")
        for name, arm in self.arms.items():
            self._check_arm(name, arm)
        if cycle := next((name for name in self.arms if name in _all_needs(self.arms, name)), None):
            raise Conflict(f"arms.{cycle}: waits for itself through start or marginal_of; break the circle", "arms")
        return self

    def _check_arm(self, name: str, arm: ArmConfig) -> None:
        if unknown := [needed for needed in arm.needs if needed not in self.arms]:
            text = f"arms.{name}: there is no arm {unknown[0]}; there are {', '.join(self.arms)}"
            raise Conflict(text, f"arms.{name}")
        for needed in arm.needs:
            if surplus := sorted(set(self.seeds_of(name)) - set(self.seeds_of(needed))):
                text = f"arms.{name}.seeds: {needed} has no seed {surplus[0]}; leave it out"
                raise Conflict(text, f"arms.{name}.seeds", "seeds")


def _all_needs(arms: dict[str, ArmConfig], name: str) -> set[str]:
    """All arms that must come before `name`."""
    found: set[str] = set()
    left = list(arms[name].needs)
    while left:
        if (needed := left.pop()) not in found:
            found.add(needed)
            left += arms[needed].needs
    return found
