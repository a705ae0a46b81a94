"""The seccomp filter: an allowlist of the system calls that a Python program needs. All others fail with EPERM.

Not on the list, so impossible in the sandbox: new processes and programs (fork, vfork, clone without CLONE_THREAD,
execve), sockets other than stream socket pairs, signals to other processes, ptrace and the like, namespaces, mounts,
io_uring, bpf, keys, System V IPC, memfd, priorities, and every system call that a newer kernel may add."""

from __future__ import annotations

import ctypes
import errno
import functools
import os
import platform
import resource
import signal
import struct

# name, number on x86_64, number on aarch64
_READING = """
    read 0 63, write 1 64, readv 19 65, writev 20 66, pread64 17 67, pwrite64 18 68, preadv 295 69, pwritev 296 70,
    close 3 57, close_range 436 436, fstat 5 80, newfstatat 262 79, stat 4 -, lstat 6 -, statx 332 291,
    statfs 137 43, fstatfs 138 44, lseek 8 62, poll 7 -, ppoll 271 73, select 23 -, pselect6 270 72,
    epoll_create 213 -, epoll_create1 291 20, epoll_ctl 233 21, epoll_wait 232 -, epoll_pwait 281 22, mmap 9 222,
    munmap 11 215, mprotect 10 226, mremap 25 216, madvise 28 233, brk 12 214, msync 26 227, mincore 27 232,
    rt_sigaction 13 134, rt_sigprocmask 14 135, rt_sigreturn 15 139, rt_sigpending 127 136,
    rt_sigtimedwait 128 137, rt_sigsuspend 130 133, sigaltstack 131 132, restart_syscall 219 128, pause 34 -,
    access 21 -, faccessat 269 48, faccessat2 439 439, pipe 22 -, pipe2 293 59, dup 32 23, dup2 33 -, dup3 292 24,
    getpid 39 172, gettid 186 178, getppid 110 173, getuid 102 174, geteuid 107 175, getgid 104 176,
    getegid 108 177, getgroups 115 158, getresuid 118 148, getresgid 120 150, getpgrp 111 -, getpgid 121 155,
    getsid 124 156, clock_gettime 228 113, clock_getres 229 114, clock_nanosleep 230 115, nanosleep 35 101,
    gettimeofday 96 169, time 201 -, getitimer 36 102, setitimer 38 103, alarm 37 -, timerfd_create 283 85,
    timerfd_settime 286 86, timerfd_gettime 287 87, eventfd 284 -, eventfd2 290 19, sched_yield 24 124,
    sched_getaffinity 204 123, futex 202 98, set_robust_list 273 99, get_robust_list 274 100, rseq 334 293,
    set_tid_address 218 96, arch_prctl 158 -, exit 60 93, exit_group 231 94, uname 63 160, getcwd 79 17,
    chdir 80 49, fchdir 81 50, open 2 -, openat 257 56, readlink 89 -, readlinkat 267 78, getdents64 217 61,
    umask 95 166, flock 73 32, fsync 74 82, fdatasync 75 83, getrandom 318 278, getrlimit 97 163, getrusage 98 165,
    times 100 153, sysinfo 99 179, sendto 44 206, recvfrom 45 207, sendmsg 46 211,
    recvmsg 47 212, shutdown 48 210, getsockopt 55 209, getsockname 51 204, getpeername 52 205,
    copy_file_range 326 285, sendfile 40 71, wait4 61 260, waitid 247 95, membarrier 324 283, fadvise64 221 223
"""
_WRITING = """
    creat 85 -, mkdir 83 -, mkdirat 258 34, rmdir 84 -, unlink 87 -, unlinkat 263 35, rename 82 -, renameat 264 38,
    renameat2 316 276, link 86 -, linkat 265 37, symlink 88 -, symlinkat 266 36, chmod 90 -, fchmod 91 52,
    fchmodat 268 53, truncate 76 45, ftruncate 77 46, fallocate 285 47, utimensat 280 88
"""
_LIMITED = """
    kill 62 129, tgkill 234 131, prlimit64 302 261, clone 56 220, clone3 435 435, ioctl 16 29, fcntl 72 25,
    socketpair 53 199
"""

_MACHINES = {"x86_64": (1, 0xC000003E), "aarch64": (2, 0xC00000B7)}
"""Machine -> (column of its system call numbers, its AUDIT_ARCH)."""
_CLONE_THREAD = 0x10000
_FCNTL = (0, 1, 2, 3, 4, 5, 6, 7, 1030, 1032)
"""Duplicates, descriptor and status flags, record locks. Excluded: owners and signals, which reach other processes, and
pipe sizes."""
_IOCTL = (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)
"""Terminal attributes and size, number of readable bytes, nonblocking mode, close-on-exec."""
_PAIRS = (1, 1 | 0x800, 1 | 0x80000, 1 | 0x80800)
"""Stream sockets only: a datagram socket of a pair could send to any socket whose path or name it knows."""
_LOAD, _JUMP_EQUAL, _JUMP_BITS, _RETURN = 0x20, 0x15, 0x45, 0x06
_ALLOW, _ERRNO, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_NUMBER, _ARCH, _ARGUMENTS = 0, 4, 16
"""Offsets in struct seccomp_data."""
_PR_SET_NO_NEW_PRIVS, _SET_MODE_FILTER = 38, 1
_SECCOMP = {"x86_64": 317, "aarch64": 277}


def supported() -> bool:
    """Whether the system call numbers of this machine are known."""
    return platform.machine() in _MACHINES


def restrict(*, writable: bool) -> None:
    """Restrict the calling process permanently. writable: allow system calls that change files; the mounts decide
    which files. Raises OSError."""
    program = assemble(writable, os.getpid())
    libc = ctypes.CDLL(None, use_errno=True)
    buffer = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("HxxxxxxQ", len(program) // 8, ctypes.addressof(buffer))
    number = _SECCOMP[platform.machine()]
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.syscall(number, _SET_MODE_FILTER, 0, header):
        code = ctypes.get_errno()
        raise OSError(code, f"seccomp: {os.strerror(code)}")


@functools.lru_cache(maxsize=4)
def assemble(writable: bool, own_pid: int) -> bytes:
    """The filter's BPF program for this machine."""
    column, arch = _MACHINES[platform.machine()]
    limited = _numbers(_LIMITED, column)
    program = [
        _step(_LOAD, _ARCH),
        _step(_JUMP_EQUAL, arch, 1, 0),
        _step(_RETURN, _KILL),
        _step(_LOAD, _NUMBER),
    ]
    for number in [*_numbers(_READING, column).values(), *(_numbers(_WRITING, column).values() if writable else ())]:
        program += [_step(_JUMP_EQUAL, number, 0, 1), _step(_RETURN, _ALLOW)]
    # A filter cannot see the flags of clone3. glibc tries it first, and falls back to clone on ENOSYS.
    program += [_step(_JUMP_EQUAL, limited["clone3"], 0, 1), _step(_RETURN, _ERRNO | errno.ENOSYS)]
    program += _when(limited["clone"], 0, [_step(_JUMP_BITS, _CLONE_THREAD, 0, 1), _step(_RETURN, _ALLOW)])
    # Nobody may kill themselves by SIGKILL, which would look as if the machine had done it.
    program += _when(limited["kill"], 1, [_step(_JUMP_EQUAL, signal.SIGKILL, 3, 0), *_argument(0), *_equal(own_pid)])
    program += _when(limited["tgkill"], 2, [_step(_JUMP_EQUAL, signal.SIGKILL, 3, 0), *_argument(0), *_equal(own_pid)])
    program += _when(limited["prlimit64"], 0, _own_limits())
    program += _when(limited["fcntl"], 1, _equal(*_FCNTL))
    program += _when(limited["ioctl"], 1, _equal(*_IOCTL))
    program += _when(limited["socketpair"], 1, _equal(*_PAIRS))
    return b"".join([*program, _step(_RETURN, _ERRNO | errno.EPERM)])


def _numbers(table: str, column: int) -> dict[str, int]:
    rows = [entry.split() for entry in table.replace("\n", " ").split(",")]
    return {row[0]: int(row[column]) for row in rows if row and row[column] != "-"}


def _step(code: int, k: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("HBBI", code, if_true, if_false, k)


def _when(number: int, argument: int, checks: list[bytes]) -> list[bytes]:
    """Steps for one system call, decided by the low 32 bits of an argument: the kernel reads all of these as ints."""
    body = [*_argument(argument), *checks, _step(_RETURN, _ERRNO | errno.EPERM)]
    return [_step(_JUMP_EQUAL, number, 0, len(body)), *body]


def _argument(number: int, half: int = 0) -> list[bytes]:
    return [_step(_LOAD, _ARGUMENTS + 8 * number + 4 * half)]


def _own_limits() -> list[bytes]:
    """Of the own process, any limit may be read, and all but that of CPU time be set: whoever lowered it could be
    killed for it at any time, as if from outside. The limit to set is a pointer, of which both halves count."""
    return [
        _step(_JUMP_EQUAL, 0, 0, 7),
        *_argument(1),
        _step(_JUMP_EQUAL, resource.RLIMIT_CPU, 0, 4),
        *_argument(2),
        _step(_JUMP_EQUAL, 0, 0, 3),
        *_argument(2, half=1),
        _step(_JUMP_EQUAL, 0, 0, 1),
        _step(_RETURN, _ALLOW),
    ]


def _equal(*values: int) -> list[bytes]:
    return [step for value in values for step in (_step(_JUMP_EQUAL, value, 0, 1), _step(_RETURN, _ALLOW))]
