"""The child's side of `rewards.processes.pool`: a fresh interpreter that answers one request at a time.

Requests are pickles from the parent, which is trusted. Answers are JSON on a private file descriptor, so that a
reward's printed output cannot be taken for an answer, and the parent never unpickles a child's data. An answer carries
its request's nonce, so that a forked copy of a reward cannot answer for another item."""

from __future__ import annotations

import importlib
import json
import os
import pickle
import resource
import select
import signal
import struct
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any

from ouro_rl.core.own_names import pin_own_packages
from rewards.processes.keeper import stay_as_keeper

HEADER = struct.Struct(">Q")
"""Every message is the length of its body in bytes, followed by the body."""
NONCE_BYTES = 8
"""Length of the nonce at the start of a request's body."""
_ORPHAN_GRACE_S = 5.0


def main(read_fd: int, write_fd: int, parent: int, log_limit: int) -> None:
    """Serve requests until the parent closes the pipe or dies."""
    stay_as_keeper(read_fd, write_fd, parent, log_limit)
    threading.Thread(target=_die_with_parent, args=(read_fd, os.getppid()), daemon=True).start()
    handler, own = None, os.getpid()
    while (received := _receive(read_fd)) is not None:
        nonce, request = received
        if handler is None:
            handler, answer = _start(request)
        else:
            answer = _answer(handler, request["payload"], request["timeout_s"])
        if os.getpid() != own:  # the reward forked, and this is the copy
            os._exit(0)
        body = json.dumps({**answer, "nonce": nonce.hex()}).encode()
        _send(write_fd, HEADER.pack(len(body)) + body)


def _start(request: dict[str, Any]) -> tuple[Callable[[Any], Any] | None, dict[str, Any]]:
    """Build the handler that the first message names, under the memory limit of that message."""
    pin_own_packages()
    sys.path[:] = request["path"]
    if request["memory_mb"]:
        limit = request["memory_mb"] * 2**20
        what = resource.RLIMIT_DATA if request["own_memory"] else resource.RLIMIT_AS
        resource.setrlimit(what, (limit, limit))
    module, _, function = request["handler"].partition(":")
    try:
        return getattr(importlib.import_module(module), function)(**request["arguments"]), {"ok": None}
    except Exception as error:  # noqa: BLE001 - the parent raises it
        return None, {"error": str(error) or repr(error)}


def _answer(handler: Callable[[Any], Any], payload: Any, timeout_s: float) -> dict[str, Any]:
    # The parent kills this process at the deadline. If the parent has died, this alarm does so: the kernel takes its
    # default action even while a long C call holds the interpreter.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, timeout_s + _ORPHAN_GRACE_S)
    try:
        return {"ok": handler(payload)}
    except MemoryError:
        return {"error": "out of memory", "stop": True}
    except BaseException as error:  # noqa: BLE001 - a reward may raise SystemExit, or a timeout that is a BaseException
        return {"error": _describe(error)}
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _describe(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({os.path.basename(frames[-1].filename)}:{frames[-1].lineno})" if frames else ""
    try:
        return f"{type(error).__name__}: {error}"[:500] + where
    except Exception:  # noqa: BLE001 - its own __str__ raises
        return type(error).__name__[:500] + where


def _receive(fd: int) -> tuple[bytes, Any] | None:
    """The next (nonce, request); None at end of file."""
    header = _read(fd, HEADER.size)
    if not header:
        return None
    body = _read(fd, HEADER.unpack(header)[0])
    return body[:NONCE_BYTES], pickle.loads(body[NONCE_BYTES:])


def _read(fd: int, size: int) -> bytes:
    parts = bytearray()
    while len(parts) < size:
        part = os.read(fd, min(size - len(parts), 1 << 20))
        if not part:
            return b""
        parts += part
    return bytes(parts)


def _send(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]


def _die_with_parent(fd: int, parent: int) -> None:
    """Polls the parent's id too, because a fork of the parent may keep the other end of the pipe open after the parent
    has died."""
    poll = select.poll()
    poll.register(fd, 0)  # reports only a hang-up, so the main thread loses no data
    while os.getppid() == parent and not poll.poll(1000):
        pass
    os._exit(0)
