"""The address of a Ray cluster: where it comes from, and whether anyone listens there. Ray itself is not needed."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

from ouro_rl.core.errors import UserError

LOCAL = "local"
"""A cluster of one's own on this machine."""
TIMEOUT_S = 5.0
_CLIENT = "ray://"


def wanted_address(configured: str | None) -> str:
    """`ray.address` of the config, else `RAY_ADDRESS`, else a local one: a cluster that somebody else started on this
    machine is used only by name."""
    return configured or os.environ.get("RAY_ADDRESS") or LOCAL


def check_ray_address(address: str) -> str:
    """host:port of a cluster that is named so or `auto`. Raises UserError within seconds if nobody listens there."""
    if address.startswith(_CLIENT):
        raise UserError(
            f"Ray cluster {address}: the Ray client is not supported; "
            "give host:port of the head (its port is 6379), or submit the job to the cluster"
        )
    found = _current() if address == "auto" else address
    host, _, port = found.rpartition(":")
    if not host or not port.isdecimal():
        raise UserError(f"Ray cluster {found}: give host:port (the head's port is 6379), `auto` or `local`")
    try:
        socket.create_connection((host.strip("[]"), int(port)), TIMEOUT_S).close()
    except (OSError, OverflowError) as error:
        raise UserError(
            f"Ray cluster {found}: cannot be reached ({error}); start it, correct ray.address or RAY_ADDRESS, "
            "or leave both out for a local one"
        ) from error
    return found


def ray_folder() -> Path:
    """Where Ray keeps its sockets and logs (by default, on Linux and macOS)."""
    names = ("RAY_TMPDIR", "TMPDIR") if sys.platform == "linux" else ("RAY_TMPDIR",)
    return Path(next((os.environ[name] for name in names if name in os.environ), "/tmp")) / "ray"


def _current() -> str:
    """What `ray start` last noted on this machine."""
    file = ray_folder() / "ray_current_cluster"
    if not file.is_file():
        raise UserError(
            "Ray cluster auto: no cluster was started on this machine; run `ray start`, give host:port, or leave "
            "ray.address and RAY_ADDRESS out for a local one"
        )
    return file.read_text().strip()
