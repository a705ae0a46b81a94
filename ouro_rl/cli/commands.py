"""The commands, called with parsed arguments: cheap checks first, heavy imports last."""

from __future__ import annotations

import argparse
import contextlib
import re
import sys

from ouro_rl.cli.preflight.files import check_reward, check_rewards, check_train_files
from ouro_rl.cli.reward import reward_spec
from ouro_rl.config.aliases import argument_hint
from ouro_rl.config.loader import dump_config, known_keys, load_config
from ouro_rl.config.packaged_configs import find_config
from ouro_rl.config.section import Section
from ouro_rl.config.sizes import check_launcher, derived_sizes, foreign_claims, world_size
from ouro_rl.config.train import TrainConfig
from ouro_rl.config.warmstart import WarmstartConfig
from ouro_rl.core.errors import UserError
from ouro_rl.core.paths import check_writable, check_writable_file
from ouro_rl.core.progress import say
from ouro_rl.run_dir.open_or_resume import check_resume
from ouro_rl.run_dir.revisions import pinned

OVERRIDE = re.compile(r"[A-Za-z_]\w*(\.\w+)*=", re.ASCII)


def train(arguments: argparse.Namespace) -> int:
    if not arguments.dry_run:
        check_launcher()
    config = load_config(TrainConfig, *split_configs(arguments.configs, TrainConfig), must_exist=not arguments.dry_run)
    if arguments.dry_run:
        check_rewards(config, own=False)
        return _dry_run(config)
    check_writable(config.run.dir, "run.dir")
    check_train_files(config)
    config = pinned(config, resume=arguments.resume)
    if arguments.resume:
        check_resume(config, world_size())
    say("Importing torch, transformers and TRL")
    from ouro_rl.launch import run_training

    return run_training(config, arguments.resume)


def check(arguments: argparse.Namespace) -> int:
    check_launcher()
    config = load_config(TrainConfig, *split_configs(arguments.configs, TrainConfig), must_exist=True)
    check_train_files(config)
    config = pinned(config)
    say("Importing torch, transformers and TRL")
    from ouro_rl.cli.preflight.checks import run_check

    return run_check(config)


def warmstart(arguments: argparse.Namespace) -> int:
    config = load_config(WarmstartConfig, *split_configs(arguments.configs, WarmstartConfig))
    if arguments.dry_run:
        return _dry_run(config)
    check_writable(config.output, "output")
    say("Importing torch and transformers")
    from ouro_rl.training.warmstart.run import run_warmstart

    print(f"checkpoint: {run_warmstart(config)}")
    return 0


def grade(arguments: argparse.Namespace) -> int:
    spec = reward_spec(arguments.reward, arguments)
    check_reward(spec)
    from rewards.grade import grade_file

    summary = grade_file(arguments.file, spec, arguments.out, workers=arguments.workers, timeout_s=arguments.timeout)
    print(summary, file=sys.stderr if arguments.out is None else sys.stdout)  # without --out the rows go to stdout
    return 0


def report(arguments: argparse.Namespace) -> int:
    runs = arguments.run_dirs
    if arguments.watch and len(runs) > 1:
        raise UserError("--watch follows one run; leave it out, or give one folder")
    if arguments.out is not None and len(runs) == 1:
        raise UserError("--out is the file of a comparison; the page of one run is report.html in its folder")
    check_writable_file(arguments.out, "--out")
    from ouro_rl.run_dir.report.compare import write_comparison
    from ouro_rl.run_dir.report.page import write_report
    from ouro_rl.run_dir.report.watch import watch

    if arguments.watch:
        with contextlib.suppress(KeyboardInterrupt):  # how a user ends it
            watch(runs[0])
        return 0
    print(f"report: {write_report(runs[0]) if len(runs) == 1 else write_comparison(runs, arguments.out)}")
    return 0


def split_configs(configs: list[str], cls: type[Section]) -> tuple[list[str], list[str]]:
    """Split arguments into config files and overrides, keeping their order. Raises UserError for an argument that looks
    like another system's override."""
    overrides = [text for text in configs if OVERRIDE.match(text)]
    files = [text for text in configs if text not in overrides]
    for text in files:
        hint = argument_hint(configs, configs.index(text), known_keys(cls))
        if hint and not find_config(text).exists():
            raise UserError(hint)
    return files, overrides


def _dry_run(config: TrainConfig | WarmstartConfig) -> int:
    """Print the resolved config, then the derived sizes as comments, so that the output is a valid config file."""
    ignored = [f"# ignored: {claim}, which neither accelerate nor torchrun set" for claim in foreign_claims()]
    sizes = [f"# {name}: {number:,}" for name, number in derived_sizes(config).items()]
    print(dump_config(config), *sizes, *ignored, sep="\n")
    return 0
