"""`ouro-rl eval` and `ouro-rl compare`; their arguments are checked before anything heavy is imported."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ouro_rl.cli.argument_types import count, list_of, number, share, whole
from ouro_rl.cli.commands import split_configs
from ouro_rl.cli.eval_options import add_format_options, add_sampling_options, asked_config, check_samples, with_options
from ouro_rl.cli.export import last_checkpoint
from ouro_rl.cli.preflight.files import BENCHMARKS, check_workers
from ouro_rl.config.loader import load_config
from ouro_rl.config.train import TrainConfig
from ouro_rl.core.atomic_write import write_atomically
from ouro_rl.core.benchmarks import HUB_BENCHMARKS
from ouro_rl.core.errors import UserError
from ouro_rl.core.hub import commit_of
from ouro_rl.core.kv_rule import KVRule
from ouro_rl.core.paths import HUB_ID, check_writable, check_writable_file, expand, is_local, is_row_path, path_option
from ouro_rl.core.progress import say
from ouro_rl.core.row_files import KINDS
from ouro_rl.core.sampling_params import MOST_LOOPS
from ouro_rl.evaluation.out_folder import EvalFolder
from ouro_rl.evaluation.request import Ask, EvalRequest
from ouro_rl.model.checkpoint_files import check_model


def add_eval_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "configs",
        nargs="*",
        metavar="CONFIG|section.key=value",
        help="training configs, as --config, then overrides of their keys (eval.split=train)",
    )
    command.add_argument(
        "--model",
        type=expand,
        metavar="PATH_OR_HUB_ID",
        help="a checkpoint, a run's folder (its last checkpoint) or a hub id (default: model.path of the config)",
    )
    command.add_argument("--revision", metavar="REV", help="commit, tag or branch of a hub id")
    command.add_argument(
        "--benchmark",
        type=expand,
        action="append",
        default=[],
        metavar="NAME_OR_FILE",
        help=f"{', '.join(BENCHMARKS)}, {KINDS}, or a hub id; several with commas, or repeated (default: the run's)",
    )
    command.add_argument("--data", type=path_option, metavar="FILE", help="the benchmark's problems from a data file")
    add_format_options(command)
    _add_rules(command)
    command.add_argument("--samples", type=count, default=1, metavar="K", help="1: greedy; more: at temperature 1")
    command.add_argument("--seed", type=whole(0), default=0, metavar="N", help="of all that is drawn (default: 0)")
    add_sampling_options(command)
    command.add_argument("--limit", type=count, metavar="N", help="maximum number of problems")
    command.add_argument(
        "--max-new-tokens",
        type=list_of(count),
        metavar="N,...",
        help="maximum length of an answer, or several to compare (default: the run's; 64 or 2048 without one)",
    )
    command.add_argument(
        "--max-loops", type=list_of(count), default=(), metavar="N,...", help="budgets of loops per answer to compare"
    )
    command.add_argument("--dtype", choices=["float32", "bfloat16"], help="of the computation (default: the run's)")
    command.add_argument("--max-batch", type=count, metavar="N", help="maximum number of answers decoded at once")
    command.add_argument("--workers", type=whole(0), default=0, metavar="N", help="Ray rollout actors; 0: in process")
    command.add_argument("--out", type=path_option, required=True, metavar="DIR", help="folder for the results")
    command.add_argument("--overwrite", action="store_true", help="replace what another evaluation left in --out")


def _add_rules(command: argparse.ArgumentParser) -> None:
    command.add_argument("--depth", type=list_of(count), default=(), metavar="1,2,...", help="fixed numbers of loops")
    command.add_argument(
        "--exit-threshold",
        type=list_of(share),
        default=(),
        metavar="0.5,...",
        help="exit when the gate's cumulative exit probability reaches it",
    )
    command.add_argument("--sample-gate", action="store_true", help="sample every depth from the gate")
    nats = list_of(number(0.0, above=True))
    text = "exit when the most likely token has this probability"
    command.add_argument("--confidence", type=list_of(share), default=(), metavar="0.9,...", help=text)
    text = "exit when the entropy of the next token is at most this many nats"
    command.add_argument("--entropy", type=nats, default=(), metavar="0.5,...", help=text)
    text = "exit when the next token's distribution is within this many nats of the loop before"
    command.add_argument("--kl", type=nats, default=(), metavar="0.01,...", help=text)
    command.add_argument("--kv-rule", choices=list(KVRule), help="what is read from tokens that exited early")
    command.add_argument("--min-depth", type=count, metavar="N", help="no token exits before this loop")
    command.add_argument(
        "--max-depth", type=count, metavar="N", help="maximum number of loops per token (default: the model's)"
    )


def evaluate(arguments: argparse.Namespace) -> int:
    check_samples(arguments)
    request = request_of(arguments)
    if too_deep := [depth for depth in arguments.depth if depth > MOST_LOOPS]:
        raise UserError(f"--depth {too_deep[0]}: more than {MOST_LOOPS} loops; give a smaller one")
    check_writable(arguments.out, "--out")
    check_workers(arguments.workers, 1, key="--workers")
    folder = EvalFolder(arguments.out)
    if arguments.overwrite:
        folder.clear()
    folder.check(request.record())
    say("Importing torch and transformers")
    from ouro_rl.evaluation.run import run_eval

    print(f"results: {run_eval(request)}")
    return 0


def request_of(arguments: argparse.Namespace) -> EvalRequest:
    """What is asked for. Raises UserError if the checkpoint or the problems are not there."""
    for text in arguments.configs:
        if text in BENCHMARKS:
            raise UserError(f"{text}: is a benchmark; write --benchmark {','.join([*arguments.benchmark, text])}")
    files, overrides = split_configs(arguments.configs, TrainConfig)
    arguments.config = [*arguments.config, *files]
    arguments.model = _model(arguments.model, arguments.config, overrides)
    names = benchmarks_of(arguments.benchmark)
    if arguments.data is not None and len(names) > 1:
        raise UserError(f"--data {arguments.data}: has the problems of one benchmark; give one --benchmark with it")
    check_model(arguments.model, key="--model", revision=arguments.revision)
    asks = [_ask(arguments, name, overrides) for name in names] or [_ask(arguments, None, overrides)]
    revision = arguments.revision
    if not is_local(arguments.model):
        revision = revision or _began(arguments).get("revision")
        revision = commit_of(arguments.model, "model", revision) or revision
    lengths = tuple(sorted(set(arguments.max_new_tokens or ())))
    return EvalRequest(
        model=arguments.model,
        revision=revision,
        asks=tuple(asks),
        depths=arguments.depth,
        thresholds=arguments.exit_threshold,
        sample_gate=arguments.sample_gate,
        confidence=arguments.confidence,
        entropy=arguments.entropy,
        kl=arguments.kl,
        token_budgets=lengths if len(lengths) > 1 else (),
        loop_budgets=tuple(sorted(set(arguments.max_loops))),
        samples=arguments.samples,
        temperature=arguments.temperature,
        seed=arguments.seed,
        dtype=arguments.dtype,
        own_length=arguments.max_new_tokens is not None,
        workers=arguments.workers,
        out=arguments.out,
    )


def benchmarks_of(given: list[str]) -> list[str]:
    """The names in `--benchmark A,B --benchmark C`, each once. A file whose own name has a comma is one."""
    names = [name for text in given for name in ([text] if Path(text).exists() else text.split(","))]
    return list(dict.fromkeys(filter(None, names)))


def _model(given: str | None, files: list[str], overrides: list[str]) -> str:
    """The checkpoint: of a run's folder, its last one. Raises UserError if none is given."""
    if given is None and files:
        given = load_config(TrainConfig, files, overrides).model.path
    if given is None:
        raise UserError("--model is missing: give a checkpoint, a run's folder, a hub id, or a config with model.path")
    return last_checkpoint(given)


def _ask(arguments: argparse.Namespace, name: str | None, overrides: list[str]) -> Ask:
    config, run = asked_config(arguments, with_options, benchmark=name, overrides=overrides, data_file=arguments.data)
    if arguments.data is None:
        config = _pinned(config, _began(arguments))
    return Ask(config=config, run=run, data_file=arguments.data)


def _began(arguments: argparse.Namespace) -> dict[str, Any]:
    """What the evaluation in `--out` was asked for, whose commits it keeps to; empty if there is none."""
    folder = EvalFolder(arguments.out)
    return folder.request() if folder.request_path.exists() and not arguments.overwrite else {}


def _pinned(config: TrainConfig, began: Mapping[str, Any]) -> TrainConfig:
    """The config with a commit as the revision of a hub data set, so that `eval.json` says which rows these were."""
    source = config.eval.source
    assert source is not None, "evaluation_config requires it"
    known = HUB_BENCHMARKS.get(source)
    if known is None and (is_row_path(source) or not HUB_ID.fullmatch(source)):
        return config
    before = [one["eval.revision"] for one in began.get("benchmarks", ()) if one["eval.source"] == source]
    asked = config.eval.revision or next(iter(before), None)
    commit = commit_of(known.hub_id if known else source, "data set", asked)
    return config.model_copy(update={"eval": config.eval.model_copy(update={"revision": commit})}) if commit else config


def add_compare_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("a", type=path_option, metavar="DIR_A", help="--out of an `ouro-rl eval`")
    command.add_argument("b", type=path_option, metavar="DIR_B", help="another one, of the same problems; or the same")
    command.add_argument(
        "--rows",
        action="append",
        default=[],
        metavar="'A=B'",
        help="a row of A with a row of B ('fixed 4=threshold 0.5'); may be repeated (default: rows of equal names)",
    )
    command.add_argument("--out", type=path_option, metavar="FILE.json", help="file for all figures")


def compare(arguments: argparse.Namespace) -> int:
    from ouro_rl.evaluation.compare import compare as compared
    from ouro_rl.evaluation.compare import comparison_table

    pairs = []
    for text in arguments.rows:
        first, equals, second = text.partition("=")
        pairs.append((first.strip(), second.strip() if equals else first.strip()))
    check_writable_file(arguments.out, "--out")
    differences = compared(EvalFolder(arguments.a), EvalFolder(arguments.b), pairs)
    print(comparison_table(differences))
    if arguments.out is not None:
        record = {"a": str(arguments.a), "b": str(arguments.b), "rows": [asdict(one) for one in differences]}
        write_atomically(arguments.out, [json.dumps(record, indent=2), "\n"])
    return 0
