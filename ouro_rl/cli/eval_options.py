"""Options that evaluations share, and the config that follows from them."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ouro_rl.cli.argument_types import number, share, user_function, whole
from ouro_rl.cli.preflight.files import check_benchmark
from ouro_rl.config.evaluation import evaluation_config
from ouro_rl.config.section import Section
from ouro_rl.config.train import TrainConfig
from ouro_rl.core.errors import UserError
from ouro_rl.core.kv_rule import KVRule
from ouro_rl.core.shell_text import line_breaks

LARGEST_MIN_P = 0.999
"""A fraction of 1 would keep only the most likely token, which is greedy decoding."""


def add_format_options(command: argparse.ArgumentParser) -> None:
    """How problems are asked; what is not given is as in the run that wrote the checkpoint, or in `--config`."""
    command.add_argument(
        "--config",
        action="append",
        default=[],
        metavar="CONFIG",
        help="training config whose prompt format, limits and exit rule apply (default: that of the checkpoint's run)",
    )
    lines = "(\\n is a line break)"
    command.add_argument("--system-prompt", metavar="TEXT", help=f"system message before every question {lines}")
    command.add_argument("--prompt-suffix", metavar="TEXT", help=f"text appended to the question {lines}")
    command.add_argument(
        "--assistant-prefix", metavar="TEXT", help=f"start of every answer, such as '<think>\\n' {lines}"
    )
    command.add_argument("--question-column", metavar="NAME", help="column of the question, if it has no usual name")
    command.add_argument("--answer-column", metavar="NAME", help="column of the gold answer, if it has no usual name")


def add_sampling_options(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--temperature",
        type=number(0.0),
        metavar="X",
        help="sampling temperature (default: 0, greedy, with one sample; else 1)",
    )
    command.add_argument("--top-k", type=whole(0), metavar="N", help="keep only the N most likely tokens")
    command.add_argument(
        "--top-p",
        type=share,
        metavar="X",
        help="keep only the most likely tokens with this total probability",
    )
    command.add_argument(
        "--min-p",
        type=number(0.0, LARGEST_MIN_P),
        metavar="X",
        help="keep only tokens with this fraction of the top token's probability",
    )
    command.add_argument(
        "--logit-processor",
        type=user_function,
        action="append",
        metavar="NAME",
        help="module.path:function or file.py:function; may be repeated",
    )
    command.add_argument(
        "--stop",
        action="append",
        metavar="TEXT",
        help="ends an answer (\\n is a line break); may be repeated",
    )
    command.add_argument(
        "--stop-id",
        type=whole(0),
        action="append",
        metavar="ID",
        help="id of a token that ends an answer; may be repeated",
    )
    command.add_argument(
        "--gate-temperature",
        type=number(0.0, above=True),
        metavar="X",
        help="temperature of the exit gate",
    )


def check_samples(arguments: argparse.Namespace) -> None:
    """Raise UserError if all samples of a problem would be the same: greedy tokens at depths that are not drawn."""
    rules = arguments.depth, arguments.exit_threshold, arguments.confidence, arguments.entropy, arguments.kl
    fixed = any(rules) or not arguments.sample_gate
    greedy = "--temperature 0" if arguments.temperature == 0 else "--top-k 1" if arguments.top_k == 1 else None
    if arguments.samples > 1 and greedy and fixed:
        raise UserError(
            f"--samples {arguments.samples} with {greedy}: every problem would get {arguments.samples} equal answers "
            f"where depths are not drawn;\n  leave out --samples, or {greedy}"
        )


def with_options(config: TrainConfig, arguments: argparse.Namespace) -> TrainConfig:
    """The config with the options that were given, under the keys of training. Whether they fit together, and fit the
    model, is checked where they are used: limits of training, such as a target depth, do not bind an evaluation."""
    config = with_format(config, arguments)
    rollout = _given(
        config.rollout,
        min_depth=arguments.min_depth,
        max_depth=arguments.max_depth,
        top_k=arguments.top_k,
        top_p=arguments.top_p,
        min_p=arguments.min_p,
        logit_processors=arguments.logit_processor and tuple(arguments.logit_processor),
        stop_strings=arguments.stop and tuple(line_breaks(text) for text in arguments.stop),
        stop_token_ids=arguments.stop_id and tuple(arguments.stop_id),
        max_batch=arguments.max_batch,
    )
    evaluation = _given(
        config.eval,
        kv_rule=arguments.kv_rule and KVRule(arguments.kv_rule),
        gate_temperature=arguments.gate_temperature,
    )
    return config.model_copy(update={"rollout": rollout, "eval": evaluation})


def asked_config(
    arguments: argparse.Namespace,
    with_given: Callable[[TrainConfig, argparse.Namespace], TrainConfig],
    *,
    benchmark: str | None = None,
    overrides: Sequence[str] = (),
    data_file: Path | None = None,
) -> tuple[TrainConfig, str | None]:
    """The config of an evaluation on `benchmark` with the options `with_given` (one of the two functions around this
    one), and where it comes from (`evaluation_config`). Raises UserError if the problems are not there."""
    config, run = evaluation_config(arguments.model, arguments.config, benchmark, overrides)
    config = with_given(config, arguments)
    asked = config.eval
    assert asked.source is not None, "evaluation_config requires it"
    columns = {"--question-column": asked.question_column, "--answer-column": asked.answer_column}
    check_benchmark(asked.source, data_file, key="--benchmark", columns=columns, revision=asked.revision)
    return config, run


def with_format(config: TrainConfig, arguments: argparse.Namespace) -> TrainConfig:
    """The config with the options that say which problems are asked, and how."""
    texts = {key: getattr(arguments, key) for key in ("system_prompt", "prompt_suffix", "assistant_prefix")}
    lengths = arguments.max_new_tokens
    evaluation = _given(
        config.eval,
        limit=arguments.limit,
        max_new_tokens=max(lengths) if isinstance(lengths, tuple) else lengths,
        question_column=arguments.question_column,
        answer_column=arguments.answer_column,
    )
    data = _given(config.data, **{key: text and line_breaks(text) for key, text in texts.items()})
    return config.model_copy(update={"eval": evaluation, "data": data})


def _given(section: Section, **values: Any) -> Any:
    return section.model_copy(update={key: value for key, value in values.items() if value is not None})
