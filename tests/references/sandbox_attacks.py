"""Programs that try to escape from a sandbox or to break it. Each defines `attack(folder)`, which returns what it got:
a true value means that the attack succeeded. `folder` is a folder of the host with a secret in it."""

ATTACKS = {
    "network": """
import socket
def attack(folder):
    got = []
    for family, kind in ((socket.AF_INET, socket.SOCK_STREAM), (socket.AF_INET, socket.SOCK_DGRAM),
                         (socket.AF_INET6, socket.SOCK_STREAM), (socket.AF_UNIX, socket.SOCK_STREAM),
                         (socket.AF_NETLINK, socket.SOCK_RAW)):
        try:
            got.append(str(socket.socket(family, kind)))
        except OSError:
            pass
    try:
        got.append(socket.create_connection(("127.0.0.1", 22), 0.2))
    except OSError:
        pass
    for kind in (socket.SOCK_DGRAM, socket.SOCK_SEQPACKET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC):
        try:  # a datagram socket of a pair can send to others
            socket.socketpair(socket.AF_UNIX, kind)[0].sendmsg([b"x"], [], 0, folder + "/socket"); got.append(kind)
        except PermissionError:
            pass
    return got
""",
    "other processes": """
import os, signal
def attack(folder):
    got = []
    for pid in [-1, 0, *range(2, 400), os.getppid()]:
        try:
            if pid != os.getpid():
                os.kill(pid, 0); got.append(pid)
        except OSError:
            pass
    try:
        os.kill(-1, signal.SIGKILL); got.append("all")
    except OSError:
        pass
    try:
        got += [name for name in os.listdir("/proc") if name.isdigit()]
    except OSError:
        pass
    return got
""",
    "new processes": """
import os, subprocess, sys, multiprocessing, ctypes
def attack(folder):
    got = []
    def spawn():
        if os.fork() == 0:
            os._exit(0)
    actions = [spawn, lambda: subprocess.Popen([sys.executable, "-c", ""]),
               lambda: os.posix_spawn("/bin/sh", ["sh"], {}), lambda: os.execv("/bin/sh", ["sh"]),
               lambda: os.system("true") and 1 / 0, lambda: multiprocessing.Process(target=int).start()]
    for number, action in enumerate(actions):
        try:
            action(); got.append(number)
        except (OSError, ZeroDivisionError, AttributeError):
            pass
    libc = ctypes.CDLL(None)
    for call in ((57,), (58,), (56, 17, 0, 0, 0, 0), (435, 0, 0)):
        pid = libc.syscall(*call)
        if pid == 0:
            os._exit(0)
        if pid > 0:
            got.append(call)
    return got
""",
    "fork bomb": """
import os
def attack(folder):
    made = 0
    for _ in range(2000):
        try:
            if os.fork() == 0:
                while True: pass
            made += 1
        except OSError:
            pass
    return made
""",
    "thread bomb": """
import threading, time
def attack(folder):
    threading.stack_size(32768)
    started = 0
    try:
        for _ in range(20000):
            threading.Thread(target=time.sleep, args=(60,), daemon=True).start(); started += 1
    except RuntimeError:
        pass
    return started > THREAD_CEILING
""",
    "memory": """
import mmap, os, ctypes
def attack(folder):
    kept, size = [], 0
    try:
        while True:
            kept.append(bytearray(8 << 20)); size += 8
    except MemoryError:
        pass
    try:
        while True:
            kept.append(mmap.mmap(-1, 8 << 20)); size += 8
    except (OSError, ValueError, MemoryError):
        pass
    return size > 256
""",
    "memory outside its address space": """
import ctypes, os
def attack(folder):
    libc, got = ctypes.CDLL(None, use_errno=True), []
    if hasattr(os, "memfd_create"):
        try:
            got.append(os.memfd_create("x"))
        except OSError:
            pass
    if libc.shmget(0, 1 << 20, 0o1600) >= 0: got.append("shm")
    if libc.msgget(0, 0o1600) >= 0: got.append("msg")
    if libc.semget(0, 100, 0o1600) >= 0: got.append("sem")
    for folder in ("/dev/shm", "/dev", "/run", "/var/tmp"):
        try:
            open(folder + "/ouro_fill", "wb"); got.append(folder)
        except OSError:
            pass
    return got
""",
    "disk": """
import os
def attack(folder):
    written = 0
    for number in range(100):
        try:
            with open(f"/tmp/ouro_{number}", "wb", buffering=0) as file:
                while True:
                    written += file.write(bytes(1 << 20))
        except OSError:
            pass
    return written > 20 << 20
""",
    "secrets": """
import os, glob
def attack(folder):
    got = [value for name, value in os.environ.items() if "SECRET" in name or "HOME" in name]
    for path in (folder + "/secret", os.path.expanduser("~root/.bashrc"), os.path.expanduser("~/.bashrc"),
                 "/etc/passwd", "/etc/shadow", "/proc/self/environ", "/proc/1/environ", "/proc/self/maps",
                 "/proc/self/fd/0", "/sys/kernel", "/etc/hostname", "/root/.ssh", "/home", "/var/log", "/boot", folder):
        try:
            got.append(os.listdir(path) if os.path.isdir(path) else open(path, "rb").read(100))
        except OSError:
            pass
    return [found for found in got if found]
""",
    "writing outside": """
import os, sys
def attack(folder):
    got = []
    for path in (folder, "/usr/lib", "/", "/opt", "/opt/ouro/inside", "/etc", "/var/tmp", "/dev",
                 os.path.dirname(os.__file__),
                 os.path.dirname(sys.executable), "/home", "/root"):
        for action in (lambda: open(path + "/ouro_file", "w"), lambda: os.mkdir(path + "/ouro_folder"),
                       lambda: os.symlink("/x", path + "/ouro_link"), lambda: os.chmod(path, 0o777),
                       lambda: os.utime(path), lambda: os.chown(path, 1, 1)):
            try:
                action(); got.append(path)
            except OSError:
                pass
    for path in (os.__file__, folder + "/secret", sys.executable):
        for action in (lambda: open(path, "a"), lambda: os.truncate(path, 0), lambda: os.unlink(path),
                       lambda: os.utime(path),
                       lambda: os.rename(path, path + "x"), lambda: os.chmod(path, 0), lambda: os.chown(path, 1, 1)):
            try:
                action(); got.append(path)
            except OSError:
                pass
    return got
""",
    "symlinks": """
import os
def attack(folder):
    got = []
    for target in (folder + "/secret", "/etc/passwd", "/proc/self/environ", "/proc/1/root"):
        link = "/tmp/ouro_symlink"
        try:
            os.symlink(target, link)
            try:
                got.append(open(link).read(10))
            finally:
                os.unlink(link)
        except OSError:
            pass
        try:
            os.link(target, link); got.append("hard link")
        except OSError:
            pass
    for _ in range(3):
        try:
            os.chroot("/tmp"); got.append("chroot")
        except OSError:
            pass
    return got
""",
    "ptrace": """
import ctypes, os
def attack(folder):
    libc, got, buffer = ctypes.CDLL(None, use_errno=True), [], ctypes.create_string_buffer(64)
    for pid in [*range(1, 60), os.getppid()]:
        if pid != os.getpid() and libc.ptrace(16, pid, 0, 0) == 0:
            got.append(("attach", pid))
        local = (ctypes.c_size_t * 2)(ctypes.addressof(buffer), 64)
        if libc.process_vm_readv(pid, local, 1, local, 1, 0) > 0:
            got.append(("read", pid))
        if libc.syscall(434, pid, 0) >= 0:
            got.append(("pidfd", pid))
    if libc.ptrace(0, 0, 0, 0) == 0: got.append("traceme")
    return got
""",
    "namespaces and privileges": """
import ctypes, os
def attack(folder):
    libc, got = ctypes.CDLL(None, use_errno=True), []
    for flag in (0x10000000, 0x00020000, 0x20000000, 0x40000000, 0x08000000, 0x04000000, 0x02000000):
        if libc.unshare(flag) == 0: got.append(("unshare", hex(flag)))
        if libc.syscall(56, flag | 17, 0, 0, 0, 0) > 0: got.append(("clone", hex(flag)))
    if libc.mount(b"tmpfs", b"/tmp", b"tmpfs", 0, None) == 0: got.append("mount")
    if libc.umount2(b"/tmp", 2) == 0: got.append("umount")
    for action in (lambda: os.setuid(0), lambda: os.setgid(0), lambda: os.setgroups([0]), lambda: os.nice(-5),
                   lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))):
        try:
            action(); got.append("privilege")
        except OSError:
            pass
    if 0 in (os.getuid(), os.geteuid(), os.getgid()): got.append("root")
    data = (ctypes.c_uint32 * 6)()
    if libc.syscall(125, (ctypes.c_uint32 * 2)(0x20080522, 0), data) == 0 and any(data): got.append("capabilities")
    for number, arguments in ((425, (1, 0)), (321, (0, 0, 0)), (298, (0, 0, 0, 0, 0)),
                              (250, (0, 0, 0, 0)), (304, (0, 0, 0)),
                              (323, (0,)), (246, (0, 0, 0, 0)), (169, (0, 0, 0, 0)), (175, (0, 0, 0)),
                              (101, (0, 0, 0, 0))):
        if libc.syscall(number, *arguments) >= 0: got.append(number)
        if ctypes.get_errno() != 1: got.append((number, ctypes.get_errno()))
    import resource
    for what in (resource.RLIMIT_AS, resource.RLIMIT_NPROC, resource.RLIMIT_CPU):
        try:
            resource.setrlimit(what, (1 << 40, 1 << 40)); got.append("limits")
        except (OSError, ValueError):
            pass
    return got
""",
    "the channel and other descriptors": """
import os, stat
def attack(folder):
    got = []
    for fd in [*range(4, 300)]:
        try:
            if not stat.S_ISDIR(os.fstat(fd).st_mode): got.append(fd)  # the library's folder may stay open
        except OSError:
            pass
    return got
""",
}

ENDINGS = {  # programs after which no process may be left
    "sleep": "import time\ndef attack(folder):\n    time.sleep(1000)\n",
    "busy": "def attack(folder):\n    while True: pass\n",
    "ignored signals": """
import signal, time
def attack(folder):
    for number in range(1, 65):
        try:
            signal.signal(number, signal.SIG_IGN)
        except (OSError, ValueError):
            pass
    while True:
        try:
            time.sleep(1000)
        except BaseException:
            pass
""",
    "stopped": """
import os, signal
def attack(folder):
    os.kill(os.getpid(), signal.SIGSTOP)
    while True: pass
""",
    "daemon": """
import os, time
def attack(folder):
    try:
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                while True: time.sleep(1)
            os._exit(0)
    except OSError:
        pass
    while True: time.sleep(1)
""",
    "threads": """
import threading, time
def attack(folder):
    for _ in range(8):
        threading.Thread(target=lambda: [None for _ in iter(int, 1)]).start()
    time.sleep(1000)
""",
    "exit": "import os\ndef attack(folder):\n    os._exit(0)\n",
    "segfault": "import ctypes\ndef attack(folder):\n    ctypes.string_at(0)\n",
    "huge answer": "def attack(folder):\n    return 'x' * (1 << 26)\n",
    "deep answer": "def attack(folder):\n    a = []\n    for _ in range(100000): a = [a]\n    return a\n",
    "endless answer": "import itertools\ndef attack(folder):\n    return itertools.count()\n",
    "flooded channel": """
import os
def attack(folder):
    while True: os.write(3, b"\\xff" * 65536)
""",
    "closed channel": "import os\ndef attack(folder):\n    os.close(3)\n    while True: pass\n",
}
