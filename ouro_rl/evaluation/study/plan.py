"""What a study has to do: its runs, the training config of each, and whether a result is still that config's."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from ouro_rl.config.loader import load_config
from ouro_rl.config.packaged_configs import find_config, find_study
from ouro_rl.config.study import ArmConfig, StudyConfig
from ouro_rl.config.train import TrainConfig
from ouro_rl.core.errors import UserError
from ouro_rl.core.paths import Kind, is_local, kind_of, path_in, put, texts_in
from ouro_rl.core.sampling_params import ExitRule
from ouro_rl.model.checkpoint_files import weight_files
from ouro_rl.run_dir.run_dir import RunDir
from ouro_rl.run_dir.study_result import StudyResult

HASH_DIGITS = 16
WITHOUT_EFFECT = {
    "run.dir", "rollout.workers", "rollout.worker_cpus", "rollout.worker_gpus", "rollout.max_batch",
    "rollout.kv_memory_gib", "rollout.prefill_rows", "rewards.workers", "trainer.checkpoint_every",
    "trainer.keep_checkpoints",
}  # fmt: skip
"""Keys that change where and how fast a run computes, and none of its figures."""


@dataclass(frozen=True, kw_only=True)
class Study:
    """A study's config, and where it reads and writes."""

    name: str
    config: StudyConfig
    folder: Path
    """Of the config file: `base` and `configs` are looked up here first."""
    results: Path
    """Folder of the results: one JSON file per run, the page and its plots."""

    def runs(self, only: Sequence[str] = ()) -> list[Run]:
        """The runs of all arms, or of some and of those that they need: seed by seed, so that pairs come early.

        Raises UserError for an unknown arm."""
        arms = self.config.arms
        if unknown := [name for name in only if name not in arms]:
            raise UserError(f"--only {unknown[0]}: {self.name} has no such arm; it has {', '.join(arms)}")
        wanted = list(only or arms)
        for name in wanted:  # grows while it is read
            wanted += [needed for needed in arms[name].needs if needed not in wanted]
        ordered = [name for name in _in_order(arms) if name in wanted]
        seeds = self.config.seeds
        return [Run(study=self, arm=arm, seed=seed) for seed in seeds for arm in ordered
                if seed in self.config.seeds_of(arm)]  # fmt: skip

    def first_run(self, arm: str) -> Run:
        """For what is the same for every seed."""
        return Run(study=self, arm=arm, seed=self.config.seeds[0])

    def resolved(self, text: str) -> Path:
        """A config file named in the study: next to it, then in the working directory, then a packaged one."""
        beside = self.folder / text
        return beside if beside.is_file() else find_config(text)


@dataclass(frozen=True, kw_only=True)
class Run:
    """One arm at one seed."""

    study: Study
    arm: str
    seed: int

    @property
    def name(self) -> str:
        return f"{self.arm}-{self.seed}"

    @property
    def arm_config(self) -> ArmConfig:
        return self.study.config.arms[self.arm]

    @property
    def result_path(self) -> Path:
        return self.study.results / f"{self.name}.json"

    @property
    def folder(self) -> Path:
        """Of the training run: config, log, run directory."""
        return self.study.config.runs / self.study.name / self.name

    @property
    def needs(self) -> list[Run]:
        return [replace(self, arm=arm) for arm in self.arm_config.needs]


@dataclass(frozen=True, kw_only=True)
class Job:
    """A run whose training config is known, because everything that it needs is done."""

    run: Run
    config: TrainConfig
    """`model.path` is the checkpoint that the arm starts from."""
    rules: tuple[ExitRule, ...]
    """To measure; the served one is among them."""
    start: str
    """SHA-256 of the weights that the arm starts from."""

    @property
    def served(self) -> ExitRule:
        return self.config.eval.exit_rule.rule()

    @cached_property
    def settings(self) -> dict[str, Any]:
        """Everything that the figures depend on, without paths: see `StudyResult.settings`."""
        values = portable(self.config, self.start)
        evaluation = {
            "eval": values.pop("eval"),
            "difficulty": self.run.study.config.evaluation.difficulty,
            "rules": [rule.label() for rule in self.rules],
        }
        train = values if self.run.arm_config.train else {"start": self.start}
        return {"train": train, "evaluation": evaluation, "set": sorted(keys_set(self.config))}

    @property
    def config_hash(self) -> str:
        return hashlib.sha256(json.dumps(self.settings, sort_keys=True).encode()).hexdigest()[:HASH_DIGITS]

    def changed(self, recorded: Mapping[str, Any], parts: Sequence[str] = ("train", "evaluation")) -> str | None:
        """What differs between recorded settings and these, such as `train.gate.lr: 0.001 -> 0.01`; None if nothing.

        A key that only one of the two has, because the other's code does not know it, counts only if it was set to
        something else than its default."""
        old, new = (
            dict(leaves({part: values.get(part, {}) for part in parts})) for values in (recorded, self.settings)
        )
        set_before, set_now = recorded.get("set", ()), self.settings["set"]
        for key in sorted({*old, *new}):
            name = key.partition(".")[2]
            unknown = (key not in old and name not in set_now) or (key not in new and name not in set_before)
            if old.get(key) != new.get(key) and not unknown:
                return f"{key}: {_short(old.get(key))} -> {_short(new.get(key))}"
        return None


def load_study(file: str, overrides: Sequence[str], results: Path) -> Study:
    """A study from its config file, or from the name of a packaged one, such as `hops`. Raises UserError for the first
    mistake in it or in an arm's training config."""
    path = find_study(file)
    config = load_config(StudyConfig, [path], overrides)
    study = Study(name=path.stem, config=config, folder=path.parent, results=results / path.stem)
    for arm in config.arms:
        train_config(study.first_run(arm), marginal=(1.0,))
    return study


def make_job(run: Run, results: Mapping[str, StudyResult]) -> Job:
    """The job of a run. `results`: of the runs that it needs, by arm."""
    arm = run.arm_config
    marginal = results[arm.marginal_of].served_figures.depth_shares if arm.marginal_of else ()
    checkpoint = None if arm.start is None else trained_checkpoint(replace(run, arm=arm.start))
    config = train_config(run, marginal=marginal, checkpoint=checkpoint)
    rules = dict.fromkeys([config.eval.exit_rule.rule(), *study_rules(run)])
    start = weights_hash(config.model.path) if arm.start is None else results[arm.start].checkpoint
    return Job(run=run, config=config, rules=tuple(rules), start=start)


def train_config(run: Run, *, marginal: Sequence[float], checkpoint: Path | None = None) -> TrainConfig:
    """The training config of a run. `marginal`: probabilities of depths, for an arm with `marginal_of`.

    Raises UserError, naming the arm, for a mistake in it."""
    study, arm = run.study, run.arm_config
    files = [study.resolved(text) for text in (*study.config.base, *arm.configs)]
    values: dict[str, Any] = {**study.config.overrides, **arm.overrides}
    if arm.marginal_of is not None:
        rule = {"kind": "iid", "value": None, "probabilities": list(marginal)}
        values |= {"rollout.exit_rule": rule, "eval.exit_rule": rule}
    if checkpoint is not None:
        values["model.path"] = str(checkpoint)
    values |= {
        "eval.limit": study.config.evaluation.problems,
        "rollout.workers": 0,  # one process per run; results are the same for any number of workers
        "run.seed": run.seed,
        "run.dir": str(run.folder / "run"),
        "trainer.keep_checkpoints": 1,
    }
    try:
        config = load_config(TrainConfig, files, [f"{key}={json.dumps(value)}" for key, value in values.items()])
    except UserError as error:
        raise UserError(f"{study.name}, arm {run.arm}: {error}") from None
    if config.eval.source is None:
        raise UserError(f"{study.name}, arm {run.arm}: eval.source is not set, so there is nothing to measure; set it")
    return config


def study_rules(run: Run) -> Iterator[ExitRule]:
    """The exit rules that a run is measured with, besides the one it is served with."""
    asked = run.study.config.evaluation
    yield from (ExitRule(kind="fixed", value=float(depth)) for depth in asked.depths)
    yield from (ExitRule(kind="threshold", value=value) for value in asked.thresholds)
    if asked.sample:
        yield ExitRule()
    yield from (rule.rule() for rule in run.arm_config.rules)


def trained_checkpoint(run: Run) -> Path | None:
    """The checkpoint that a finished run has measured: its last one, or, if nothing was trained, the one it started
    from. None if it is gone."""
    if run.arm_config.train:
        return RunDir(run.folder / "run").latest_checkpoint()
    if run.arm_config.start is None:
        return Path(train_config(run, marginal=(1.0,)).model.path)
    return trained_checkpoint(replace(run, arm=run.arm_config.start))


def portable(config: TrainConfig, start: str) -> dict[str, Any]:
    """A training config with hashes of contents instead of paths, and without keys that have no effect."""
    values = config.model_dump(mode="json")
    for at, text in list(texts_in(values)):
        kind = kind_of(at)
        if kind in (Kind.ROWS, Kind.FUNCTION) and (path := path_in(kind, text)[0]):
            put(values, at, f"{Path(path).name} {_content_hash(Path(path))}{path_in(kind, text)[1]}")
    values["model"]["path"] = start
    for key in WITHOUT_EFFECT:
        section, _, name = key.partition(".")
        del values[section][name]
    if config.gate.mode == "off":  # how a gate would be trained that is not
        chosen = keys_set(config)
        values["gate"] = {key: value for key, value in values["gate"].items() if f"gate.{key}" in chosen}
    return values


def keys_set(config: TrainConfig) -> set[str]:
    """Dotted keys with another value than their default."""
    return {key for key, _ in leaves(config.model_dump(mode="json", exclude_defaults=True))}


def weights_hash(path: str) -> str:
    """SHA-256 of a checkpoint's weights; for a hub id, the id itself."""
    if not is_local(path):
        return path
    return _sha256(weight_files(Path(path), f"model.path {path}"))


def leaves(values: Any, at: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of everything that is not a mapping."""
    if isinstance(values, Mapping):
        for name, value in values.items():
            yield from leaves(value, f"{at}.{name}" if at else name)
    else:
        yield at, list(values) if isinstance(values, tuple) else values


def _content_hash(path: Path) -> str:
    """Of a file, or of all files in a folder."""
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    return _sha256(file for file in files if file.is_file())[:HASH_DIGITS]


def _sha256(files: Iterable[Path]) -> str:
    """Of the contents of all files, one after another."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _in_order(arms: Mapping[str, ArmConfig]) -> list[str]:
    """Arms in the order of the config, each after those that it needs."""
    ordered: list[str] = []

    def add(name: str) -> None:
        for needed in arms[name].needs:
            add(needed)
        if name not in ordered:
            ordered.append(name)

    for name in arms:
        add(name)
    return ordered
