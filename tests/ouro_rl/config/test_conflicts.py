"""Values that do not fit together are refused, with every file that set one of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from ouro_rl.config.loader import load_config
from ouro_rl.config.train import TrainConfig
from ouro_rl.core.errors import UserError
from tests.references.config_cases import MINIMAL, refusal


def test_conflicting_sections(minimal: Path) -> None:
    text = refusal(minimal, "rollout.exit_rule={kind: threshold, value: 0.5}")
    assert "gate.mode" in text and "`off`" in text


@pytest.mark.parametrize(
    ("first", "second", "third", "named"),
    [
        ("trainer: {micro_batch: 5}", "rollout: {max_new_tokens: 9}", "trainer: {lr: 0.1}", ["first"]),
        ("trainer: {micro_batch: 5}", "trainer: {group_size: 3}", "trainer: {lr: 0.1}", ["second", "first"]),
        ("rollout: {exit_rule: {kind: fixed, value: 2}}", "gate: {mode: policy}", "{}", ["second", "first"]),
        ("rollout: {min_depth: 3}", "rollout: {top_p: 0.5}", "rollout: {max_depth: 2}", ["first", "third"]),
        (
            "eval: {source: arithmetic, exit_rule: {kind: fixed, value: 1}}",
            "rollout: {min_depth: 2}",
            "{}",
            ["first", "second"],
        ),
        ("gate: {target_depth: 3}", "rollout: {max_depth: 2}", "gate: {mode: policy}", ["first", "second"]),
    ],
)
def test_conflicting_values_name_every_file_that_set_one(
    first: str, second: str, third: str, named: list[str], minimal: Path, tmp_path: Path
) -> None:
    files = {name: tmp_path / f"{name}.yaml" for name in ("first", "second", "third")}
    for file, text in zip(files.values(), (first, second, third), strict=True):
        file.write_text(text)
    with pytest.raises(UserError) as caught:
        load_config(TrainConfig, [minimal, *files.values()])
    assert str(caught.value).startswith(" + ".join(str(files[name]) for name in named) + ": ")


@pytest.mark.parametrize(
    "without_effect, with_effect, said",
    [
        (["gate.keep_best=4"], ["gate.keep_best=3"], "leaves none of a group of 4 out"),
        (["gate.variety_bonus=0.1", "gate.mode=off"], ["gate.variety_bonus=0.1"], "no effect with gate.mode `off`"),
        (["gate.eta=0.5"], ["gate.eta=0.5", "gate.credit=rao_blackwell", "gate.probe_share=1"], "set it to 0"),
        (["gate.eta=1"], ["gate.eta=1", "trainer.credit=rao_blackwell", "gate.probe_share=1"], "set it to 0"),
        (
            ["trainer.importance=sequence", "trainer.credit=rltt_uniform", "gate.probe_share=1"],
            ["trainer.importance=token", "trainer.credit=rltt_uniform", "gate.probe_share=1"],
            "trainer.importance `sequence` has no effect on losses that trainer.credit `rltt_uniform` spreads over",
        ),
    ],
)
def test_a_setting_without_effect_is_refused(without_effect, with_effect, said, minimal: Path) -> None:
    policy = ["trainer.group_size=4", "gate.mode=policy", "rollout.exit_rule={kind: sample}"]
    assert said in refusal(minimal, *policy, *without_effect)
    load_config(TrainConfig, [minimal], [*policy, *with_effect])


def test_a_conflict_of_file_and_override_names_both(minimal: Path) -> None:
    minimal.write_text(MINIMAL.replace("steps: 5", "steps: 5, group_size: 8"))
    assert refusal(minimal, "trainer.micro_batch=5").startswith(
        f"{minimal} + override trainer.micro_batch=5: trainer: "
    )


def test_sampling_ahead_needs_workers_and_a_staleness_that_allows_a_batch(minimal: Path) -> None:
    text = refusal(minimal, "trainer.max_staleness=1")
    assert "trainer.max_staleness=1: " in text and "set rollout.workers, or max_staleness to 0" in text
    text = refusal(minimal, "trainer.in_flight=keep", "rollout.workers=1")
    assert "at max_staleness 0 none is under way" in text and "or in_flight to null" in text
    text = refusal(minimal, "trainer.in_flight=drop")
    assert "keep" in text and "recompute" in text
    text = refusal(minimal, "trainer.max_staleness=2", "trainer.updates_per_batch=3", "rollout.workers=1")
    assert "max_staleness (2) is less than updates_per_batch (3)" in text and "set it to 0 or to 3" in text
    changes = ["trainer.max_staleness=3", "trainer.updates_per_batch=3", "rollout.workers=1"]
    assert load_config(TrainConfig, [minimal], changes).trainer.max_staleness == 3
