"""The address of a Ray cluster: where it comes from, and an answer within seconds if nobody listens there."""

import socket

import pytest

from ouro_rl.core.errors import UserError
from ouro_rl.core.ray_address import LOCAL, check_ray_address, wanted_address


@pytest.fixture
def listening():
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def dead():
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    return address


def test_the_config_comes_before_the_environment(monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert wanted_address(None) == LOCAL
    monkeypatch.setenv("RAY_ADDRESS", "a:1")
    assert wanted_address(None) == "a:1" and wanted_address("b:2") == "b:2" and wanted_address("local") == LOCAL


def test_somebody_listens(listening, tmp_path, monkeypatch):
    assert check_ray_address(listening) == listening
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    with pytest.raises(UserError, match="no cluster was started on this machine"):
        check_ray_address("auto")
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "ray_current_cluster").write_text(f"{listening}\n")
    assert check_ray_address("auto") == listening


def test_nobody_listens(dead):
    with pytest.raises(UserError, match=f"{dead}: cannot be reached.*refused") as caught:
        check_ray_address(dead)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("address", ["head", "head:", ":6379", "head:port", "http://head:x", "127.0.0.1:99999"])
def test_addresses_that_are_none(address):
    with pytest.raises(UserError, match="give host:port|cannot be reached"):
        check_ray_address(address)


def test_the_ray_client_is_refused():
    with pytest.raises(UserError, match="the Ray client is not supported"):
        check_ray_address("ray://head:10001")
