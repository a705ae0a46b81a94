"""`ouro-rl eval`; its arguments are checked before anything heavy is imported."""

from __future__ import annotations

import argparse

from ouro_rl.cli.argument_types import count, list_of, share, whole
from ouro_rl.cli.eval_options import add_sampling_options, check_samples, filters_of, stops_of
from ouro_rl.cli.preflight.files import check_benchmark, check_workers
from ouro_rl.core.errors import UserError
from ouro_rl.core.kv_rule import KVRule
from ouro_rl.core.paths import check_writable, expand, path_option
from ouro_rl.core.progress import say
from ouro_rl.core.sampling_params import MOST_LOOPS, DepthPolicy
from ouro_rl.model.checkpoint_files import check_model


def add_eval_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("--model", type=expand, required=True, metavar="PATH_OR_HUB_ID")
    command.add_argument(
        "--benchmark",
        type=expand,
        required=True,
        metavar="NAME_OR_FILE",
        help="arithmetic, hops, math500, or a .jsonl file",
    )
    command.add_argument("--data", type=path_option, metavar="FILE", help="the benchmark's problems from a .jsonl file")
    command.add_argument("--depth", type=list_of(count), default=(), metavar="1,2,...", help="fixed numbers of loops")
    command.add_argument(
        "--exit-threshold",
        type=list_of(share),
        default=(),
        metavar="0.5,...",
        help="exit when the gate's cumulative exit probability reaches it",
    )
    command.add_argument("--sample-gate", action="store_true", help="sample every depth from the gate")
    command.add_argument(
        "--kv-rule", choices=list(KVRule), default=KVRule.LAST_EXITED, help="what is read from tokens that exited early"
    )
    command.add_argument("--min-depth", type=count, default=1, metavar="N", help="no token exits before this loop")
    command.add_argument(
        "--max-depth", type=count, metavar="N", help="maximum number of loops per token (default: the model's)"
    )
    command.add_argument("--samples", type=count, default=1, metavar="K", help="1: greedy; more: at temperature 1")
    add_sampling_options(command)
    command.add_argument("--limit", type=count, metavar="N", help="maximum number of problems")
    command.add_argument(
        "--max-new-tokens", type=count, metavar="N", help="default: 64 for arithmetic and hops, else 2048"
    )
    command.add_argument(
        "--assistant-prefix",
        default="",
        metavar="TEXT",
        help="start of every answer, such as '<think>\\n' (\\n is a line break)",
    )
    command.add_argument("--workers", type=whole(0), default=0, metavar="N", help="Ray rollout actors; 0: in process")
    command.add_argument("--out", type=path_option, required=True, metavar="DIR", help="folder for eval.json")


def evaluate(arguments: argparse.Namespace) -> int:
    check_samples(arguments)
    check_model(arguments.model, key="--model")
    check_benchmark(arguments.benchmark, arguments.data, key="--benchmark")
    if too_deep := [depth for depth in arguments.depth if depth > MOST_LOOPS]:
        raise UserError(f"--depth {too_deep[0]}: more than {MOST_LOOPS} loops; give a smaller one")
    check_writable(arguments.out, "--out")
    check_workers(arguments.workers, 1, key="--workers")
    say("Importing torch and transformers")
    from ouro_rl.evaluation.run import EvalRequest, run_eval

    request = EvalRequest(
        model=arguments.model,
        benchmark=arguments.benchmark,
        data_file=arguments.data,
        depths=arguments.depth,
        thresholds=arguments.exit_threshold,
        sample_gate=arguments.sample_gate,
        depth_policy=DepthPolicy(
            kv_rule=KVRule(arguments.kv_rule),
            min_depth=arguments.min_depth,
            max_depth=arguments.max_depth,
            gate_temperature=arguments.gate_temperature,
        ),
        samples=arguments.samples,
        temperature=arguments.temperature,
        filters=filters_of(arguments),
        stop_strings=stops_of(arguments),
        stop_token_ids=tuple(arguments.stop_id),
        limit=arguments.limit,
        max_new_tokens=arguments.max_new_tokens,
        assistant_prefix=arguments.assistant_prefix.replace("\\n", "\n"),  # a shell passes the two characters
        workers=arguments.workers,
        out=arguments.out,
    )
    print(f"results: {run_eval(request)}")
    return 0
