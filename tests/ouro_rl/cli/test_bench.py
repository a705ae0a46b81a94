"""`ouro-rl bench`: names, mistakes, and what it prints and writes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ouro_rl.bench.catalog import BENCHMARKS, check_name
from ouro_rl.cli import main as cli
from ouro_rl.core.errors import UserError
from tests.references.tiny_bench import TINY


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["rolout"], "did you mean rollout?"),
        (["zzz"], "there are rollout, replay, cache, group, all"),
        (["page"], "give the JSON files"),
        (["page", "nowhere.json"], "nowhere.json: cannot be read (No such file or directory); correct the path"),
        (["cache", "--json", "nowhere/x.json"], "create it first"),
        (["cache", "--json", "."], "is a folder"),
        (["cache", "group"], "give one name"),
        (["cache", "--plot", "x.png"], "has no plot"),
        (["cache", "--layers", "2"], "has no --layers"),
    ],
)
def test_mistakes_are_reported(arguments, told, capsys, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["bench", *arguments]) == 2
    assert told in capsys.readouterr().err


def test_a_mistake_is_reported_without_importing_torch():
    program = (
        "import sys; from ouro_rl.cli.main import main; assert main(['bench', 'x']) == 2; print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_the_command_prints_a_table_and_writes_the_json(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys):
    monkeypatch.setattr("ouro_rl.bench.run.QUICK", TINY)
    assert cli.main(["bench", "cache", "--quick", "--json", str(tmp_path / "x.json")]) == 0
    printed = capsys.readouterr()
    assert "KV bytes at mean depth 2.5 against full" in printed.out and "cache ..." in printed.err
    results = json.loads((tmp_path / "x.json").read_text())
    assert results["measured"] == {"kv_bytes_ratio": 0.625} and "group_speedup" not in results
    assert cli.main(["bench", "page", str(tmp_path / "x.json")]) == 0
    assert capsys.readouterr().out.startswith("# Performance")


def test_names():
    for name in BENCHMARKS:
        check_name(name)
    with pytest.raises(UserError, match="did you mean curves"):
        check_name("curve")
