"""`ouro-rl export`: a checkpoint as a folder to hand over, or to upload as it is."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from ouro_rl.config.evaluation import RUN_CONFIG, config_of_run
from ouro_rl.config.loader import load_config
from ouro_rl.config.packaged_configs import find_checkpoint
from ouro_rl.config.train import TrainConfig
from ouro_rl.config.yaml12 import to_yaml
from ouro_rl.core.errors import UserError
from ouro_rl.core.paths import check_writable, expand, path_option
from ouro_rl.core.progress import say
from ouro_rl.model.checkpoint_files import check_model
from ouro_rl.run_dir.run_dir import RunDir

STEP_FILES = {"trainer_state.json": "global_step", "evaluation.json": "step"}
"""File -> key of the update's number: of a checkpoint, and of a run's best weights."""


def add_export_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "source",
        type=path_option,
        metavar="RUN_OR_CHECKPOINT",
        help="a run's folder (its last checkpoint), or a checkpoint",
    )
    command.add_argument("--out", type=path_option, required=True, metavar="DIR", help="new or empty folder")
    command.add_argument(
        "--dtype", choices=["float32", "bfloat16"], default="float32", help="of the weights; the exit gate stays fp32"
    )
    command.add_argument(
        "--code",
        type=expand,
        metavar="PATH_OR_HUB_ID",
        help="published checkpoint whose modeling code is copied along (default: that of the checkpoint)",
    )


def export(arguments: argparse.Namespace) -> int:
    checkpoint, out = checkpoint_in(arguments.source), arguments.out
    check_model(str(checkpoint), key="export")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"--out {out}: is not an empty folder; give a new one")
    check_writable(out, "--out")
    found = config_of_run(str(checkpoint))
    config = None if found is None else load_config(TrainConfig, [found])
    say("Importing torch and transformers")
    from ouro_rl.model.checkpoint_contract import published_code
    from ouro_rl.model.export import export_checkpoint

    code = published_code(arguments.code or str(checkpoint))
    if arguments.code and not code.files:
        raise UserError(f"--code {arguments.code}: has no modeling code (auto_map); give a published checkpoint")
    run = None if found is None else found.parent
    card = _card(checkpoint, config, run, has_code=bool(code.files), dtype=arguments.dtype)
    export_checkpoint(str(checkpoint), out, dtype=arguments.dtype, code=code, card=card)
    if config is not None:
        from ouro_rl.run_dir.run_card import without_folders

        (out / RUN_CONFIG).write_text(to_yaml(without_folders(config)), encoding="utf-8")
    print(f"exported: {out}, from {checkpoint}\nupload it with: hf upload YOUR_NAME/MODEL {out}")
    return 0


def checkpoint_in(source: Path) -> Path:
    """The checkpoint that is meant: the folder itself, or the last one of a run. Raises UserError if there is none."""
    if not source.is_dir():
        raise UserError(f"{source}: no such folder; give a run's folder or a checkpoint")
    if (source / "config.json").exists():
        return source
    last = RunDir(source).latest_checkpoint()
    if last is None:
        raise UserError(f"{source}: holds no checkpoint; give a run's folder or a checkpoint")
    return last


def last_checkpoint(given: str) -> str:
    """The last checkpoint of a run's folder; anything else (a checkpoint, a hub id) as `find_checkpoint` finds it."""
    folder = Path(given)
    return str(checkpoint_in(folder)) if (folder / "checkpoints").is_dir() else find_checkpoint(given)


def _card(checkpoint: Path, config: TrainConfig | None, run: Path | None, *, has_code: bool, dtype: str) -> str:
    """The README: from the `config` of a run, found in the folder `run`; without one, and where nothing says which
    update made the checkpoint, only what the checkpoint itself says."""
    from ouro_rl.model.model_card import model_card
    from ouro_rl.run_dir.run_card import card_of_run

    step = _step_of(checkpoint) or (config.trainer.steps if config is not None else None)
    if config is None or run is None or step is None:
        about = ["A looped language model (Ouro, arXiv 2510.25741), exported by ouro-rl."]
        return model_card(checkpoint.name, about, has_code=has_code, dtype=dtype)
    metrics: dict[str, Any] = {}
    summary: dict[str, Any] = {}
    if run != checkpoint.absolute():  # in its run's folder
        run_dir = RunDir(run)
        metrics, summary = run_dir.metrics_of(step), run_dir.read_summary() or {}
    return card_of_run(config, step, metrics, summary, has_code=has_code, dtype=dtype)


def _step_of(checkpoint: Path) -> int | None:
    """The update that made a checkpoint or a run's best weights; None if the folder does not say."""
    for file, key in STEP_FILES.items():
        if (checkpoint / file).exists():
            return json.loads((checkpoint / file).read_text(encoding="utf-8"))[key]
    return None
