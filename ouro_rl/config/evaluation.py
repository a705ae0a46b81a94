"""The config of an evaluation by `ouro-rl eval`: that of the run that wrote the checkpoint, one that is given, or a
plain one. A checkpoint is then asked in the format that it was trained in, and gets the accuracy that its run saw."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import yaml

from ouro_rl.config.loader import load_config
from ouro_rl.config.train import DataConfig, EvalConfig, ModelConfig, TrainConfig
from ouro_rl.config.trainer import TrainerConfig
from ouro_rl.config.yaml12 import parse_yaml
from ouro_rl.core.errors import UserError
from ouro_rl.core.paths import Kind, same_place
from ouro_rl.tasks.catalog import GENERATED

RUN_CONFIG = "config.yaml"
"""A run's config: in its folder, two levels above a checkpoint, one above `best/`, and beside an exported
checkpoint."""
BOX_REQUEST = "\nPlease reason step by step, and put your final answer within \\boxed{}."
"""Prompt suffix of a benchmark without a run. Generated tasks have none, as in our training runs."""
SHORT_ANSWER, LONG_ANSWER = 64, 2048
"""Maximum length of an answer in tokens without a run, for generated tasks and for any other benchmark."""
OF_THE_PROBLEMS = ("source", "limit", "question_column", "answer_column", "operations", "hops")
"""Keys of `eval` that say which problems there are, not how they are asked."""
ANY_LENGTH = 2**31
"""`max_prompt_tokens` where no prompt is to be left out."""


def config_of_run(checkpoint: str) -> Path | None:
    """The config of the run that a checkpoint folder belongs to; None if it belongs to none."""
    folder = Path(checkpoint).absolute()
    above = [folder.parent.parent] if folder.parent.name == "checkpoints" else []
    above += [folder.parent] if folder.name == "best" else []
    return next((place / RUN_CONFIG for place in (folder, *above) if _is_ours(place / RUN_CONFIG)), None)


def evaluation_config(checkpoint: str, files: Sequence[str], benchmark: str | None) -> tuple[TrainConfig, str | None]:
    """The config for evaluating a checkpoint on a benchmark, and where it comes from: `files` if there are any, else
    its run; (a plain config, None) if there is neither.

    Without `benchmark`, the problems are those of the run's own evaluation; its limit and columns belong to these
    problems. Raises UserError if there is no benchmark."""
    found = [*files] or [str(path) for path in [config_of_run(checkpoint)] if path is not None]
    if found:
        config = load_config(TrainConfig, found)
        source = benchmark or config.eval.source
    else:
        config, source = _plain(checkpoint, benchmark or ""), benchmark
    if source is None:
        raise UserError("--benchmark is missing: neither it nor a run's eval.source says which problems to solve")
    own = config.eval.source
    if own is None or not same_place(Kind.ROWS, own, source):
        plain = EvalConfig(source=source)
        fresh = {name: getattr(plain, name) for name in OF_THE_PROBLEMS}
        config = config.model_copy(update={"eval": config.eval.model_copy(update=fresh)})
    return config, " + ".join(found) or None


def _plain(checkpoint: str, benchmark: str) -> TrainConfig:
    short = benchmark in GENERATED
    return TrainConfig(
        model=ModelConfig(path=checkpoint),
        data=DataConfig(prompt_suffix="" if short else BOX_REQUEST, max_prompt_tokens=ANY_LENGTH),
        eval=EvalConfig(source=benchmark, max_new_tokens=SHORT_ANSWER if short else LONG_ANSWER),
        trainer=TrainerConfig(steps=1),
    )


def _is_ours(path: Path) -> bool:
    """Whether this is the config of one of our runs: other projects also call a file `config.yaml`."""
    if not path.is_file():
        return False
    try:
        values = parse_yaml(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError):
        return False
    return isinstance(values, dict) and {"model", "trainer", "rollout", "gate"} <= values.keys()
