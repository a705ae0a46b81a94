"""`ouro-rl list` and `ouro-rl configs`: every name is listed, and copies of configs run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from ouro_rl.cli import catalog
from ouro_rl.cli import main as cli
from ouro_rl.cli.preflight.files import BENCHMARKS, check_train_files
from ouro_rl.config.loader import load_config
from ouro_rl.config.packaged_configs import first_statement, packaged_configs
from ouro_rl.config.rollout import ExitRuleConfig
from ouro_rl.config.train import EvalConfig, TrainConfig
from ouro_rl.core.kv_rule import KVRule
from rewards.registry import BUILT_IN
from tests.references.places import REPOSITORY

TO_COPY = {"quickstart", "math_example", "code_example"}
"""The packaged configs that come with their own model and data."""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_list_has_one_line_for_every_name(capsys):
    assert cli.main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    shown = {line.split()[0] for line in lines if line.startswith("  ") and len(line.split()) > 1}
    rules = get_args(ExitRuleConfig.model_fields["kind"].annotation)
    assert shown == {*BUILT_IN, *BENCHMARKS, *packaged_configs(), *rules, *KVRule}
    assert sum(line.startswith("  ") for line in lines) == sum(len(names()) for _, names in catalog.KINDS.values())


def test_no_line_ends_within_a_sentence(capsys):
    """The files break their lines at 120 columns."""
    assert cli.main(["list"]) == 0
    shown = capsys.readouterr().out
    for end in (
        "from `longest - buffer` to\n",
        "falling linearly to -1 at\n",
        "named `answer`,\n",
        "of a step, as many\n",
    ):
        assert end not in shown
    for whole in (
        "falling linearly to -1 at `longest`\n",
        "as many loops as hops for its letter\n",
        "4 sample. Give it",
    ):
        assert whole in shown


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["One."], "One"),
        (["One. Two", "three.", "Four."], "One. Two three"),
        (["A question?", "More."], "A question?"),
        (["The command:", "  x"], "The command"),
        (["No mark", "", "Another."], "No mark"),
        ([""], ""),
        ([], ""),
    ],
)
def test_the_first_statement_of_a_text(lines, said):
    assert first_statement(lines) == said


def test_the_tables_have_the_rules_that_the_config_accepts():
    assert catalog.EXIT_RULES.keys() == set(get_args(ExitRuleConfig.model_fields["kind"].annotation))
    assert catalog.KV_RULES.keys() == set(KVRule)


def test_the_keys_it_mentions_exist_in_the_config():
    for kind, (where, _) in catalog.KINDS.items():
        keys = [
            word.rstrip(",:")
            for word in where.split()
            if "." in word and word.split(".")[0] in TrainConfig.model_fields
        ]
        assert keys or kind in ("configs", "studies")
        for key in keys:
            section = TrainConfig
            for part in key.split("."):
                section = section.model_fields[part].annotation
    assert "source" in EvalConfig.model_fields


def test_one_kind_alone(capsys):
    assert cli.main(["list", "exit-rules"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1 + len(catalog.EXIT_RULES)
    assert cli.main(["list", "gates"]) == 2
    assert "exit-rules" in capsys.readouterr().err


def test_configs_are_listed_with_their_purpose(capsys):
    assert cli.main(["configs"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert {line.split()[0] for line in lines} == packaged_configs().keys()
    assert all(len(line.split()) > 4 and not line.endswith((":", ".")) for line in lines)


@pytest.mark.parametrize("name", sorted(TO_COPY))
def test_a_copy_has_all_the_files_it_needs(here, capsys, name):
    assert cli.main(["configs", name, "--to", "my own/ünder"]) == 0
    written = [Path(line) for line in capsys.readouterr().out.splitlines()]
    assert written[0] == Path(f"my own/ünder/{name}.yaml") and all(path.exists() for path in written)
    config = load_config(TrainConfig, [written[0]], must_exist=True)
    used = [
        config.model.path,
        config.data.source,
        config.eval.source,
        *(reward.name for reward in config.rewards.functions),
    ]
    paths = [path for path in used if path and "/" in path]
    assert paths and all(path.startswith(str(here / "my own" / "ünder")) for path in paths)
    check_train_files(config)


def test_nothing_is_overwritten_or_copied_in_part(here, capsys):
    (here / "tiny_ouro").mkdir()
    assert cli.main(["configs", "quickstart"]) == 2
    assert "tiny_ouro already exists" in capsys.readouterr().err
    assert [path.name for path in here.iterdir()] == ["tiny_ouro"]
    (here / "file").write_text("")
    assert cli.main(["configs", "quickstart", "--to", "file"]) == 2
    assert "--to file: cannot be written" in capsys.readouterr().err


def test_mistakes(capsys):
    assert cli.main(["configs", "quickstrat"]) == 2
    assert "'quickstrat'; there are code_example, " in capsys.readouterr().err
    assert cli.main(["configs", "--to", "x"]) == 2
    assert "--to: give the name" in capsys.readouterr().err


def test_neither_imports_anything_heavy():
    heavy = {"torch", "transformers", "ray", "trl", "datasets", "sympy", "matplotlib"}
    program = (
        "import sys; from ouro_rl.cli import main as cli; cli.main(['list']); cli.main(['configs']); "
        f"sys.exit(str({heavy} & {{*sys.modules}}))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=REPOSITORY)
    assert done.stderr.strip() == "set()"
