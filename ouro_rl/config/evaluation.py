"""The config of an evaluation by `ouro-rl eval`: that of the run that wrote the checkpoint, one that is given, or a
plain one. A checkpoint is then asked in the format that it was trained in, and gets the accuracy that its run saw."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from ouro_rl.config.loader import load_config
from ouro_rl.config.train import EvalConfig, TrainConfig
from ouro_rl.config.yaml12 import parse_yaml
from ouro_rl.core.benchmarks import HUB_BENCHMARKS
from ouro_rl.core.errors import UserError
from ouro_rl.core.paths import Kind, same_place
from ouro_rl.tasks.catalog import GENERATED

RUN_CONFIG = "config.yaml"
"""A run's config: in its folder, two levels above a checkpoint, one above `best/`, and beside an exported
checkpoint."""
BOX_REQUEST = "\nPlease reason step by step, and put your final answer within \\boxed{}."
"""Asks for an answer that the reward `math` reads."""
SHORT_ANSWER, LONG_ANSWER = 64, 2048
"""Maximum length of an answer in tokens without a run, for generated tasks and for any other benchmark."""
OF_THE_PROBLEMS = (
    "source", "name", "split", "revision", "limit", "question_column", "answer_column", "operations", "hops",
)  # fmt: skip
"""Keys of `eval` that say which problems there are, not how they are asked."""
ANY_LENGTH = 2**31
"""`max_prompt_tokens` where no prompt is to be left out."""


def box_request(benchmark: str) -> str:
    """The prompt suffix of a benchmark without a run: none for generated tasks, which are asked as in our training
    runs, and for programs; everything else is asked for steps and a box."""
    known = HUB_BENCHMARKS.get(benchmark)
    return "" if benchmark in GENERATED or (known is not None and known.reward == "code") else BOX_REQUEST


def config_of_run(checkpoint: str) -> Path | None:
    """The config of the run that a checkpoint folder belongs to; None if it belongs to none. Raises UserError for a
    config that cannot be read."""
    folder = Path(checkpoint).absolute()
    above = [folder.parent.parent] if folder.parent.name == "checkpoints" else []
    above += [folder.parent] if folder.name == "best" else []
    return next((place / RUN_CONFIG for place in (folder, *above) if _is_ours(place / RUN_CONFIG)), None)


def evaluation_config(
    checkpoint: str, files: Sequence[str], benchmark: str | None, overrides: Sequence[str] = ()
) -> tuple[TrainConfig, str | None]:
    """The config for evaluating a checkpoint on a benchmark, and where it comes from: `files` if there are any, else
    its run; (a plain config, None) if there is neither. `overrides` (`section.key=value`) change it.

    Without `benchmark`, the problems are those of the run's own evaluation; its limit and columns belong to these
    problems. Raises UserError if there is no benchmark."""
    found = [*files] or [str(path) for path in [config_of_run(checkpoint)] if path is not None]
    if found:
        config = load_config(TrainConfig, found, overrides)
    else:
        config = load_config(TrainConfig, [], overrides, defaults=_plain(checkpoint, benchmark or ""))
    source = benchmark or config.eval.source
    if source is None:
        raise UserError("--benchmark is missing: neither it nor a run's eval.source says which problems to solve")
    own = config.eval.source
    if own is None or not same_place(Kind.ROWS, own, source):
        asked = {override.partition("=")[0].strip() for override in overrides}
        plain = EvalConfig(source=source)
        fresh = {name: getattr(plain, name) for name in OF_THE_PROBLEMS if f"eval.{name}" not in asked}
        config = config.model_copy(update={"eval": config.eval.model_copy(update=fresh | {"source": source})})
    return config, " + ".join(found) or None


def _plain(checkpoint: str, benchmark: str) -> dict[str, Any]:
    return {
        "model": {"path": checkpoint},
        "data": {"prompt_suffix": box_request(benchmark), "max_prompt_tokens": ANY_LENGTH},
        "eval": {
            "source": benchmark or None,
            "max_new_tokens": SHORT_ANSWER if benchmark in GENERATED else LONG_ANSWER,
        },
        "trainer": {"steps": 1},
    }


def _is_ours(path: Path) -> bool:
    """Whether this is the config of one of our runs: other projects also call a file `config.yaml`. Raises UserError
    where that cannot be told."""
    if not path.is_file():
        return False
    try:
        values = parse_yaml(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"{path}: cannot be read: {reason};\n  restore the file that the run wrote, or remove it"
        ) from None
    return isinstance(values, dict) and {"model", "trainer", "rollout", "gate"} <= values.keys()
