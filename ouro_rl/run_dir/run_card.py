"""The README of a run's checkpoint, and the copy of the run's config that is handed over with it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ouro_rl.config.train import TrainConfig
from ouro_rl.core.paths import Kind, is_local, is_row_path, kind_of, path_in, put, texts_in
from ouro_rl.model.model_card import model_card
from ouro_rl.tasks.catalog import GENERATED

SHOWN = {"reward/mean": "reward", "depth/mean": "depth per token", "completion/length_mean": "tokens per completion"}
"""Metrics of the last update that a card shows, and what it calls them."""


def card_of_run(
    config: TrainConfig,
    step: int,
    metrics: Mapping[str, Any],
    summary: Mapping[str, Any],
    *,
    has_code: bool,
    dtype: str = "float32",
) -> str:
    """The card of the checkpoint after update `step`. `metrics`: that update's row; `summary`: the run's figures."""
    base, data = without_folders(config)["model"]["path"], without_folders(config)["data"]["source"]
    rewards = ", ".join(reward["name"] for reward in without_folders(config)["rewards"]["functions"])
    settings = {
        "base model": f"{base}{_at(config.model.revision)}",
        "data": f"{data}{_at(config.data.revision)}",
        "rewards": rewards,
        "updates": _updates(step, config),
        "completions per update": f"{config.trainer.prompts_per_step} prompts x {config.trainer.group_size}",
        "exit gate": "trained as a policy" if config.gate.mode == "policy" else "frozen",
    }
    on_hub = data not in GENERATED and not is_row_path(config.data.source)
    return model_card(
        f"{Path(base).name}, step {step}",
        [
            "A looped language model (Ouro, arXiv 2510.25741): one stack of layers runs several times per token, and "
            "an exit gate says when a token is done. Trained with reinforcement learning by ouro-rl.",
            "`config.yaml`, where it stands beside this file, is the whole configuration; `ouro-rl eval` asks the "
            "model in its prompt format.",
        ],
        has_code=has_code,
        dtype=dtype,
        base_model=config.model.path,
        dataset=data if on_hub else None,
        settings=settings,
        results=_results(step, metrics, summary),
    )


def _updates(step: int, config: TrainConfig) -> str:
    """The update, and how many there are in the run; a config of epochs alone does not say that."""
    trainer = config.trainer
    return (
        f"{step} of {trainer.steps}" if trainer.steps is not None else f"{step}, in a run of {trainer.epochs:g} epochs"
    )


def _results(step: int, metrics: Mapping[str, Any], summary: Mapping[str, Any]) -> dict[str, str]:
    results = {
        f"{name}, last update": f"{metrics[key]:.3g}" for key, name in SHOWN.items() if metrics.get(key) is not None
    }
    for when in ("before", "after"):
        if f"accuracy_{when}" in summary and (when == "before" or summary.get("steps") == step):
            accuracy, depth = summary[f"accuracy_{when}"], summary[f"depth_{when}"]
            results[f"held-out accuracy {when} training"] = (
                f"{accuracy:.1%} of {summary['n_heldout']} problems, at {depth:.2f} loops per token"
            )
    return results


def without_folders(config: TrainConfig) -> dict[str, Any]:
    """The config with every local path cut to its last part: others have no use for this machine's folders."""
    values = config.model_dump(mode="json")
    for key, text in list(texts_in(values)):
        kind = kind_of(key)
        path, rest = ("", text) if kind is None else path_in(kind, text)
        if path and not (kind is Kind.MODEL and not is_local(path)):
            put(values, key, Path(path).name + rest)
    return values


def _at(revision: str | None) -> str:
    return f", revision {revision}" if revision else ""
