"""Connecting to Ray: real processes, each with one line of an answer."""

import os
import socket
import subprocess
import sys
import threading

import pytest

from tests.references.patience import HANG_S
from tests.references.places import REPOSITORY

START = """
import sys
from ouro_rl.core.errors import UserError
from rollout_workers.fleet.cluster import Cluster
from rollout_workers.fleet.settings import FleetSettings
try:
    cluster = Cluster(1, FleetSettings(cpus=0.5, address=sys.argv[1] if len(sys.argv) > 1 else None))
except UserError as error:
    sys.exit(str(error))
import ray
print(ray._private.worker._global_node.get_session_dir_path(), ray.nodes()[0]["Alive"])
cluster.close()
"""


def start(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-c", START, *arguments], capture_output=True, text=True, check=False, timeout=HANG_S,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), **environment},
    )  # fmt: skip


@pytest.fixture
def listener():
    """Accepts connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        kept = []
        threading.Thread(target=lambda: [kept.append(server.accept()) for _ in range(100)], daemon=True).start()
        yield f"127.0.0.1:{server.getsockname()[1]}"


def test_another_programs_port_is_no_ray_cluster(listener, monkeypatch):
    done = start(listener, RAY_ADDRESS="")
    assert done.returncode == 1 and f"Ray cluster {listener}: no Ray head answers there" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_folder_too_long_for_sockets(tmp_path):
    folder = tmp_path / ("x" * 100)
    folder.mkdir()
    done = start(RAY_TMPDIR=str(folder), RAY_ADDRESS="")
    assert done.returncode == 1 and len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert "is too long for the names of Ray's sockets; set RAY_TMPDIR to a shorter folder" in done.stderr


def test_a_note_of_another_cluster_is_not_followed(tmp_path_factory):
    """As `ray start` leaves one, also after its cluster has died."""
    folder = tmp_path_factory.mktemp("r")
    (folder / "ray").mkdir()
    (folder / "ray" / "ray_current_cluster").write_text("127.0.0.1:9\n")
    if len(str(folder)) > 35:
        pytest.skip("the temporary folder's path is too long for Ray's sockets")
    done = start(RAY_TMPDIR=str(folder), RAY_ADDRESS="")
    assert done.returncode == 0, done.stderr
    session, alive = done.stdout.split()
    assert session.startswith(str(folder)) and alive == "True" and not os.path.exists(f"{session}/sockets")
