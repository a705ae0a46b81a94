"""Pins the hub ids of a config to commits, so that a run, its record and its resumption use the same files."""

from __future__ import annotations

from ouro_rl.config.train import TrainConfig
from ouro_rl.core.hub import commit_of
from ouro_rl.core.paths import is_local, is_row_path
from ouro_rl.run_dir.run_dir import RunDir
from ouro_rl.tasks.catalog import GENERATED


def pinned(config: TrainConfig, *, resume: bool = False) -> TrainConfig:
    """The config with a commit as the revision of every hub id. A resumed run keeps the commits that it began with,
    unless the config asks for others (which resuming then refuses).

    Local models and data have no revision. Without the hub, and for what was never downloaded, it stays as it is."""
    began = RunDir(config.run.dir).read_config() if resume else {}
    model, data = config.model, config.data
    if not is_local(model.path):
        asked = model.revision or began.get("model", {}).get("revision")
        model = model.model_copy(update={"revision": commit_of(model.path, "model", asked) or asked})
    if data.source not in GENERATED and not is_row_path(data.source):
        asked = data.revision or began.get("data", {}).get("revision")
        data = data.model_copy(update={"revision": commit_of(data.source, "data set", asked) or asked})
    return config.model_copy(update={"model": model, "data": data})
