"""Configs of studies: strict like all others, and the mistakes that only a study can have."""

from __future__ import annotations

from pathlib import Path

import pytest

from ouro_rl.config.loader import load_config
from ouro_rl.config.packaged_configs import config_folder, find_study, packaged_studies
from ouro_rl.config.study import StudyConfig
from ouro_rl.core.errors import UserError
from ouro_rl.evaluation.study.plan import load_study

SMALL = "base: [quickstart]\narms: {a: {}, b: {start: a}, c: {marginal_of: b, seeds: [1]}}\nseeds: [0, 1]\n"


@pytest.fixture
def load(tmp_path):
    path = tmp_path / "small.yaml"
    path.write_text(SMALL)
    return lambda *overrides: load_config(StudyConfig, [path], overrides)


def test_the_seeds_and_the_needs_of_an_arm(load):
    config = load()
    assert (config.reference_arms, config.seeds_of("a"), config.seeds_of("c")) == (("a",), (0, 1), (1,))
    assert [config.arms[name].needs for name in "abc"] == [(), ("a",), ("b",)]
    assert load("arms.b.marginal_of=a").arms["b"].needs == ("a",)
    fewer = load("seeds=[0]")
    assert (fewer.seeds_of("a"), fewer.seeds_of("c")) == ((0,), ()), "a part of a study: no arm runs at other seeds"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("arms.b.start=d", "arms.b: there is no arm d; there are a, b, c"),
        ("references=[a,d]", "references: there is no arm d; there are a, b, c"),
        ("arms.a.start=b", "waits for itself through start or marginal_of"),
        ("arms.a.seeds=[1]", "arms.b.seeds: a has no seed 0"),
        ("arms.B2={}", "arms.B2: use lower-case letters, digits and _"),
        ("arms.a.overides={}", "unknown key arms.a.overides; did you mean arms.overrides?"),
        ("evaluation.problem=3", "unknown key evaluation.problem; did you mean evaluation.problems?"),
        ("gate.lr=0.1", "unknown key gate; it is a key of configs for `ouro-rl train`"),
        ("seeds=[]", "seeds must have at least 1 item"),
    ],
)
def test_mistakes_are_named(load, override, message):
    with pytest.raises(UserError) as error:
        load(override)
    assert message in str(error.value)


def test_a_mistake_in_the_training_config_of_an_arm_is_found_before_anything_runs(tmp_path):
    path = tmp_path / "small.yaml"
    path.write_text(SMALL.replace("b: {start: a}", "b: {overrides: {gate.lrr: 1.0}}"))
    with pytest.raises(UserError, match=r"^small, arm b: override gate.lrr=1.0: unknown key gate.lrr"):
        load_study(str(path), [], tmp_path / "out")
    path.write_text(SMALL.replace("a: {}", "a: {overrides: {eval.source: null}}"))
    with pytest.raises(UserError, match="small, arm a: eval.source is not set"):
        load_study(str(path), [], tmp_path / "out")


@pytest.mark.parametrize("file", packaged_studies().values(), ids=lambda file: file.stem)
def test_the_studies_that_come_with_ouro_rl(file, tmp_path):
    study = load_study(str(file), [], tmp_path)
    assert study.name == file.stem and len(study.runs()) > 5


@pytest.mark.parametrize("text", ["hops", "hops.yaml", "study/hops.yaml", "configs/study/hops.yaml"])
def test_a_name_finds_the_packaged_study_from_any_folder(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_study(text) == config_folder() / "study" / "hops.yaml"
    assert find_study("elsewhere/hops.yaml").parent.name == "elsewhere"
    assert find_study("hopps.yaml") == Path("hopps.yaml"), "reading it names the files that are like it"
    with pytest.raises(UserError, match="hopps: no such study; there are arithmetic, hops, walks"):
        find_study("hopps")
    (tmp_path / "hops.yaml").write_text(SMALL)
    assert find_study("hops.yaml").read_text() == SMALL, "a file of one's own comes first"
