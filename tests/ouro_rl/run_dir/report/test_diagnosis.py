from dataclasses import replace

import pytest

from ouro_rl.run_dir.report.diagnosis import diagnose
from ouro_rl.run_dir.report.record import RunRecord
from ouro_rl.run_dir.run_dir import RunDir

WELL = {
    "reward/mean": 0.5,
    "groups/zero_variance": 0.1,
    "depth/mean": 2.0,
    "depth/p1": 0.4,
    "depth/p2": 0.6,
    "token/entropy": 1.0,
    "gate/entropy": 1.0,
    "completion/length_mean": 10.0,
    "completion/cut_off": 0.0,
    "reward/unscored": 0.0,
    "logp_gap/max": 0.0,
    "staleness/mean": 0,
    "clip/token_low": 0.01,
    "time/rollout_s": 3.0,
    "time/train_s": 1.0,
}


def record(last: dict, summary: dict | None = None, config: dict | None = None) -> RunRecord:
    """A run of 20 steps that ends with other figures than it began with."""
    rows = [WELL | {"step": step} | (last if step > 10 else {}) for step in range(1, 21)]
    return RunRecord(
        run=RunDir("run"), name="run", rows=rows, summary=summary, config_text="", config=config or {}, owner="none"
    )


def said(last: dict, kind: str, **more) -> list[str]:
    findings = [finding.text for finding in diagnose(record(last, **more)) if finding.kind == kind]
    return [text.replace("\N{NO-BREAK SPACE}", " ") for text in findings]


def test_a_run_that_is_well_has_nothing_to_look_at():
    assert said({}, "look") == []
    assert said({}, "good") == [
        "90 % of the groups have a signal.",
        "Worker and trainer agree to the bit: the log-prob gap is 0 at every step.",
    ]
    assert said({}, "know") == [
        "Mean depth 2.00 to 2.00 loops per token.",
        "Where the time of a step goes: rollout 75 %, train 25 %.",
    ]


@pytest.mark.parametrize(
    ("last", "text"),
    [
        ({"groups/zero_variance": 0.62}, "No signal in 62 % of the groups"),
        ({"groups/zero_variance": 0.62, "reward/mean": 0.9}, "harder prompts"),
        ({"groups/zero_variance": 0.62, "reward/mean": 0.1}, "easier prompts"),
        ({"depth/p1": 0.005, "depth/p2": 0.995}, "Depth has collapsed. 99.5 % of the tokens run 2 loops"),
        ({"token/entropy": 0.05}, "Token entropy has collapsed, 1 to 0.05 nats"),
        ({"gate/entropy": 0.05}, "Gate entropy has collapsed"),
        ({"completion/length_mean": 16.0}, "Answers grow: 10 to 16 tokens (60 % more)."),
        ({"completion/cut_off": 0.3}, "30 % of the completions are cut off at the maximum length"),
        ({"reward/unscored": 0.05}, "5 % of the completions could not be scored"),
        ({"clip/token_high": 0.3}, "31 % of the tokens are clipped"),
        ({"clip/gate_low": 0.3}, "30 % of the decisions of the gate are clipped"),
    ],
)
def test_what_is_worth_a_look(last, text):
    (found,) = said(last, "look")
    assert text in found


def test_a_fixed_depth_has_not_collapsed():
    config = {"rollout": {"exit_rule": {"kind": "fixed"}}}
    assert said({"depth/p1": 0.0, "depth/p2": 1.0}, "look", config=config) == []


@pytest.mark.parametrize(
    ("after", "kind", "text"),
    [
        (0.65, "good", "Held-out accuracy rose: +25.0 points, 40 % to 65 %."),
        (0.2, "look", "Held-out accuracy fell: −20.0 points, 40 % to 20 %."),
        (0.38, "know", "Held-out accuracy: −2.0 points, 40 % to 38 %; the 95% intervals overlap, so it may be chance."),
    ],
)
def test_accuracy_changes_only_beyond_its_intervals(after, kind, text):
    summary = {"accuracy_before": 0.4, "accuracy_after": after, "n_heldout": 500}
    assert text in said({}, kind, summary=summary)


def test_gap_and_staleness_are_told():
    texts = said({"logp_gap/max": 2e-6, "staleness/mean": 2}, "know")
    assert "Worker and trainer differ by 2e-06 nats at most on a log-prob." in texts
    assert "50 % of the updates use stale rollouts; the mean staleness is 1." in texts


@pytest.mark.parametrize(
    ("last", "kind", "text"),
    [
        (
            {"logp_gap/max": None, "logp_gap/compared": 0.0}, "good",
            "Worker and trainer agree to the bit: the log-prob gap is 0 at the 10 steps that can compare them.",
        ),
        (
            {"logp_gap/max": None, "logp_gap/compared": 0.0}, "know",
            "10 of 20 steps say nothing of the log-prob gap: they have no token that the weights in training drew, "
            "with keys and values of their own. 50 % of all tokens could be compared.",
        ),
        ({"logp_gap/max": None}, "know", "10 of 20 steps say nothing of the log-prob gap: they have no token"),
    ],
)  # fmt: skip
def test_steps_without_a_token_that_can_be_compared_are_told(last, kind, text):
    first = {"logp_gap/compared": 1.0} if "logp_gap/compared" in last else {}
    rows = [WELL | {"step": step} | (first if step <= 10 else last) for step in range(1, 21)]
    for row in rows[10:]:
        del row["logp_gap/max"]
    found = diagnose(replace(record({}), rows=rows))
    texts = [one.text.replace("\N{NO-BREAK SPACE}", " ") for one in found if one.kind == kind]
    assert any(one.startswith(text) for one in texts), texts


def test_a_gap_that_was_never_measured_is_not_0():
    rows = [{"step": step, "logp_gap/compared": 0.0, "reward/mean": 0.5} for step in (1, 2)]
    (found,) = [one for one in diagnose(replace(record({}), rows=rows)) if "gap" in one.text]
    assert found.kind == "look" and found.text.startswith("The log-prob gap is not known: no step has had a token")


def test_before_the_first_step_there_is_nothing_to_say():
    empty = RunRecord(run=RunDir("run"), name="run", rows=[], summary=None, config_text="", config={}, owner="none")
    assert diagnose(empty) == []
