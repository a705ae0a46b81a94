"""Checks that everything a config names exists. They do not import torch, so mistakes are reported before anything
heavy is imported.

Every check raises a UserError of at most three lines and prints nothing if all is well. What cannot be known yet (such
as a broken row) is reported when it is read.
"""

from __future__ import annotations

import difflib
import logging
import re
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ouro_rl.config.train import DataConfig, EvalConfig, TrainConfig
from ouro_rl.core.benchmarks import HUB_BENCHMARKS
from ouro_rl.core.cpus import available_cpus
from ouro_rl.core.errors import UserError
from ouro_rl.core.hub import check_on_hub
from ouro_rl.core.jsonl import column_problem, dotted_value
from ouro_rl.core.paths import HUB_ID, is_row_path
from ouro_rl.core.ray_address import LOCAL, check_ray_address, wanted_address
from ouro_rl.core.row_files import KINDS, first_row, is_row_file
from ouro_rl.core.user_functions import load_function
from ouro_rl.model.checkpoint_files import check_model, trained_loops
from ouro_rl.tasks.catalog import GENERATED

logger = logging.getLogger(__name__)

BENCHMARKS = {
    **{name: task.about for name, task in GENERATED.items()},
    **{name: f"{known.about}, from the hub ({known.hub_id})" for name, known in HUB_BENCHMARKS.items()},
}
MOST_LOAD = 4
"""CPUs requested by rollout workers per available CPU. Up to this ratio a run is only slower; beyond it, a small
machine comes to a halt."""
LIKE = 0.8
"""A name with at least this similarity to that of a generated task is taken for a misspelling of it."""
_HUB_DATA = re.compile(r"[\w.-]+(/[\w.-]+)?")


def check_train_files(config: TrainConfig) -> None:
    """Check model, data, evaluation data, rewards and trackers of a training job."""
    check_trackers(config.log)
    check_model(config.model.path, key="model.path", revision=config.model.revision)
    if (trained := trained_loops(config.model.path)) is not None:
        config.check_loops(trained)
    check_data(config.data)
    if config.eval.source is not None:
        check_benchmark(config.eval.source, None, key="eval.source", columns=_columns("eval", config.eval))
    check_workers(config.rollout.workers, config.rollout.worker_cpus, key="rollout.workers", address=config.ray.address)
    check_rewards(config)
    check_functions(config)


def check_trackers(names: Sequence[str]) -> None:
    """Raise UserError if the package of an experiment tracker, which has its name, is not installed."""
    for name in names:
        if find_spec(name) is None:
            raise UserError(f"log: {name} is not installed; pip install {name}, or leave it out of log")


def check_workers(workers: int, cpus: float, *, key: str, address: str | None = None) -> None:
    """Warn if rollout workers must share CPUs; raise UserError if there are far too many of them. If they run on a Ray
    cluster, by `address` or `RAY_ADDRESS`, it has CPUs of its own: raise UserError if nobody listens there."""
    if workers and (cluster := wanted_address(address)) != LOCAL:
        check_ray_address(cluster)
        return
    have = available_cpus()
    if workers * cpus <= have:
        return
    text = f"{key} {workers}: {workers} rollout workers of {cpus:g} CPUs each, but {have:g} CPUs are available here"
    fix = f"{max(1, int(have / cpus))} would fit, and sample the same"
    if workers * cpus > MOST_LOAD * have:
        raise UserError(f"{text};\n  {fix}; for a Ray cluster set ray.address or RAY_ADDRESS")
    logger.warning("%s: slower than necessary; %s", text, fix)


def check_functions(config: TrainConfig) -> None:
    """Check that the user functions used in rollouts can be imported."""
    for name in config.rollout.logit_processors:
        load_function(name, "rollout.logit_processors")
    if config.rollout.early_stop is not None and config.rollout.early_stop.hook is not None:
        load_function(config.rollout.early_stop.hook, "rollout.early_stop.hook")


def check_rewards(config: TrainConfig, *, own: bool = True) -> None:
    """Check that every reward can be imported, and that no two have the same name in the metrics. own: also the user's
    functions, whose files need not be there for a dry run."""
    from rewards.scorer import Scorer
    from rewards.spec import RewardSpec

    specs = [RewardSpec(**reward.model_dump()) for reward in config.rewards.functions]
    specs = [spec for spec in specs if own or spec.built_in]
    if own or specs:
        Scorer(specs).close()
    for spec in specs:
        check_reward(spec)


def check_reward(spec: Any) -> None:
    """Check that one reward (a `rewards.spec.RewardSpec`, or its name) can be imported, in a child process with a
    timeout."""
    from rewards import scorer

    scorer.check_reward(spec)


def check_data(data: DataConfig) -> None:
    """Check that the training data exists and, for a data file, that its first row has the columns."""
    source, name = data.source, f"data.source {data.source}"
    is_path = is_row_path(source)
    if data.revision is not None and (is_path or source in GENERATED):
        raise UserError(f"data.revision {data.revision}: {source} is not on the hub; leave data.revision out")
    if is_path:
        check_stored(Path(source), name, _columns("data", data))
    elif source in GENERATED:
        return
    elif not _HUB_DATA.fullmatch(source) or Path(source).exists():
        known = ", ".join(f"`{task}`" for task in GENERATED)
        raise UserError(f"{name}: must be {known}, {KINDS}, a folder, or a hub data set id such as org/name")
    elif meant := difflib.get_close_matches(source, GENERATED, n=1, cutoff=LIKE):
        raise UserError(f"{name}: did you mean `{meant[0]}`? A hub data set has an id such as org/name")
    else:
        check_on_hub(source, "data set", "data.source", data.revision)


def check_stored(path: Path, name: str, columns: Mapping[str, str | None]) -> None:
    """Check that a data file or folder has rows, and that the first row of a file has the columns, given by config key
    (None: not needed, or found by its usual name)."""
    if not is_row_file(str(path)):
        if path.is_file():
            raise UserError(f"{name}: its name does not say what it holds; give {KINDS}, or rename it")
        if not path.is_dir():
            raise UserError(f"{name}: there is no such folder; correct the path, or give {KINDS}")
        if not any(path.iterdir()):
            raise UserError(f"{name}: the folder is empty; give a folder that `datasets` saved or can load")
        return
    row = first_row(path, name)
    for key, column in columns.items():
        if column is not None and dotted_value(row, column) is None:
            raise UserError(column_problem(name, column, row, key))


def check_benchmark(
    name: str,
    data_file: Path | None,
    *,
    key: str,
    columns: Mapping[str, str | None] | None = None,
    revision: str | None = None,
) -> None:
    """Check that `name` is a known benchmark, a hub data set (at `revision`) or data with rows, and that `data_file`,
    if given, has rows; in files, that the `columns` are there (as in `check_stored`)."""
    if data_file is not None:
        check_stored(data_file, str(data_file), columns or {})
        return
    if is_row_path(name):
        check_stored(Path(name), f"{key} {name}", columns or {})
        return
    known = HUB_BENCHMARKS.get(name)
    if known is not None:
        try:
            check_on_hub(known.hub_id, "data set", key, revision)
        except UserError as error:
            lines = str(error).splitlines()
            raise UserError(
                f"{lines[0]}\n{' '.join(lines[1:])}\n"
                f"  where there is a network: `{known.download()}`; then copy it to HF_HOME, or give --data FILE"
            ) from error
    elif name in GENERATED:
        return
    elif HUB_ID.fullmatch(name) and "/" in name:
        check_on_hub(name, "data set", key, revision)
    else:
        near = difflib.get_close_matches(name, BENCHMARKS, n=1, cutoff=LIKE)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise UserError(
            f"{key} {name}: unknown benchmark{hint}; there are {', '.join(BENCHMARKS)},\n"
            f"  or give {KINDS}, or the hub id of a data set"
        )


def _columns(section: str, config: DataConfig | EvalConfig) -> dict[str, str | None]:
    return {f"{section}.{name}": getattr(config, name) for name in ("question_column", "answer_column")}
