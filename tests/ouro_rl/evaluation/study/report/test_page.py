"""The page of a study: made from the results, complete, and the same for the same results."""

from __future__ import annotations

from pathlib import Path

import pytest

from ouro_rl.cli import main as cli
from ouro_rl.config.loader import load_config
from ouro_rl.config.study import ArmConfig, StudyConfig
from ouro_rl.core.errors import UserError
from ouro_rl.evaluation.study.report.page import write_study_page
from ouro_rl.run_dir.study_result import write_result
from tests.ouro_rl.evaluation.study.report.made_up import result, rule

LEVELS = [1, 2, 1, 2]


def by_level(accuracy: float) -> dict:
    return {
        str(level): {"problems": 2, "accuracy": accuracy, "loops_per_token": float(level), "loops_per_answer": 3.0}
        for level in (1, 2)
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for seed in (0, 1):
        new = [
            rule("threshold 0.5", "1110", [2, 4, 2, 4], [2, 2, 2, 2], levels=by_level(0.75)),
            rule("threshold 0.9", "1111", [6, 8, 6, 8], [2, 2, 2, 2]),
        ]
        old = [rule("fixed 2", "1100", [4, 4, 4, 4], [2, 2, 2, 2], levels=by_level(0.5)), new[1]]
        write_result(tmp_path / f"new-{seed}.json", result("new", seed, new, LEVELS, needed=[2, 4, 2, 4]))
        write_result(tmp_path / f"old-{seed}.json", result("old", seed, old, LEVELS, needed=[2, 4, 2, 4]))
    return tmp_path


CONFIG = StudyConfig(
    base=("x",), seeds=(0, 1),
    arms={
        "new": ArmConfig(about="the new one"), "old": ArmConfig(seeds=(0,)),
        "unmeasured": ArmConfig(start="old", seeds=(0,)),
    },
)  # fmt: skip


def test_the_tables(folder):
    page = write_study_page(folder, "made_up", CONFIG, {"old-0": "its config has changed: x: 1 -> 2"}).read_text()
    assert "4 held-out problems" in page and "Not measured yet: unmeasured (seed 0)." in page
    assert "- old-0: its config has changed: x: 1 -> 2" in page
    served = next(line for line in page.splitlines() if line.startswith("| new | 2 | threshold 0.5 |"))
    cells = [cell.strip() for cell in served.strip("|").split("|")]
    assert (
        cells[3].startswith("75.0% [") and cells[4].startswith("3.0 [") and cells[5:9] == ["1.50", "2.0", "7.0", "0.0%"]
    )
    assert cells[9] == "1.00 [1.00, 1.00]" and cells[10].startswith("1.00 ["), "as many loops as the oracle"
    assert "| old | 1 | fixed 2 |" in page, "the other seed is not in the config"
    assert "| new | 75.0% (1.00, 3.0) | 75.0% (2.00, 3.0) |" in page
    comparison = next(line for line in page.splitlines() if line.startswith("| old | 1 | +25.0 ["))
    cells = [cell.strip() for cell in comparison.strip("|").split("|")]
    assert cells[3].startswith("\N{MINUS SIGN}25.0% [") and cells[4].startswith("+31.2 [") and cells[5] == "-"
    assert cells[6].startswith("+16.7% [") and cells[7] == "-", "with the loops of prompts it is never so cheap"
    assert "| new | 100.0% (7.0) |" in page and "| old | 100.0% (7.0) |" in page, "the rule that both have"
    assert "- new: threshold 0.5 75.0% (3.0)" in page and "- old: fixed 2 50.0% (4.0)" in page
    assert "0.25 → 0.50 | 3.00 → 3.00" in page
    assert "- **new**: the new one" in page and "starts from the checkpoint of old" in page


def test_the_same_results_give_the_same_bytes(folder, tmp_path):
    names = ["README.md"] + [
        f"{name}.{suffix}" for name in ("frontier-loops", "frontier-flops", "difficulty") for suffix in ("svg", "png")
    ]
    write_study_page(folder, "made_up", CONFIG, {})
    before = {name: (folder / name).read_bytes() for name in names}
    write_study_page(folder, "made_up", CONFIG, {})
    assert before == {name: (folder / name).read_bytes() for name in names}
    svg = before["frontier-loops.svg"].decode()
    assert ">new<" in svg and ">old<" in svg and "accuracy on held-out problems" in svg and "unmeasured" not in svg


def test_without_results_or_with_other_problems_there_is_no_page(folder, tmp_path_factory):
    with pytest.raises(UserError, match="holds no result of made_up yet"):
        write_study_page(tmp_path_factory.mktemp("empty"), "made_up", CONFIG, {})
    other = result("old", 0, [rule("fixed 2", "11", [2, 2], [1, 1])], [1, 2])
    write_result(folder / "old-0.json", other)
    with pytest.raises(UserError, match="measured on different problems"):
        write_study_page(folder, "made_up", CONFIG, {})


def test_the_command_makes_the_page_anew(folder, tmp_path_factory, capsys, monkeypatch):
    here = tmp_path_factory.mktemp("here")
    monkeypatch.chdir(here)
    (here / "made_up.yaml").write_text("base: [quickstart]\nseeds: [0, 1]\narms: {new: {}, old: {}}\n")
    folder.rename(here / "made_up")
    assert cli.main(["study", "made_up.yaml", "--out", str(here), "--report"]) == 0
    assert (here / "made_up" / "README.md").exists() and "page: " in capsys.readouterr().out
    assert "its config has changed" in (here / "made_up" / "README.md").read_text(), "the settings are made up"
    assert load_config(StudyConfig, [here / "made_up" / "study.yaml"]).arms.keys() == {"new", "old"}
