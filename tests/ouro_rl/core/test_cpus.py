"""The CPUs available to this process, and how many rollout workers fit on them."""

from __future__ import annotations

import logging
import socket
from pathlib import Path

import pytest

from ouro_rl.cli.preflight import files as preflight_files
from ouro_rl.cli.preflight.files import check_workers
from ouro_rl.core import progress
from ouro_rl.core.cpus import available_cpus, quotas
from ouro_rl.core.errors import UserError


def test_limits_of_the_control_group_and_its_parents(tmp_path: Path) -> None:
    own = tmp_path / "job" / "step"
    own.mkdir(parents=True)
    assert quotas(tmp_path, "/job/step") == []
    (own / "cpu.max").write_text("max 100000\n")
    assert quotas(tmp_path, "/job/step") == []
    (own.parent / "cpu.max").write_text("150000 100000\n")
    assert quotas(tmp_path, "/job/step") == [1.5] and quotas(tmp_path, "") == []


@pytest.mark.parametrize(("quota", "expected"), [("-1", []), ("400000", [4.0])])
def test_limits_of_version_one(tmp_path: Path, quota: str, expected: list[float]) -> None:
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text(quota)
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000")
    assert quotas(tmp_path, "") == expected


def test_at_least_part_of_a_cpu_is_available() -> None:
    assert available_cpus() > 0


def test_far_too_many_workers_are_refused_and_a_few_too_many_give_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(preflight_files, "available_cpus", lambda: 2.0)
    check_workers(0, 1, key="rollout.workers")
    check_workers(2, 1, key="rollout.workers")
    assert not caplog.records
    with caplog.at_level(logging.WARNING):
        check_workers(4, 2, key="rollout.workers")
    assert (
        "rollout.workers 4: 4 rollout workers of 2 CPUs each, but 2 CPUs" in caplog.text
        and "1 would fit" in caplog.text
    )
    with pytest.raises(
        UserError, match="64 rollout workers of 1 CPUs each, but 2 CPUs are available here;\n  2 would fit"
    ):
        check_workers(64, 1, key="rollout.workers")
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")
    check_workers(0, 1, key="rollout.workers")
    with pytest.raises(UserError, match="127.0.0.1:9: cannot be reached"):
        check_workers(64, 1, key="rollout.workers")
    with socket.create_server(("127.0.0.1", 0)) as server:
        check_workers(64, 1, key="rollout.workers", address=f"127.0.0.1:{server.getsockname()[1]}")


def test_only_rank_0_prints_progress(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    for name in ("RANK", "LOCAL_RANK"):
        monkeypatch.setenv(name, "0")
    progress.say("Loading")
    monkeypatch.setenv("RANK", "1")
    progress.say("Loading")
    captured = capsys.readouterr()
    assert captured.err == "Loading ...\n" and captured.out == ""
