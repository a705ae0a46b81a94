"""A Hub id that does not exist, or a Hub that does not respond, is reported at once, wherever the id comes from."""

from __future__ import annotations

import json
import os
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from huggingface_hub import constants

from ouro_rl.cli import main as cli
from ouro_rl.cli.preflight.files import check_benchmark, check_train_files
from ouro_rl.config.loader import load_config
from ouro_rl.config.train import TrainConfig
from ouro_rl.core.errors import UserError
from ouro_rl.core.hub import check_on_hub, commit_of
from ouro_rl.run_dir.open_or_resume import open_run_folder
from ouro_rl.run_dir.revisions import pinned

NEWEST, TAGGED = "a" * 40, "b" * 40
"""Commits of the fake Hub's main branch and of its tag v1."""
NOBODY = "http://127.0.0.1:9"
"""A port that nothing listens on."""


class Hub(BaseHTTPRequestHandler):
    """A fake Hub with a model, a gated model, and a data set."""

    def do_GET(self) -> None:
        gated = self.path.endswith("/org/gated")
        names = ("/api/models/org/there", "/api/datasets/org/there")
        there = self.path in [*names, *(f"{name}/revision/v1" for name in names)]
        self.send_response(200 if there else 403 if gated else 404)
        if not there:
            wrong = "RevisionNotFound" if self.path.startswith(names) else "RepoNotFound"
            self.send_header("X-Error-Code", "GatedRepo" if gated else wrong)
        self.end_headers()
        sha = TAGGED if self.path.endswith("v1") else NEWEST
        self.wfile.write(json.dumps({"id": "org/there", "siblings": [], "tags": [], "sha": sha}).encode())

    def log_message(self, *_) -> None:
        pass


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """`huggingface_hub` with an empty cache, pointed at the fake Hub."""
    server = HTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for name in ("HF_HOME", "HF_HUB_CACHE"):
        monkeypatch.setattr(constants, name, str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.delenv("HF_DATASETS_CACHE", raising=False)
    yield tmp_path / "cache"
    server.shutdown()
    server.server_close()


def refusal(name: str, kind: str = "model") -> str:
    with pytest.raises(UserError) as caught:
        check_on_hub(name, kind, "model.path")
    assert len(str(caught.value).splitlines()) == 2
    return str(caught.value)


def test_existing_ids_pass_and_others_are_reported(hub: Path) -> None:
    check_on_hub("org/there", "model", "model.path")
    check_on_hub("org/there", "data set", "data.source")
    assert "model.path org/gone: the hub has no such model, or it is private" in refusal("org/gone")
    assert "the hub has no such data set" in refusal("org/gone", "data set")
    assert "is gated;\n  request access at " in refusal("org/gated")


def test_no_network(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", NOBODY)
    assert f"{NOBODY} does not answer" in refusal("org/there")


def test_what_was_downloaded_passes_without_a_request(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE is set, and this model was not downloaded before" in refusal("org/there")
    assert "this data set was not downloaded" in refusal("org/there", "data set")
    (hub / "models--org--there" / "snapshots").mkdir(parents=True)
    check_on_hub("org/there", "model", "model.path")
    (hub / "datasets" / "org___there").mkdir(parents=True)
    check_on_hub("org/there", "data set", "data.source")


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("command", ["train", "check"])
def test_commands_check_the_hub_before_anything_starts(
    command, workers, hub: Path, tmp_path: Path, monkeypatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "job.yaml").write_text(
        f"model: {{path: org/gone}}\nrollout: {{workers: {workers}}}\ntrainer: {{steps: 1}}\n"
    )
    assert cli.main([command, "job.yaml"]) == 2
    assert capsys.readouterr().err.startswith("ouro-rl: model.path org/gone: the hub has no such model")
    assert [path.name for path in tmp_path.iterdir()] == ["job.yaml"]


def test_eval_and_data_sets_are_checked_too(hub: Path, tmp_path: Path, random_checkpoint: Path, capsys) -> None:
    out = ["--out", str(tmp_path / "out")]
    assert cli.main(["eval", "--model", "org/gone", "--benchmark", "arithmetic", *out]) == 2
    assert "--model org/gone: the hub has no such model" in capsys.readouterr().err
    with pytest.raises(UserError, match="--benchmark HuggingFaceH4/MATH-500: the hub has no such data set"):
        check_benchmark("math500", None, key="--benchmark")
    wrong = {"org/gone": "the hub has no such data set", "arithmatic": "did you mean `arithmetic`"}
    for source, text in {**wrong, "hop": "did you mean `hops`"}.items():
        config = load_config(
            TrainConfig, [], [f"model.path={random_checkpoint}", "trainer.steps=1", f"data.source={source}"]
        )
        with pytest.raises(UserError, match=f"data.source {source}: {text}"):
            check_train_files(config)


# --- revisions ---


def job(run: Path, *overrides: str) -> TrainConfig:
    settings = ["model.path=org/there", "data.source=org/there", "trainer.steps=1", f"run.dir={run}", *overrides]
    return load_config(TrainConfig, [], settings)


def test_a_revision_that_is_not_there(hub: Path) -> None:
    check_on_hub("org/there", "model", "model.path", "v1")
    with pytest.raises(UserError, match="no revision v2 of this data set;\n.*give a branch, a tag"):
        check_on_hub("org/there", "data set", "data.source", "v2")


def test_hub_ids_are_pinned_to_commits(hub: Path, tmp_path: Path) -> None:
    newest = pinned(job(tmp_path))
    assert (newest.model.revision, newest.data.revision) == (NEWEST, NEWEST)
    tagged = pinned(job(tmp_path, "model.revision=v1", f"data.revision={'c' * 40}"))
    assert (tagged.model.revision, tagged.data.revision) == (TAGGED, "c" * 40)
    local = pinned(load_config(TrainConfig, [], ["model.path=./x", "trainer.steps=1"]))
    assert (local.model.revision, local.data.revision) == (None, None)


def test_a_resumed_run_keeps_its_commits(hub: Path, tmp_path: Path) -> None:
    """The hub's main branch has moved on since the run began."""
    began = job(tmp_path, f"model.revision={'c' * 40}", f"data.revision={'d' * 40}")
    open_run_folder(began, resume=False)
    resumed = pinned(job(tmp_path), resume=True)
    assert (resumed.model.revision, resumed.data.revision) == ("c" * 40, "d" * 40)
    open_run_folder(resumed, resume=True)
    with pytest.raises(UserError, match=f"model.revision is '{TAGGED}'"):
        open_run_folder(pinned(job(tmp_path, "model.revision=v1"), resume=True), resume=True)


def test_without_the_hub_the_downloaded_commit_counts(hub: Path, monkeypatch: pytest.MonkeyPatch, caplog) -> None:
    refs = hub / "models--org--there" / "refs"
    refs.mkdir(parents=True)
    (refs / "main").write_text("e" * 40)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert commit_of("org/there", "model", None) == "e" * 40
    assert commit_of("org/there", "model", "v1") is None and not caplog.text


def test_a_hub_that_cannot_be_reached_is_asked_nothing_more(hub: Path, monkeypatch: pytest.MonkeyPatch, caplog) -> None:
    """Else transformers tries for minutes to fetch optional files of a model that is in the cache."""
    refs = hub / "models--org--there" / "refs"
    refs.mkdir(parents=True)
    (refs / "main").write_text("e" * 40)
    monkeypatch.setattr(constants, "ENDPOINT", NOBODY)
    assert commit_of("org/there", "model", "main") == "e" * 40
    assert commit_of("org/there", "model", "c" * 40) == "c" * 40
    assert constants.HF_HUB_OFFLINE and os.environ["HF_HUB_OFFLINE"] == "1"
    assert f"org/there: {NOBODY} cannot be reached" in caplog.text and len(caplog.text.splitlines()) == 1


def test_a_hub_that_refuses_is_still_there(hub: Path, caplog) -> None:
    assert commit_of("org/gone", "model", None) is None
    assert not constants.HF_HUB_OFFLINE and "the hub does not say which commit is the newest" in caplog.text


def test_the_preflight_reads_the_same_commits(hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ouro_rl.cli.preflight import checks

    seen: list[TrainConfig] = []
    monkeypatch.setattr(checks, "run_check", lambda config: seen.append(config) or 0)
    assert cli.main(["check", "model.path=org/there", "data.source=org/there", "trainer.steps=1"]) == 0
    assert (seen[0].model.revision, seen[0].data.revision) == (NEWEST, NEWEST)
