"""`ouro-rl gate`: a trained gate as a small file, and the threshold to serve it with."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ouro_rl.cli.argument_types import count, list_of, number, share
from ouro_rl.cli.eval_options import add_format_options, asked_config, with_format
from ouro_rl.cli.export import last_checkpoint
from ouro_rl.cli.subcommand import add_command
from ouro_rl.core.errors import UserError
from ouro_rl.core.paths import check_writable, check_writable_file, expand, is_local, path_option
from ouro_rl.core.progress import say
from ouro_rl.model.checkpoint_files import check_model

CHECKPOINT = "a checkpoint, or a run's folder (its last checkpoint)"
THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)


def add_gate_commands(commands: Any) -> None:
    """Add `gate` and its three subcommands."""
    own = add_command(commands, "gate", None, "a trained exit gate as a small file; the threshold to serve it with")
    inner = own.add_subparsers(metavar="COMMAND", required=True)

    command = add_command(
        inner, "extract", run_extract, "write a checkpoint's gate, with a hash of its body, to a small file"
    )
    command.add_argument("checkpoint", type=path_option, metavar="CHECKPOINT", help=CHECKPOINT)
    command.add_argument("--out", type=path_option, required=True, metavar="FILE.safetensors")

    command = add_command(
        inner, "apply", run_apply, "copy a checkpoint, with the gate of such a file; refused if the body is another"
    )
    command.add_argument("patch", type=path_option, metavar="FILE.safetensors")
    command.add_argument("--model", type=path_option, required=True, metavar="BASE", help=CHECKPOINT)
    command.add_argument("--out", type=path_option, required=True, metavar="DIR", help="folder for the copy")

    command = add_command(
        inner,
        "calibrate",
        run_calibrate,
        "the lowest Q-exit threshold with a bound on the accuracy lost against full depth",
    )
    command.add_argument(
        "--model", type=expand, required=True, metavar="PATH_OR_HUB_ID", help=f"{CHECKPOINT}, or a hub id"
    )
    command.add_argument("--benchmark", type=expand, metavar="NAME_OR_FILE", help="as in `ouro-rl eval`")
    command.add_argument(
        "--max-loss",
        type=number(0.0, 100.0, above=True),
        default=1.0,
        metavar="POINTS",
        help="accuracy that may be lost, in percentage points, with 95%% confidence (default: 1)",
    )
    command.add_argument(
        "--thresholds", type=list_of(share), default=THRESHOLDS, metavar="0.5,...", help="thresholds to try"
    )
    command.add_argument("--limit", type=count, metavar="N", help="maximum number of problems")
    command.add_argument("--max-new-tokens", type=count, metavar="N", help="maximum length of an answer")
    command.add_argument("--out", type=path_option, metavar="FILE.json", help="file for all figures")
    command.add_argument(
        "--write", action="store_true", help="set early_exit_threshold in the checkpoint's config.json"
    )
    add_format_options(command)


def run_extract(arguments: argparse.Namespace) -> int:
    checkpoint = last_checkpoint(str(arguments.checkpoint))
    check_model(checkpoint, key="CHECKPOINT")
    check_writable_file(arguments.out, "--out")
    from ouro_rl.model.gate_patch import extract_gate, write_patch

    patch = extract_gate(Path(checkpoint))
    write_patch(patch, arguments.out)
    numbers = patch.weight.numel() + patch.bias.numel()
    print(f"gate patch: {arguments.out} ({numbers:,} numbers, for the body {patch.base[:12]}...)")
    return 0


def run_apply(arguments: argparse.Namespace) -> int:
    base = last_checkpoint(str(arguments.model))
    check_model(base, key="--model")
    check_writable(arguments.out, "--out")
    from ouro_rl.model.gate_patch import apply_patch, read_patch

    apply_patch(read_patch(arguments.patch), Path(base), arguments.out)
    print(f"checkpoint: {arguments.out}")
    return 0


def run_calibrate(arguments: argparse.Namespace) -> int:
    arguments.model = last_checkpoint(arguments.model)
    check_model(arguments.model, key="--model")
    config, run = asked_config(arguments, with_format, benchmark=arguments.benchmark)
    if arguments.write and not is_local(arguments.model):
        raise UserError(f"--write: {arguments.model} is not a local folder; download it, or leave out --write")
    check_writable_file(arguments.out, "--out")
    say("Importing torch and transformers")
    from ouro_rl.evaluation.calibrate import calibrate, write_threshold

    chosen = calibrate(
        config,
        arguments.model,
        arguments.thresholds,
        max_loss=arguments.max_loss / 100,
        dtype=config.model.dtype if run is not None else "float32",
        out=arguments.out,
    )
    print(
        f"threshold {chosen.threshold:g}: loses {chosen.loss:+.1%} [{chosen.loss_low:+.1%}, {chosen.loss_high:+.1%}] "
        f"on {chosen.n} problems, with {1 - chosen.loops_per_answer / chosen.full_loops_per_answer:.0%} fewer loops"
    )
    if arguments.write:
        write_threshold(Path(arguments.model), chosen.threshold)
        print(f"early_exit_threshold: {chosen.threshold:g} in {Path(arguments.model) / 'config.json'}")
    return 0
