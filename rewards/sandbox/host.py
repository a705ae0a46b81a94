"""The sandbox seen from the host: starts its fork server, and starts, talks to and ends its children."""

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
"""Seconds for a fork server to start, or to answer a request: far more than it needs even on a busy machine."""
_END_S = 5.0
"""Seconds for a fork server to exit by itself."""
_READ = 1 << 16
"""Bytes that are read at once: a message is usually smaller."""
_KILL_S = 5.0
"""Seconds for the wrapper process to exit after its fork server was killed."""


ENDED_WELL = "exited with status 0"
"""How `Child.close` says that a process ended without an error."""


class SandboxError(Exception):
    """The sandbox failed, rather than the program in it."""


class ChildGone(Exception):
    """A child ended or sent an invalid message. The text describes what happened."""


@dataclass(frozen=True, kw_only=True)
class Command:
    """How a rung starts its fork server. `{control}` in an argument is replaced by the number of the control file
    descriptor."""

    rung: str
    arguments: tuple[str, ...]
    user_tasks: int
    """Threads that the children's user already had when the rung was chosen. The children's limit is added to it."""


class Child:
    """One confined process and the channel to it. Not thread-safe. Call `close`, or use it in a `with` block."""

    def __init__(self, sandbox: Sandbox, number: int, channel: socket.socket) -> None:
        self._sandbox, self._number, self._channel = sandbox, number, channel
        self._confined = self._gone = False
        self._received = bytearray()
        self.started = time.monotonic()
        channel.setblocking(False)
        self.fd = channel.fileno()

    def send(self, message: dict[str, Any], deadline: float) -> None:
        """Send a message. deadline: on time.monotonic's clock. Raises wire.NotPlain, TimeoutError or ChildGone."""
        data = memoryview(wire.pack(message))
        while data:
            try:
                data = data[self._channel.send(data) :]
            except BlockingIOError:
                _wait(self.fd, select.POLLOUT, deadline)
            except OSError:
                self._gone = True
                raise ChildGone("the process ended") from None

    def receive(self, deadline: float) -> dict[str, Any]:
        """The next message. Raises TimeoutError (after which it can be called again), ChildGone, or SandboxError if the
        child could not be confined."""
        self.wait_until_confined()
        header = wire.HEADER.size
        self._fill(header, deadline)
        size = wire.HEADER.unpack(self._received[:header])[0]
        if size > wire.MAX_MESSAGE:
            raise ChildGone(f"the process announced an answer of {size} bytes")
        self._fill(header + size, deadline)
        body = bytes(self._received[header : header + size])
        del self._received[: header + size]
        try:
            return wire.unpack(body)
        except ValueError:
            raise ChildGone("the process sent an invalid answer") from None

    def processor_s(self) -> float:
        """CPU time of the child in seconds; 0 if it has ended. Raises SandboxError."""
        return float(self._sandbox.exchange({"cpu": self._number})["cpu"])

    def wait_until_confined(self) -> None:
        """Receive the child's first message, which it sends before it reads anything. Raises SandboxError."""
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
        """Read until at least `size` bytes have been received."""
        while len(self._received) < size:
            try:
                part = self._channel.recv(max(_READ, size - len(self._received)))
            except BlockingIOError:
                _wait(self.fd, select.POLLIN, deadline)
                continue
            except OSError:
                part = b""
            if not part:
                self._gone = True
                raise ChildGone("the process ended")
            self._received += part

    def close(self) -> str:
        """Kill the process and everything it started, and wait until they have ended. Returns how the process ended if
        it had already done so by itself, else an empty string. Raises SandboxError; also if somebody else has killed
        the process, such as a machine that runs out of memory: that is no fault of the program in it."""
        if self._number < 0:
            return ""
        number, self._number = self._number, -1
        self._channel.close()
        end = self._sandbox.exchange({"end": number, "gone": self._gone})
        if end["killed"] and self._sandbox.blocks_own_kill:
            raise SandboxError("a child was killed from outside")
        return _ending(int(end["status"]))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            self.close()
        except SandboxError:
            if kind is None or issubclass(kind, ChildGone):  # what looked like the program's end was not its own
                raise


class Sandbox:
    """A fork server and its children. Starts on first use. Not thread-safe."""

    def __init__(self, command: Command, limits: Limits) -> None:
        """limits: limits of each child; `tasks` is added to the threads that the user already has."""
        self._command = command
        self._limits = {**asdict(limits), "tasks": limits.tasks + command.user_tasks}
        self.blocks_own_kill = command.rung != "none"
        """Whether a program in it cannot kill itself by SIGKILL: then whoever is killed so was killed from outside."""
        self._numbers = itertools.count()
        self._control: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the fork server unless it is running. Raises SandboxError with the reason in one line."""
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

    def child(self, role: str, *, files: tuple[int, ...] = (), memory_mb: int | None = None) -> Child:
        """Start a new process without waiting until it is confined. role: `candidate` or `judge`. files: file
        descriptors that become its stdin and stdout. memory_mb: instead of the sandbox's limit. Raises SandboxError."""
        self.start()
        assert self._control is not None
        outer, inner = socket.socketpair()
        number = next(self._numbers)
        limits = self._limits if memory_mb is None else {**self._limits, "memory_mb": memory_mb}
        request = {"start": number, "role": role, "limits": limits}
        try:
            with inner:
                socket.send_fds(self._control, [json.dumps(request).encode()], [inner.fileno(), *files])
        except OSError as error:
            outer.close()
            self.close()
            raise SandboxError(f"the fork server has ended: {error.strerror}") from error
        return Child(self, number, outer)

    def exchange(self, request: dict[str, Any] | None) -> dict[str, Any]:
        """Send a request to the fork server (None: send nothing) and wait for its answer. Raises SandboxError."""
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
        """End the fork server and all children. The next use starts them again."""
        control, self._control = self._control, None
        process, self._process = self._process, None
        if control is not None:
            control.close()
        if process is not None:
            # Let the fork server exit first, so that every process is reaped by its parent. If bubblewrap were killed
            # first, its child would be left to process 1 of the container, which may not reap anything.
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
    """Ids of the direct children of a running process."""
    try:
        with open(f"/proc/{pid}/task/{pid}/children") as file:
            return [int(number) for number in file.read().split()]
    except OSError:
        return []


def _tail(fd: int) -> str:
    """The last line written to a pipe so far; does not wait for more."""
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
            return ""  # most likely killed by us
        return f"killed by {signal.Signals(number).name}"
    return f"exited with status {os.WEXITSTATUS(status)}"
