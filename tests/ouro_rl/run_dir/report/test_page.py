import json
import math
import os
import re
from html.parser import HTMLParser

import pytest

from ouro_rl.core.errors import UserError
from ouro_rl.run_dir.report.page import write_report
from ouro_rl.run_dir.report.record import load_record
from ouro_rl.run_dir.report.run_charts import curves_of
from ouro_rl.run_dir.run_dir import RunDir
from ouro_rl.run_dir.run_lock import LOCK_FILE, RunLock

SUMMARY = {
    "accuracy_before": 0.4,
    "accuracy_after": 0.65,
    "depth_before": 3.0,
    "depth_after": 2.1,
    "n_heldout": 500,
    "steps": 6,
}
EVIL = '<script>alert("x")</script>&<img src=http://evil.example/x onerror=alert(1)>'
VOID = {"meta", "use", "path", "br", "img", "link", "input"}


class Page(HTMLParser):
    """The page as a browser sees it; fails if a tag is closed out of order."""

    def __init__(self, html: str):
        super().__init__()
        self.tags, self.attributes, self.text, self.open, self.scripts = [], [], "", [], []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] == ["script"]:
            self.scripts.append(data)
        elif self.open[-1:] != ["style"]:
            self.text += data.replace("\N{NO-BREAK SPACE}", " ")

    def samples(self) -> dict:
        """What the script of the page reads."""
        return json.loads(self.scripts[0])


def metrics(step: int) -> dict:
    return {
        "step": step,
        "reward/mean": 0.1 * step,
        "depth/mean": 2.0,
        "depth/p1": 0.25,
        "depth/p2": 0.5,
        "depth/p3": 0.25,
        "completion/length_mean": 12.0,
        "completion/length_max": 20,
        "completion/cut_off": 0.02 * step + 0.03 * (step == 6),
        "logp_gap/max": 0.0 if step == 2 else 2e-6,
        "gate/entropy": 1.0,
        "gate/penalty": 0.02,
        "loss/token": math.nan if step == 1 else -0.1,
        "loss/gate": 0.0,
        "tokens/s": 2000.0,
        "time/rollout_s": 1.0,
        "time/reward_s": 0.1,
        "time/train_s": 1.5,
        "time/sync_s": 0.1,
    }


def rollout(step: int, **changes) -> dict:
    record = {
        "step": step,
        "completion": "ab",
        "completion_ids": [5, 6],
        "depths": [1, 3],
        "tokens": ["a", "b"],
        "question": "What is a?",
        "answer": "ab",
        "rewards": {"math": 1.0},
        "statuses": {"math": "correct"},
        "reward": 1.0,
        "advantage": -0.5,
    }
    return record | changes


def make_run(path, steps: int = 6, summary: dict | None = SUMMARY) -> RunDir:
    run = RunDir(path)
    for step in range(1, steps + 1):
        run.append_metrics(metrics(step))
        run.write_rollouts(step, [rollout(step)])
    run.config_path.write_text("run: {seed: 3}\ntrainer: {logp_gap_limit: 1.0e-05}\n")
    if summary:
        run.write_summary(summary)
    return run


def page_of(run: RunDir) -> Page:
    path = write_report(run.path)
    assert path == run.report_path
    html = path.read_text(encoding="utf-8")
    page = Page(html)
    # Self-contained: no script but its own, nothing fetched, and nothing that says where the run was.
    assert not {"link", "img", "iframe"} & set(page.tags)
    assert page.tags.count("script") in (0, 2)  # the samples as data, and what shows them
    for name, value in page.attributes:
        assert name not in {"src", "onerror", "onload"}
        if name in {"href", "xlink:href"}:
            assert value.startswith("#")
    assert str(run.path.parent) not in html
    return page


def test_a_finished_run(tmp_path):
    run = make_run(
        tmp_path / "my-run",
        summary=SUMMARY
        | {
            "eval_before": {"name": "before", "accuracy": None},
            "eval_after": {
                "name": "after",
                "accuracy": 0.7,
                "ci_low": 0.66,
                "ci_high": 0.74,
                "mean_depth": 4.0,
                "cut_off": 0.125,
                "n": 500,
            },
        },
    )
    page = page_of(run)
    for words in (
        "my-run",
        "40.0 % → 65.0 %",
        "+25.0 points",
        "500 held-out problems",
        "3.00 → 2.10",
        "−30 %",
        "finished, step 6",
        "66.0–74.0 %",
        "12.5 %",
        "Cut off at the maximum length2 % → 15 %",
        "limit 1e-05",
        "seed: 3",
        "ouro-rl train my-run/config.yaml run.dir=my-run-again",
        "Held-out accuracy rose: +25.0 points",
        "6 samples: all 6 groups of all 6 recorded steps",
    ):
        assert words in page.text, words
    assert page.tags.count("svg") == 11
    assert page.tags.count("svg") == page.tags.count("figcaption") == [v for k, v in page.attributes].count("img")
    assert "Left out" not in page.text


def test_everything_from_the_run_is_escaped(tmp_path):
    run = make_run(tmp_path / "<b>run", steps=2, summary=SUMMARY | {"eval_after": {"name": EVIL}})
    run.config_path.write_text(f"note: {EVIL}\n")
    evil = {"question": EVIL, "answer": EVIL, "statuses": {EVIL: EVIL}, "details": {EVIL: EVIL}}
    run.write_rollouts(1, [rollout(1, tokens=[EVIL, "b"], rewards={EVIL: 1.0}, **evil)])
    run.write_rollouts(2, [rollout(2, tokens=None, completion=EVIL, advantage=EVIL, depths=[EVIL])])
    page = page_of(run)  # asserts that no tag of EVIL became part of the page
    assert page.text.count(EVIL) == 3  # the evaluation's name, the name of the reward, the configuration
    last, first = page.samples()["groups"]
    assert last["samples"][0]["text"] == EVIL and first["question"] == first["gold"] == EVIL
    assert EVIL in page.samples()["words"]
    assert "<" not in page.scripts[0]


def test_a_run_in_progress(tmp_path):
    run = make_run(tmp_path / "run", summary=None)
    os.utime(run.metrics_path, (1_790_000_000, 1_790_000_000))
    lock = RunLock(run.path)
    lock.acquire()
    page = page_of(run)
    lock.release()
    assert "running, step 6 at 2026-09-21 14:13 UTC" in page.text
    assert "Left out, no data: before and after" in page.text
    assert page.tags.count("svg") == 9


def test_a_run_that_was_stopped_has_the_figures_before_training(tmp_path):
    before = {key: value for key, value in SUMMARY.items() if key.endswith("before") or key == "n_heldout"}
    page = page_of(make_run(tmp_path / "run", summary=before))
    assert "stopped before its end, step 6 at" in page.text
    assert "summary.json has no accuracy_after yet" in page.text
    assert f"{100 * SUMMARY['accuracy_before']:.1f} %" in page.text.partition("Accuracy before training")[2][:20]
    assert f"{SUMMARY['depth_before']:.2f}" in page.text.partition("Mean depth before training")[2][:20]


def test_a_run_that_was_killed_has_left_its_lock(tmp_path):
    run = make_run(tmp_path / "run", summary=None)
    (run.path / LOCK_FILE).write_text('{"pid": 1}\n')
    assert "killed before its end, step 6 at" in page_of(run).text


def test_a_finished_run_without_evaluation_waits_for_none(tmp_path):
    page = page_of(make_run(tmp_path / "run", summary={"steps": 6, "minutes": 1.0}))
    assert "finished, step 6" in page.text and "has no accuracy_before, accuracy_after)" in page.text


def test_one_step(tmp_path):
    page = page_of(make_run(tmp_path / "run", steps=1))
    assert page.tags.count("svg") == 11
    assert "Mean reward: 0.1." in page.text  # one value is not a change


def test_before_the_first_step(tmp_path):
    run = RunDir(tmp_path / "run")
    run.path.mkdir()
    run.config_path.write_text("run: {seed: 3}\n")
    page = page_of(run)
    assert "no step yet" in page.text and "No rollouts yet" in page.text and "svg" not in page.tags


def test_a_run_that_keeps_no_rollouts_says_so(tmp_path):
    run = RunDir(tmp_path / "run")
    run.append_metrics(metrics(1))
    run.config_path.write_text("run: {rollouts: none}\n")
    page = page_of(run)
    assert "This run keeps no rollouts" in page.text and "No rollouts yet" not in page.text


def test_a_damaged_config_is_a_user_error(tmp_path):
    run = make_run(tmp_path / "run", steps=1)
    run.config_path.write_text("a: [1\n")
    with pytest.raises(UserError, match="config.yaml: is not a config; restore the file that the run wrote"):
        write_report(run.path)


def test_accuracy_over_loops_has_the_run_and_the_evaluations_in_its_folder(tmp_path):
    lengths = {"length_before": 10.0, "length_after": 20.0}
    run = make_run(tmp_path / "run", steps=1, summary=SUMMARY | lengths)
    run.append_metrics(metrics(2) | {"eval/accuracy": 0.5, "eval/depth": 2.5, "eval/length": 12.0})
    (run.path / "eval_after").mkdir()
    row = {"benchmark": "arithmetic", "accuracy": 0.7, "ci_low": 0.6, "ci_high": 0.8}
    rows = [
        row | {"name": name, "loops_per_answer": loops}
        for name, loops in (("fixed 4", 36.0), ("fixed 1", 9.0), ("threshold 0.5", 20.0))
    ]
    (run.path / "eval_after" / "eval.json").write_text(json.dumps({"rows": rows}))
    training, fixed, threshold = curves_of(load_record(run.path))
    assert [(point.name, point.loops) for point in training.points] == [
        ("before", 30.0), ("step 2", 30.0), ("after", 42.0),
    ]  # fmt: skip
    assert fixed.name == "eval_after arithmetic fixed" and threshold.name == "eval_after arithmetic threshold"
    assert [(point.name, point.loops) for point in fixed.points] == [("fixed 1", 9.0), ("fixed 4", 36.0)]


def test_missing_and_unusable_metrics_are_left_out_and_named(tmp_path):
    run = RunDir(tmp_path / "run")
    for step in (1, 2, 3):
        run.append_metrics(
            {
                "step": step,
                "reward/mean": 0.5,
                "loss/token": None,
                "loss/gate": math.nan,
                "depth/mean": "deep",
                "time/rollout_s": 1.0,
            }
        )
    page = page_of(run)
    assert page.tags.count("svg") == 2  # reward, and the one part of the time that is known
    for key in ("loss/token", "loss/gate", "depth/mean", "depth/p1", "logp_gap/max", "gate/entropy", "tokens/s"):
        assert f"({key})" in page.text
    assert "reward/mean" not in page.text


def test_a_summary_with_holes(tmp_path):
    page = page_of(
        make_run(tmp_path / "run", summary={"accuracy_before": 0.1, "depth_before": 2.0, "depth_after": None})
    )
    assert "points" not in page.text and page.tags.count("svg") == 9


def test_more_depth_and_less_accuracy_are_marked_bad(tmp_path):
    worse = {"accuracy_before": 0.5, "accuracy_after": 0.4, "depth_before": 2.0, "depth_after": 3.0}
    run = make_run(tmp_path / "run", summary=worse)
    assert "−10.0 points" in page_of(run).text
    assert [value for name, value in page_of(run).attributes if name == "class"].count("change bad") == 2


def test_the_same_run_gives_the_same_page(tmp_path):
    run = make_run(tmp_path / "run")
    assert write_report(run.path).read_bytes() == write_report(run.path).read_bytes()


def test_a_folder_without_a_run_is_a_user_error(tmp_path):
    with pytest.raises(UserError, match="holds no run"):
        write_report(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_charts_use_the_colors_of_the_page(tmp_path):
    run = make_run(tmp_path / "run")
    body = write_report(run.path).read_text(encoding="utf-8").split("</style>", 1)[1]
    assert "var(--d3)" in body and "var(--c1)" in body
    assert not re.search(r"#(a0b0|d0d0)[0-9a-f]{2}", body)
