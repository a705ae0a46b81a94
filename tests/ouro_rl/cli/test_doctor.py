"""`ouro-rl doctor`: it runs every check, marks problems with their fix, and a failing check does not stop it."""

from __future__ import annotations

import http.server
import json
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from ouro_rl.cli import doctor
from ouro_rl.cli.preflight import doctor_checks
from ouro_rl.cli.preflight.doctor_checks import CHECKS, Finding
from ouro_rl.core.errors import UserError
from ouro_rl.kernels.cpu import select as cpu_kernels
from ouro_rl.kernels.interface import SWITCH
from rewards.sandbox import ladder
from tests.references.places import REPOSITORY

SOON = 0.3
"""Timeout in seconds for a server that never responds."""


def run(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ouro_rl", "doctor", *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "HF_HUB_OFFLINE": "1", **environment},
        capture_output=True,
        text=True,
        check=True,
    )


@pytest.fixture
def server():
    """A local web server; it responds with `status` and records the requested paths in `asked`."""

    class Handler(http.server.BaseHTTPRequestHandler):
        status, asked = 200, []

        def do_HEAD(self):
            self.asked.append(self.path)
            self.send_response(self.status)
            self.end_headers()

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Handler.url = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield Handler
        server.shutdown()


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in ("HF_HUB_OFFLINE", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def test_the_command_runs_every_check_and_marks_problems(tmp_path):
    rows = json.loads(run("--json", cwd=tmp_path, **{SWITCH: "torch"}).stdout)
    found = {row["name"]: row for row in rows}
    assert list(found) == list(CHECKS)
    assert all(row["value"] and "check failed" not in (row["problem"] or "") for row in rows)
    assert SWITCH in found["kernels"]["value"] and "C kernels" in found["kernels"]["problem"]
    assert f"{SWITCH}=torch" in found["environment"]["value"]
    assert "offline" in found["hub"]["value"] and found["hub"]["problem"] is None
    assert str(tmp_path) in found["folders"]["value"]


def test_the_screen_is_no_wider_than_a_terminal_and_counts_problems(monkeypatch, capsys):
    checks = {"lock": lambda: Finding("a " * 100, "b " * 100 + "\nsecond"), "gpu": lambda: Finding("none")}
    monkeypatch.setattr(doctor, "CHECKS", checks)
    assert doctor.run_doctor(doctor.argparse.Namespace(json=False)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= doctor.WIDTH
    assert sum(doctor.MARK in line for line in lines[:-1]) == 2
    assert lines[-1].startswith("1 problem found")


def test_a_check_that_raises_is_a_finding_and_the_others_still_run():
    def broken():
        raise OSError("libtorch.so:\n not found")

    findings = dict(doctor.examine({"torch": broken, "gpu": lambda: Finding("none")}))
    assert findings["torch"].problem == "check failed: OSError: libtorch.so: not found"
    assert findings["gpu"] == Finding("none")


def test_packages_that_are_missing_or_not_in_the_tested_version(monkeypatch):
    monkeypatch.setattr(doctor_checks, "installed_version", {"torch": "2.13.0"}.get)
    assert "trl MISSING" in doctor_checks.packages().value and "trl" in doctor_checks.packages().problem
    monkeypatch.setattr(doctor_checks, "differences", dict)
    assert doctor_checks.lock().problem is None
    monkeypatch.setattr(doctor_checks, "differences", lambda: {"trl": ("1.16.0", "1.15.0")})
    assert doctor_checks.lock().value == "trl 1.15.0 (tested: 1.16.0)"
    assert doctor_checks.lock().problem.endswith("pip install trl==1.16.0")


def test_the_reported_kernels_are_those_that_run():
    assert doctor_checks.kernels().value == cpu_kernels.load()[1]


def test_the_reasons_for_a_missing_sandbox_are_reported(monkeypatch):
    monkeypatch.setattr(ladder, "unavailable", lambda rung: f"no {rung} here")
    finding = doctor_checks.sandbox()
    assert finding.problem.splitlines()[:2] == ["bubblewrap: no bubblewrap here", "landlock: no landlock here"]
    monkeypatch.setattr(ladder, "unavailable", lambda rung: "")
    assert doctor_checks.sandbox().problem is None and "bubblewrap" in doctor_checks.sandbox().value


def test_a_gpu_that_torch_cannot_use(monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(doctor_checks.shutil, "which", lambda name: None)
    assert doctor_checks.gpu().problem is None
    monkeypatch.setattr(doctor_checks.shutil, "which", lambda name: f"/usr/bin/{name}")
    assert "CUDA build" in doctor_checks.gpu().problem


def test_a_hub_that_responds_and_one_that_refuses(online, server):
    online.setenv("HF_ENDPOINT", server.url)
    assert doctor_checks.hub() == Finding(f"{server.url} answers")
    server.status = 407
    assert "407" in doctor_checks.hub().value and "HTTPS_PROXY" in doctor_checks.hub().problem
    online.setenv("HF_HUB_OFFLINE", "YES")
    server.asked.clear()
    assert "offline" in doctor_checks.hub().value and not server.asked


def test_a_hub_that_is_unreachable_or_never_responds(online):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        assert doctor_checks._head(url, SOON) in {f"no answer within {SOON} s", "no access (timed out)"}
    assert doctor_checks._head(url, 60.0).startswith("no access (")
    assert doctor_checks._head("no address", SOON).startswith("no access (")


def test_folders_that_cannot_be_written_or_are_full(monkeypatch, tmp_path):
    assert doctor_checks.place(tmp_path / "not" / "yet").problem is None
    full = doctor_checks.shutil.disk_usage(tmp_path)._replace(free=5 * 2**20)
    monkeypatch.setattr(doctor_checks.shutil, "disk_usage", lambda path: full)
    assert doctor_checks.place(tmp_path).problem == "only 5 MiB are free"

    def refuse(dir):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(doctor_checks.tempfile, "TemporaryFile", refuse)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    finding = doctor_checks.folders()
    assert finding.problem.count("cannot be written (Permission denied)") == 4
    assert str(tmp_path / "cache" / "ouro-rl") in finding.value and "XDG_CACHE_HOME" in finding.problem


def test_little_memory_is_reported(monkeypatch):
    monkeypatch.setattr(doctor_checks, "_container_memory", lambda: 2 * 2**30)
    assert "2.0 GiB" in doctor_checks.memory().value and "rollout.workers" in doctor_checks.memory().problem
    monkeypatch.setattr(doctor_checks, "LITTLE_MEMORY", 1)
    assert doctor_checks.memory().problem is None


def test_the_home_folder_is_not_shown(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert doctor_checks._short(tmp_path / "x") == "~/x"
    assert doctor_checks._short(Path(f"{tmp_path}x")) == f"{tmp_path}x"


def test_the_bug_report_form_asks_for_it():
    form = (REPOSITORY / ".github" / "ISSUE_TEMPLATE" / "bug_report.yml").read_text()
    assert "ouro-rl doctor" in form and "ouro-rl doctor" in (REPOSITORY / "README.md").read_text()


def test_the_sandbox_error_has_the_form_that_the_check_expects():
    """The first line of the ladder's error is left out of the finding: the reasons and the fix follow it."""
    with pytest.raises(UserError) as raised, pytest.MonkeyPatch.context() as patch:
        patch.setattr(ladder, "unavailable", lambda rung: "no")
        ladder.choose_rung()
    assert "sandbox" in str(raised.value).splitlines()[0] and len(str(raised.value).splitlines()) > 1
