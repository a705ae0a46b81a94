"""`ouro-rl eval`; its arguments are checked before anything heavy is imported."""

from __future__ import annotations

import argparse

from ouro_rl.cli.argument_types import count, list_of, share, whole
from ouro_rl.cli.eval_options import add_format_options, add_sampling_options, asked_config, check_samples, with_options
from ouro_rl.cli.preflight.files import check_workers
from ouro_rl.core.errors import UserError
from ouro_rl.core.hub import commit_of
from ouro_rl.core.kv_rule import KVRule
from ouro_rl.core.paths import check_writable, expand, is_local, path_option
from ouro_rl.core.progress import say
from ouro_rl.core.row_files import KINDS
from ouro_rl.core.sampling_params import MOST_LOOPS


def add_eval_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("--model", type=expand, required=True, metavar="PATH_OR_HUB_ID")
    command.add_argument("--revision", metavar="REV", help="commit, tag or branch of a hub id")
    command.add_argument(
        "--benchmark",
        type=expand,
        metavar="NAME_OR_FILE",
        help=f"arithmetic, hops, math500, or {KINDS} (default: that of the run)",
    )
    command.add_argument("--data", type=path_option, metavar="FILE", help="the benchmark's problems from a data file")
    add_format_options(command)
    command.add_argument("--depth", type=list_of(count), default=(), metavar="1,2,...", help="fixed numbers of loops")
    command.add_argument(
        "--exit-threshold",
        type=list_of(share),
        default=(),
        metavar="0.5,...",
        help="exit when the gate's cumulative exit probability reaches it",
    )
    command.add_argument("--sample-gate", action="store_true", help="sample every depth from the gate")
    command.add_argument("--kv-rule", choices=list(KVRule), help="what is read from tokens that exited early")
    command.add_argument("--min-depth", type=count, metavar="N", help="no token exits before this loop")
    command.add_argument(
        "--max-depth", type=count, metavar="N", help="maximum number of loops per token (default: the model's)"
    )
    command.add_argument("--samples", type=count, default=1, metavar="K", help="1: greedy; more: at temperature 1")
    add_sampling_options(command)
    command.add_argument("--limit", type=count, metavar="N", help="maximum number of problems")
    command.add_argument("--max-new-tokens", type=count, metavar="N", help="default: the run's; 64 or 2048 without one")
    command.add_argument("--workers", type=whole(0), default=0, metavar="N", help="Ray rollout actors; 0: in process")
    command.add_argument("--out", type=path_option, required=True, metavar="DIR", help="folder for eval.json")


def evaluate(arguments: argparse.Namespace) -> int:
    check_samples(arguments)
    config, run = asked_config(arguments, with_options, data_file=arguments.data, revision=arguments.revision)
    if too_deep := [depth for depth in arguments.depth if depth > MOST_LOOPS]:
        raise UserError(f"--depth {too_deep[0]}: more than {MOST_LOOPS} loops; give a smaller one")
    check_writable(arguments.out, "--out")
    check_workers(arguments.workers, 1, key="--workers")
    revision = arguments.revision
    if not is_local(arguments.model):
        revision = commit_of(arguments.model, "model", revision) or revision
    say("Importing torch and transformers")
    from ouro_rl.evaluation.run import EvalRequest, run_eval

    request = EvalRequest(
        model=arguments.model,
        revision=revision,
        config=config,
        run=run,
        data_file=arguments.data,
        depths=arguments.depth,
        thresholds=arguments.exit_threshold,
        sample_gate=arguments.sample_gate,
        samples=arguments.samples,
        temperature=arguments.temperature,
        own_length=arguments.max_new_tokens is not None,
        workers=arguments.workers,
        out=arguments.out,
    )
    print(f"results: {run_eval(request)}")
    return 0
