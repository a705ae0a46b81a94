"""How a child of the fork server gives up its privileges before it runs untrusted code. No step is optional: each
raises OSError if the kernel refuses it."""

from __future__ import annotations

import ctypes
import functools
import os
import platform
import resource
import stat
import struct
from dataclasses import dataclass

from . import syscalls

NOBODY = 65534
CLONE_NEWNS, CLONE_NEWIPC, CLONE_NEWPID = 0x00020000, 0x08000000, 0x20000000
_MS_NOSUID_NODEV = 6
_PR_SET_PDEATHSIG, _PR_CAPBSET_DROP, _PR_CAP_AMBIENT, _PR_SET_NO_NEW_PRIVS = 1, 24, 47, 38
_M_ARENA_MAX = -8
_CAPABILITY_VERSION = 0x20080522
_SETNS = {"x86_64": 308, "aarch64": 268}
_CAPSET = {"x86_64": 126, "aarch64": 91}
_LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT = 444, 445, 446
_FS_WRITE_FILE, _FS_READ_FILE, _FS_READ_DIR = 1 << 1, 1 << 2, 1 << 3
_FS_READ, _FS_DEVICE = _FS_READ_FILE | _FS_READ_DIR, _FS_READ_FILE | _FS_WRITE_FILE
_FS_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15}
"""Landlock ABI -> number of file access rights that it defines; 16 from ABI 5 on."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Resource limits of one child."""

    memory_mb: int
    """Address space in MiB."""
    seconds: int
    """CPU time. The host's wall-clock deadline normally ends a child earlier."""
    tasks: int
    """Number of concurrent threads of this user: RLIMIT_NPROC."""
    tmp_mb: int
    """Size of /tmp in MiB, if there is one, and maximum size of a file."""


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")
    return result


def unshare(flags: int) -> None:
    """Call unshare(2). Raises OSError."""
    _check(_libc().unshare(flags), "unshare")


def rejoin_own_pid_namespace(pidfd: int) -> None:
    """Undo `unshare(CLONE_NEWPID)` for future children. pidfd: the caller's own."""
    _check(_libc().syscall(_SETNS[platform.machine()], pidfd, CLONE_NEWPID), "setns")


def private_tmp(size_mb: int) -> None:
    """Enter a new mount namespace with an empty /tmp of limited size, which disappears with the process."""
    unshare(CLONE_NEWNS | CLONE_NEWIPC)
    options = f"size={size_mb}m,nr_inodes=4096,mode=0777".encode()
    _check(_libc().mount(b"tmpfs", b"/tmp", b"tmpfs", _MS_NOSUID_NODEV, options), "mount /tmp")
    os.chdir("/tmp")


def set_limits(limits: Limits) -> None:
    """Limit the calling process permanently: the limits cannot be raised again, even after exec."""
    memory = limits.memory_mb << 20
    for what, limit in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_CPU, limits.seconds),
        (resource.RLIMIT_NPROC, limits.tasks),
        (resource.RLIMIT_NOFILE, 64),
        (resource.RLIMIT_FSIZE, limits.tmp_mb << 20),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_MEMLOCK, 0),
        (resource.RLIMIT_MSGQUEUE, 0),
    ):
        hard = resource.getrlimit(what)[1]
        value = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(what, (value, value))


def drop_privileges() -> None:
    """Drop all capabilities and supplementary groups, and change from root to nobody."""
    libc = _libc()
    _check(libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
    for capability in range(64):
        if libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0) < 0:
            break  # past the last capability; or unprivileged, so that no capability could be regained
    libc.prctl(_PR_CAP_AMBIENT, 4, 0, 0, 0)
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
    header, none = struct.pack("Ii", _CAPABILITY_VERSION, 0), struct.pack("6I", 0, 0, 0, 0, 0, 0)
    _check(libc.syscall(_CAPSET[platform.machine()], header, none), "capset")


def die_with_parent() -> None:
    """Be killed when the parent ends. Call it after any change of user, which clears the setting."""
    _check(_libc().prctl(_PR_SET_PDEATHSIG, 9, 0, 0, 0), "pdeathsig")


def landlock_abi() -> int:
    """The kernel's Landlock ABI version; 0 if there is no Landlock."""
    return max(0, _libc().syscall(_LANDLOCK_CREATE, None, 0, 1))


def landlock_rules(read: list[str], listed: list[str]) -> int:
    """A ruleset descriptor for `landlock`. `read`: files and folders, with everything below them, that can be read;
    devices can also be written. `listed`: folders that can be listed, with all below them. Every other file access is
    denied, as is TCP from ABI 4 on; from ABI 6 on also signals and abstract sockets to processes outside."""
    libc, abi = _libc(), landlock_abi()
    _check(abi - 1, "landlock")
    files = (1 << _FS_RIGHTS.get(abi, 16)) - 1
    attributes = struct.pack("QQQ", files, 3 if abi >= 4 else 0, 3 if abi >= 6 else 0)
    size = 24 if abi >= 6 else 16 if abi >= 4 else 8
    ruleset = _check(libc.syscall(_LANDLOCK_CREATE, attributes, size, 0), "landlock ruleset")
    for path, only_listed in [*((path, False) for path in read), *((path, True) for path in listed)]:
        try:
            fd = os.open(path, os.O_PATH)
        except FileNotFoundError:  # deleted since it was listed
            continue
        mode = os.fstat(fd).st_mode
        rights = _FS_READ if stat.S_ISDIR(mode) else _FS_READ_FILE if stat.S_ISREG(mode) else _FS_DEVICE
        rule = struct.pack("=Qi", _FS_READ_DIR if only_listed else rights, fd)
        _check(libc.syscall(_LANDLOCK_ADD, ruleset, 1, rule, 0), f"landlock rule for {path}")
        os.close(fd)
    return ruleset


def landlock(ruleset: int) -> None:
    """Enforce the ruleset of `landlock_rules` from now on."""
    libc = _libc()
    _check(libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
    _check(libc.syscall(_LANDLOCK_RESTRICT, ruleset, 0), "landlock")
    os.close(ruleset)


def warm_up() -> None:
    """Compute once what every child would otherwise compute again. Threads share one arena: each of the usual ones
    takes address space, which is limited, for memory that it may never need."""
    mallopt = getattr(_libc(), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)
    syscalls.assemble(True, 1)  # in a PID namespace of its own, a child is process 1


def filter_system_calls(*, writable: bool) -> None:
    """Restrict system calls as described in `syscalls`."""
    syscalls.restrict(writable=writable)
