"""Checks that everything a config names exists. They do not import torch, so mistakes are reported before anything
heavy is imported.

Every check raises a UserError of at most three lines and prints nothing if all is well. What cannot be known yet (such
as a broken row) is reported when it is read.
"""

from __future__ import annotations

import difflib
import logging
import os
import re
from pathlib import Path
from typing import Any

from ouro_rl.config.train import TrainConfig
from ouro_rl.core.cpus import available_cpus
from ouro_rl.core.errors import UserError
from ouro_rl.core.hub import MATH500, check_on_hub
from ouro_rl.core.jsonl import dotted_value, first_row, no_column
from ouro_rl.core.user_functions import load_function
from ouro_rl.model.checkpoint_files import check_model, trained_loops

logger = logging.getLogger(__name__)

BENCHMARKS = {
    "arithmetic": "generated integer arithmetic, held out of every training run and warm start",
    "math500": "500 problems of MATH, from the hub",
}
MOST_LOAD = 4
"""CPUs requested by rollout workers per available CPU. Up to this ratio a run is only slower; beyond it, a small
machine comes to a halt."""
LIKE = 0.8
"""A name with at least this similarity to `arithmetic` is taken for a misspelling of it."""
_HUB_DATA = re.compile(r"[\w.-]+(/[\w.-]+)?")


def check_train_files(config: TrainConfig) -> None:
    """Check model, data, evaluation data and rewards of a training job."""
    check_model(config.model.path, key="model.path")
    if (trained := trained_loops(config.model.path)) is not None:
        config.check_loops(trained)
    data = config.data
    check_data(data.source, {"question": data.question_column, "answer": data.answer_column})
    if config.eval.source is not None:
        check_benchmark(config.eval.source, None, key="eval.source")
    check_workers(config.rollout.workers, config.rollout.worker_cpus, key="rollout.workers")
    check_rewards(config)
    check_functions(config)


def check_workers(workers: int, cpus: float, *, key: str) -> None:
    """Warn if rollout workers must share CPUs; raise UserError if there are far too many of them. With RAY_ADDRESS, the
    Ray cluster has its own CPUs and nothing is checked."""
    have = available_cpus()
    if os.environ.get("RAY_ADDRESS") or workers * cpus <= have:
        return
    text = f"{key} {workers}: {workers} rollout workers of {cpus:g} CPUs each, but {have:g} CPUs are available here"
    fix = f"{max(1, int(have / cpus))} would fit, and sample the same"
    if workers * cpus > MOST_LOAD * have:
        raise UserError(f"{text};\n  {fix}; for a Ray cluster set RAY_ADDRESS")
    logger.warning("%s: slower than necessary; %s", text, fix)


def check_functions(config: TrainConfig) -> None:
    """Check that the user functions used in rollouts can be imported."""
    for name in config.rollout.logit_processors:
        load_function(name, "rollout.logit_processors")
    if config.rollout.early_stop is not None and config.rollout.early_stop.hook is not None:
        load_function(config.rollout.early_stop.hook, "rollout.early_stop.hook")


def check_rewards(config: TrainConfig) -> None:
    """Check that every reward can be imported, and that no two have the same name in the metrics."""
    from rewards.scorer import Scorer
    from rewards.spec import RewardSpec

    specs = [RewardSpec(**reward.model_dump()) for reward in config.rewards.functions]
    Scorer(specs).close()
    for spec in specs:
        check_reward(spec)


def check_reward(spec: Any) -> None:
    """Check that one reward (a `rewards.spec.RewardSpec`, or its name) can be imported, in a child process with a
    timeout."""
    from rewards import scorer

    scorer.check_reward(spec)


def check_data(source: str, columns: dict[str, str | None]) -> None:
    """Check that a data source exists; for a .jsonl file, that its first row has the columns, which are given by use
    (`question`, `answer`)."""
    path, name = Path(source), f"data.source {source}"
    if source.endswith(".jsonl"):
        row = first_row(path, name)
        for use, column in columns.items():
            if column is not None and dotted_value(row, column) is None:
                raise UserError(no_column(name, column, row, use))
    elif source == "arithmetic":
        return
    elif path.exists() or not _HUB_DATA.fullmatch(source):
        raise UserError(f"{name}: must be `arithmetic`, a .jsonl file, or a hub data set id such as org/name")
    elif difflib.get_close_matches(source, ["arithmetic"], cutoff=LIKE):
        raise UserError(f"{name}: did you mean `arithmetic`? A hub data set has an id such as org/name")
    else:
        check_on_hub(source, "data set", "data.source")


def check_benchmark(name: str, data_file: Path | None, *, key: str) -> None:
    """Check that `name` is a known benchmark or a .jsonl file with rows, and that `data_file`, if given, has rows."""
    if data_file is not None:
        first_row(data_file, str(data_file))
    elif name.endswith(".jsonl"):
        first_row(Path(name), f"{key} {name}")
    if name not in BENCHMARKS and not name.endswith(".jsonl"):
        raise UserError(
            f"{key} {name}: unknown benchmark; there are {' and '.join(BENCHMARKS)}, or give {key} a .jsonl file"
        )
    if name == "math500" and data_file is None:
        check_on_hub(MATH500, "data set", key)
