"""`ouro-rl study`: plans, runs and reports studies."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ouro_rl.cli.argument_types import count, list_of
from ouro_rl.cli.commands import split_configs
from ouro_rl.config.loader import dump_config
from ouro_rl.config.sizes import check_launcher
from ouro_rl.config.study import StudyConfig
from ouro_rl.core.atomic_write import write_atomically
from ouro_rl.core.errors import UserError
from ouro_rl.core.paths import check_writable, path_option
from ouro_rl.model.checkpoint_files import check_model

if TYPE_CHECKING:
    from ouro_rl.evaluation.study.plan import Study

CONFIG_NOTE = "# All keys of configs/study/{name}.yaml, as these results were measured.\n"


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
    what = command.add_mutually_exclusive_group()
    what.add_argument("--list", action="store_true", help="print the plan and what is left of it, then stop")
    what.add_argument("--report", action="store_true", help="only make the page and its plots anew, from the results")


def study(arguments: argparse.Namespace) -> int:
    """Run the studies one after another, and make their pages. Exit status 1 if a run failed."""
    from ouro_rl.evaluation.study.plan import load_study
    from ouro_rl.evaluation.study.state import plan_table, states_of

    check_launcher()
    files, overrides = split_configs(arguments.configs, StudyConfig)
    if not files:
        raise UserError("study: give the config of a study, such as configs/study/hops.yaml")
    studies = [load_study(file, overrides, arguments.out) for file in files]
    states = [states_of(one, arguments.only) for one in studies]
    if arguments.list:
        for one, state in zip(studies, states, strict=True):
            print(plan_table(one, state, arguments.jobs))
        return 0
    check_writable(arguments.out, "--out")
    complete = True
    for one in studies:
        if not arguments.report:
            complete &= _run(one, arguments)
        _report(one)
    return 0 if complete else 1


def _run(one: Study, arguments: argparse.Namespace) -> bool:
    """Whether all runs of the study are done now."""
    from ouro_rl.evaluation.study.plan import train_config
    from ouro_rl.evaluation.study.runner import run_study

    for arm in dict.fromkeys(run.arm for run in one.runs(arguments.only)):
        if one.config.arms[arm].start is None:
            config = train_config(one.first_run(arm), marginal=(1.0,))
            check_model(config.model.path, key=f"{one.name}, arm {arm}: model.path")
    print(f"{one.name}:")
    return run_study(one, jobs=arguments.jobs, only=arguments.only)


def _report(one: Study) -> None:
    from ouro_rl.evaluation.study.report.page import write_study_page
    from ouro_rl.evaluation.study.state import CHECKPOINT_GONE, states_of

    outdated = {
        state.run.name: state.reason
        for state in states_of(one)
        if not state.done and state.reason != CHECKPOINT_GONE and state.run.result_path.exists()
    }
    page = write_study_page(one.results, one.name, one.config, outdated)
    write_atomically(one.results / "study.yaml", [CONFIG_NOTE.format(name=one.name), dump_config(one.config), "\n"])
    print(f"page: {page}")
