"""A sandbox from outside: starting its fork server, asking it for children, talking with them, ending them."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import select
import signal
import socket
import subprocess
import time
from dataclasses import asdict, dataclass
from typing import Any, Self

from rewards.sandbox.inside import wire
from rewards.sandbox.inside.confine import Limits

_START_S = 60.0
"""Seconds for a fork server to come up, or to do as it is told: far more than it takes, however busy the machine."""
_END_S = 5.0
"""Seconds for a fork server to end by itself."""
_KILL_S = 5.0
"""Seconds for what is outside of a fork server that was killed to notice."""


class SandboxError(Exception):
    """The sandbox failed, not the program in it."""


class ChildGone(Exception):
    """A child ended, or said what none of ours says. The text is for people."""


@dataclass(frozen=True, kw_only=True)
class Command:
    """How a rung starts its fork server. `{control}` in an argument stands for the number of the control descriptor."""

    rung: str
    arguments: tuple[str, ...]
    user_tasks: int
    """Threads that the user of the children had when the rung was chosen; its limit is counted from there."""


class Child:
    """One confined process and the channel to it. Used by one thread; `close` it, or leave the `with` block."""

    def __init__(self, sandbox: Sandbox, number: int, channel: socket.socket) -> None:
        self._sandbox, self._number, self._channel = sandbox, number, channel
        self._confined = False
        self._received = bytearray()
        self.started = time.monotonic()
        channel.setblocking(False)
        self.fd = channel.fileno()

    def send(self, message: dict[str, Any], deadline: float) -> None:
        """Raises wire.NotPlain, TimeoutError or ChildGone. deadline: on time.monotonic's clock."""
        data = memoryview(wire.pack(message))
        while data:
            _wait(self.fd, select.POLLOUT, deadline)
            try:
                data = data[self._channel.send(data) :]
            except BlockingIOError:
                continue
            except OSError:
                raise ChildGone("the process ended") from None

    def receive(self, deadline: float) -> dict[str, Any]:
        """The next message. Raises TimeoutError, after which it may be called again, or ChildGone; SandboxError when the
        child could not be confined."""
        self.wait_until_confined()
        header = wire.HEADER.size
        self._fill(header, deadline)
        size = wire.HEADER.unpack(self._received[:header])[0]
        if size > wire.MAX_MESSAGE:
            raise ChildGone(f"an answer of {size} bytes")
        self._fill(header + size, deadline)
        body = bytes(self._received[header:])
        self._received.clear()
        try:
            return wire.unpack(body)
        except ValueError:
            raise ChildGone("a garbled answer") from None

    def processor_s(self) -> float:
        """Seconds of processor time that the child has had; 0 when it has ended. Raises SandboxError."""
        return float(self._sandbox.exchange({"cpu": self._number})["cpu"])

    def wait_until_confined(self) -> None:
        """Take the child's first word, which it says before it has read anything. Raises SandboxError."""
        if self._confined:
            return
        self._confined = True
        try:
            first = self.receive(time.monotonic() + _START_S)
        except (ChildGone, TimeoutError) as error:
            self._sandbox.close()
            raise SandboxError(f"a child did not start: {error or 'no answer'}") from None
        if first != {"ready": True}:
            raise SandboxError(f"a child could not be confined: {first.get('failed')}")

    def _fill(self, size: int, deadline: float) -> None:
        """Read until `size` bytes of a message are there."""
        while len(self._received) < size:
            _wait(self.fd, select.POLLIN, deadline)
            try:
                part = self._channel.recv(size - len(self._received))
            except BlockingIOError:
                continue
            except OSError:
                part = b""
            if not part:
                raise ChildGone("the process ended")
            self._received += part

    def close(self) -> str:
        """Kill the process with all that is in it, and wait until it is gone. How it ended, when it had done so by itself;
        raises SandboxError."""
        if self._number < 0:
            return ""
        number, self._number = self._number, -1
        self._channel.close()
        return _ending(int(self._sandbox.exchange({"end": number})["status"]))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            self.close()
        except SandboxError:
            if kind is None:
                raise


class Sandbox:
    """A fork server and its children. Starts by itself when first used; used by one thread."""

    def __init__(self, command: Command, limits: Limits) -> None:
        """limits: of each child; `tasks` is what it may have beyond the user's others."""
        self._command, self._process = command, None
        self._limits = {**asdict(limits), "tasks": limits.tasks + command.user_tasks}
        self._numbers = itertools.count()
        self._control: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Bring the fork server up, if it is not. Raises SandboxError with the reason in one line."""
        if self._process is not None and self._process.poll() is None:
            return
        self.close()
        self._control, inner = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        arguments = [part.replace("{control}", str(inner.fileno())) for part in self._command.arguments]
        errors_read, errors_write = os.pipe()
        try:
            self._process = subprocess.Popen(
                arguments,
                env={},
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors_write,
                pass_fds=(inner.fileno(),),
            )
        except OSError as error:
            raise SandboxError(f"{arguments[0]}: {error.strerror}") from error
        finally:
            os.close(errors_write)
            inner.close()
        try:
            self.exchange(None)
        except SandboxError as error:
            self.close()
            said = _tail(errors_read)
            raise SandboxError(said or str(error)) from None
        finally:
            os.close(errors_read)

    def child(self, role: str, *, files: tuple[int, ...] = ()) -> Child:
        """A new process, on its way to being confined. role: `candidate` or `judge`; files: descriptors that become its 0
        and 1. Raises SandboxError."""
        self.start()
        assert self._control is not None
        outer, inner = socket.socketpair()
        number = next(self._numbers)
        request = {"start": number, "role": role, "limits": self._limits}
        try:
            with inner:
                socket.send_fds(self._control, [json.dumps(request).encode()], [inner.fileno(), *files])
        except OSError as error:
            outer.close()
            self.close()
            raise SandboxError(f"the fork server is gone: {error.strerror}") from error
        return Child(self, number, outer)

    def exchange(self, request: dict[str, Any] | None) -> dict[str, Any]:
        """Ask the fork server, and wait for its answer. Raises SandboxError."""
        if self._control is None:
            raise SandboxError("the sandbox is closed")
        try:
            if request is not None:
                self._control.send(json.dumps(request).encode())
            _wait(self._control.fileno(), select.POLLIN, time.monotonic() + _START_S)
            answer = self._control.recv(1 << 16)
        except (OSError, TimeoutError) as error:
            self.close()
            raise SandboxError(f"the fork server does not answer: {error or 'no answer'}") from None
        if not answer:
            self.close()
            raise SandboxError("the fork server ended")
        return json.loads(answer)

    def close(self) -> None:
        """End everything in it. It starts again when it is used again."""
        control, self._control = self._control, None
        process, self._process = self._process, None
        if control is not None:
            control.close()
        if process is not None:
            # By itself, from the inside out, so that every process is collected by the one that started it: bubblewrap, killed
            # first, would leave its child to process 1 of the container, which may collect nothing.
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=_END_S)
            if process.returncode is None:
                for child in _children(process.pid):
                    with contextlib.suppress(ProcessLookupError, PermissionError):
                        os.kill(child, signal.SIGKILL)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(timeout=_KILL_S)
            process.kill()
            process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _wait(fd: int, event: int, deadline: float) -> None:
    poll = select.poll()
    poll.register(fd, event)
    if not poll.poll(max(0.0, 1000 * (deadline - time.monotonic()))):
        raise TimeoutError


def _children(pid: int) -> list[int]:
    """The processes that a living one has started itself."""
    try:
        with open(f"/proc/{pid}/task/{pid}/children") as file:
            return [int(number) for number in file.read().split()]
    except OSError:
        return []


def _tail(fd: int) -> str:
    """The last line of what was said on a pipe, without waiting for more."""
    os.set_blocking(fd, False)
    try:
        lines = os.read(fd, 1 << 16).decode(errors="replace").strip().splitlines()
    except BlockingIOError:
        return ""
    return lines[-1][:300] if lines else ""


def _ending(status: int) -> str:
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        if number == signal.SIGKILL:
            return ""  # most likely by ourselves
        return f"killed by {signal.Signals(number).name}"
    return f"exited with status {os.WEXITSTATUS(status)}"
