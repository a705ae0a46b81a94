"""What a resumed run may change of its config, and what it may not, with the reason. Does not import torch."""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterable
from typing import Any

from pydantic import ValidationError

from ouro_rl.config.train import TrainConfig
from ouro_rl.core.errors import UserError
from ouro_rl.core.paths import kind_of, put, same_place, texts_in
from ouro_rl.run_dir.run_dir import RunDir

Changes = dict[str, tuple[Any, Any]]
"""(before, now) by dotted key."""

MAY_CHANGE = {
    "run": {"dir", "rollouts", "stall_s"},
    "model": {"gradient_checkpointing"},
    "data": {"max_prompt_tokens"},
    "rollout": {
        "workers", "worker_cpus", "worker_gpus", "worker_threads", "max_batch", "kv_memory_gib", "prefill_rows",
        "exact",
    },
    "ray": set(TrainConfig.model_fields["ray"].default.model_dump()),
    "rewards": {"workers", "memory_mb", "max_unscored"},
    "gate": {"lr"},
    "trainer": {
        "steps", "epochs", "micro_batch", "lr", "lr_scheduler", "lr_warmup", "checkpoint_every", "keep_checkpoints",
        "logp_gap_limit", "max_staleness", "in_flight",
    },
    "eval": set(TrainConfig.model_fields["eval"].default.model_dump()),
}  # fmt: skip
"""Keys that a resumed run may change, by section: where and how long it runs, within which limits, how it is evaluated,
how far sampling may be ahead, and the learning rates with their schedule. Time-outs of rewards
(`rewards.functions[].timeout_s`) may change, too."""

WHEN_EVALUATED = {"eval.every", "eval.patience"}
"""Keys of `eval` that do not change what an evaluation gives."""
GONE = "(no longer a key)"
"""Stands for the value of a key that this version does not have."""
SETS_OF_PROMPTS = {"data.max_prompt_tokens", "rollout.max_batch", "rollout.kv_memory_gib", "rollout.prefill_rows"}
"""Those that may leave other prompts out as too long."""

REASONS = {
    "model": "the checkpoint's weights belong to that model",
    "data": "the order of the prompts and the seeds of their samples follow from it",
    "rollout": "it changes what is sampled, so that the updates before and after would not be of one run",
    "rewards": "it changes what a reward means, so that the updates before and after would not be of one run",
    "gate": "it changes the gate's objective, so that the updates before and after would not be of one run",
    "trainer": "the position in the data, the optimizer's state or the objective follow from it",
    "run": "the order of the prompts and the seeds of their samples follow from it",
}
"""Why the other keys of a section may not change."""


def change_evaluation(keys: Iterable[str]) -> bool:
    """Whether evaluations before and after a change of these dotted keys cannot be compared."""
    return any(key.startswith("eval.") and key not in WHEN_EVALUATED for key in keys)


def refuse_other_config(run_dir: RunDir, config: TrainConfig) -> Changes:
    """What `config` changes in the config that the run has recorded; keys that this version no longer has are among it.

    Raises UserError, naming the first key that may not change and the reason."""
    recorded, gone = recorded_values(run_dir)
    asked = config.model_dump(mode="json")
    known = dict(texts_in(recorded))
    for at, text in texts_in(asked):
        kind = kind_of(at)
        if kind is not None and at in known and same_place(kind, known[at], text):
            put(recorded, at, text)
    changes: Changes = {key: (before, GONE) for key, before in gone.items()}
    for section, values in asked.items():
        if not isinstance(values, dict):  # `log`: where the metrics go changes nothing of the run
            if recorded[section] != values:
                changes[section] = recorded[section], values
            continue
        for key, value in values.items():
            before = recorded[section][key]
            if before == value:
                continue
            if key not in MAY_CHANGE.get(section, set()) and not _differ_in_timeouts(section, key, before, value):
                reason = REASONS.get(section, REASONS["trainer"])
                raise UserError(
                    f"--resume: {section}.{key} is {value!r}, but the run in {run_dir.path} began with {before!r}:\n"
                    f"  {reason};\n  give it as it was, or start a new run without --resume"
                )
            changes[f"{section}.{key}"] = before, value
    return changes


def recorded_values(run_dir: RunDir) -> tuple[dict[str, Any], dict[str, Any]]:
    """The recorded config by section and key, and the values of the keys that this version no longer has, by dotted
    key. Keys that it has added since have their defaults."""
    gone: dict[str, Any] = {}
    recorded: Any = run_dir.read_config()
    recorded.pop("about", None)
    while True:
        try:
            return TrainConfig.model_validate(recorded, strict=False).model_dump(mode="json"), gone
        except ValidationError as error:
            first, dropped = error.errors()[0], [e["loc"] for e in error.errors() if e["type"] == "extra_forbidden"]
        if not dropped:
            raise UserError(
                f"{run_dir.config_path}: {'.'.join(map(str, first['loc']))}: {first['msg']};\n"
                "  this version cannot resume the run; start a new one without --resume"
            )
        for *path, key in dropped:
            gone[".".join(map(str, (*path, key)))] = functools.reduce(operator.getitem, path, recorded).pop(key)


def _differ_in_timeouts(section: str, key: str, before: Any, now: Any) -> bool:
    if (section, key) != ("rewards", "functions"):
        return False
    functions = [[{**function, "timeout_s": None} for function in value] for value in (before, now)]
    return functions[0] == functions[1]
