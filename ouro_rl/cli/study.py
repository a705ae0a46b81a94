"""`ouro-rl study`: plans, runs and reports studies."""

from __future__ import annotations

import argparse
from pathlib import Path

from ouro_rl.cli.argument_types import count, list_of
from ouro_rl.cli.commands import split_configs
from ouro_rl.cli.preflight.files import check_model
from ouro_rl.config.sizes import check_launcher
from ouro_rl.config.study import StudyConfig
from ouro_rl.core.errors import UserError
from ouro_rl.core.paths import check_writable, path_option


def add_study_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--out",
        type=path_option,
        default=Path("docs/study"),
        metavar="DIR",
        help="folder for the results, one folder per study (default: docs/study)",
    )
    command.add_argument(
        "--jobs", type=count, default=1, metavar="N", help="runs at a time, with one thread each (default: 1)"
    )
    command.add_argument(
        "--only", type=list_of(str), default=(), metavar="ARM,...", help="only these arms, and those that they need"
    )
    command.add_argument("--list", action="store_true", help="print the plan and what is left of it, then stop")


def study(arguments: argparse.Namespace) -> int:
    """Run the studies one after another. Exit status 1 if a run failed."""
    from ouro_rl.evaluation.study.plan import load_study, train_config
    from ouro_rl.evaluation.study.runner import run_study
    from ouro_rl.evaluation.study.state import plan_table, states_of

    check_launcher()
    files, overrides = split_configs(arguments.configs, StudyConfig)
    if not files:
        raise UserError("study: give the config of a study, such as configs/study/hops.yaml")
    studies = [load_study(file, overrides, arguments.out) for file in files]
    for one in studies:
        states = states_of(one, arguments.only)
        if arguments.list:
            print(plan_table(one, states, arguments.jobs))
    if arguments.list:
        return 0
    check_writable(arguments.out, "--out")
    complete = True
    for one in studies:
        for run in one.runs(arguments.only):
            if run.arm_config.start is None:
                check_model(train_config(run, marginal=(1.0,)).model.path, key="model.path")
        print(f"{one.name}:")
        complete &= run_study(one, jobs=arguments.jobs, only=arguments.only)
    return 0 if complete else 1
