"""The ladder of sandboxes, from strongest to weakest rung. Each rung must pass a self-test on this machine before use.

1. `bubblewrap`: namespaces, no capabilities, an empty read-only file system with a small /tmp, seccomp.
2. `landlock`: Landlock and seccomp, for machines that forbid user namespaces; no /tmp.
3. `none`: no sandbox. Refused unless the user sets `allow_unsafe_code`."""

from __future__ import annotations

import functools
import importlib.util
import os
import shutil
import sys
import sysconfig
import time
from collections.abc import Sequence
from pathlib import Path

from ouro_rl.core.errors import UserError
from rewards.sandbox.host import ChildGone, Command, Sandbox, SandboxError
from rewards.sandbox.inside import syscalls, values
from rewards.sandbox.inside.confine import NOBODY, Limits, landlock_abi

_INSIDE = Path(__file__).parent / "inside"
_SHOWN_INSIDE = Path("/opt/ouro/inside")
"""Where that folder is mounted by the rung `bubblewrap`."""
_SHOWN_PACKAGES = "/opt/packages"
_BOOT = (
    "import sys; sys.path.insert(0, sys.argv[1]); from inside.zygote import main; "
    "main(int(sys.argv[2]), sys.argv[3], sys.argv[4].split(), sys.argv[5].split(), sys.argv[6:])"
)
_DESCRIPTIONS = {
    "bubblewrap": "bubblewrap (own namespaces, no network, no capabilities, read-only, seccomp)",
    "landlock": "landlock (Landlock ABI {abi} and seccomp: no writes, no network, no new processes)",
    "none": "NONE: model-written code runs as an ordinary process of your user (allow_unsafe_code)",
}
_PROBE = """
import os, socket, threading
def attempt(action):
    try:
        action()
    except OSError:
        return False
    return True
def fork():
    if os.fork() == 0:
        os._exit(0)
def thread():
    worker = threading.Thread(target=int); worker.start(); worker.join()
def probe(folder):
    import colorsys
    thread()
    return {
        "run as root": os.getuid() == 0 or os.geteuid() == 0,
        "create a process": attempt(fork),
        "create a socket": attempt(lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM)),
        "signal another process": attempt(lambda: os.kill(os.getppid() or 2, 0)),
        "read /proc": attempt(lambda: open("/proc/self/environ").read()),
        "read /etc": attempt(lambda: open("/etc/passwd").read()),
        "list a folder of the host": attempt(lambda: os.listdir(folder)),
        "write outside of /tmp": any(
            attempt(lambda: open(path, "w")) for path in ("/usr/ouro_probe", "/dev/shm/x")
        ),
        "see the environment": bool({*os.environ} - {"LC_CTYPE", "PWD"}),
    }
"""
PROBE_LIMITS = Limits(memory_mb=256, seconds=10, tasks=32, tmp_mb=1)
_PROBE_S = 60.0
"""Wall time of the self-test in seconds. Large, since a busy machine must not select a weaker rung."""


def choose_rung(*, allow_unsafe_code: bool = False, packages: Sequence[str] = ()) -> Command:
    """The strongest sandbox that this machine allows, in which programs may import these packages. If there is none:
    the last rung, an ordinary process, if `allow_unsafe_code`, else raises UserError with the fix; also for a package
    that is not installed."""
    reasons = []
    for rung in ("bubblewrap", "landlock"):
        reason = unavailable(rung)
        if not reason:
            return command(rung, packages)
        reasons.append(f"  {rung}: {reason}")
    if allow_unsafe_code:
        return command("none", packages)
    raise UserError(
        "reward 'code': this machine has no sandbox for model-written code.\n" + "\n".join(reasons) + "\n"
        "Install bubblewrap (`make sandbox`, or your package manager) and allow user namespaces, or use a kernel with "
        "Landlock (>= 5.13). Only on a disposable machine, set kwargs: {allow_unsafe_code: true}"
    )


def describe(chosen: Command) -> str:
    """A one-line description for the log."""
    return "sandbox: " + _DESCRIPTIONS[chosen.rung].format(abi=landlock_abi())


@functools.cache
def unavailable(rung: str) -> str:
    """Why this machine cannot provide a rung, in one line; empty if it can. Runs a self-test: a program in the sandbox
    attempts forbidden actions, which must all fail. Takes about 0.3 s, once per process."""
    if sys.platform != "linux" or not syscalls.supported():
        return f"needs Linux on x86_64 or aarch64 (this is {sys.platform} on {os.uname().machine})"
    if rung == "bubblewrap" and not shutil.which("bwrap"):
        return "bwrap is not installed (`make sandbox`, or `apt-get install bubblewrap`)"
    if rung == "landlock" and not landlock_abi():
        return "the kernel has no Landlock, or it is disabled"
    try:
        with Sandbox(command(rung), PROBE_LIMITS) as sandbox, sandbox.child("candidate") as child:
            deadline = time.monotonic() + _PROBE_S
            child.send({"nonce": 0, "program": _PROBE, "script": False}, deadline)
            loaded = child.receive(deadline)
            call = {"nonce": 0, "do": "name", "name": "probe", "args": [str(_INSIDE.parent.parent)], "kwargs": {}}
            child.send(call, deadline)
            answer = child.receive(deadline)
        found = values.decode(answer["ok"])
    except (SandboxError, ChildGone, TimeoutError) as error:
        return f"does not start: {error}"
    except KeyError:
        return f"does not run a program: {answer.get('error')} {loaded.get('error', '')}"
    could = [what for what, succeeded in found.items() if succeeded]
    return f"a program in it could {', '.join(could)}" if could else ""


def command(rung: str, packages: Sequence[str] = ()) -> Command:
    """The command that starts a rung's fork server. packages: installed packages that programs may import. Raises
    UserError if one is not installed."""
    shown = [path for package in packages for path in _paths_of(package)]
    python = os.path.realpath(sys.executable)
    library = os.path.realpath(sysconfig.get_paths()["stdlib"])
    folders = _read_folders(library)
    boot = [python, "-I", "-S", "-B", "-X", "utf8", "-c", _BOOT]
    as_root = os.geteuid() == 0
    if rung != "bubblewrap":
        devices = ["/dev/null", "/dev/zero", "/dev/urandom", "/dev/random"]
        modules, listed = _without_packages(tuple(folders))
        parents = sorted({str(path.parent) for path in shown})
        read = [path for path in [*modules, *devices, str(_INSIDE), *map(str, shown)] if os.path.exists(path)]
        imported = [" ".join(packages), " ".join(parents)]
        arguments = [*boot, str(_INSIDE.parent), "{control}", rung, *imported, *read, "--", *listed, *parents]
        return Command(rung=rung, arguments=tuple(arguments), user_tasks=_tasks(NOBODY if as_root else os.getuid()))
    profile = [shutil.which("bwrap") or "bwrap", *_profile(as_root)]
    for path in [*folders, python, str(_SHOWN_INSIDE)]:
        for parent in reversed(Path(path).parents[:-1]):  # those that bubblewrap creates are closed to other users
            profile += ["--perms", "0755", "--dir", str(parent)]
    for folder in [*folders, python]:
        profile += ["--ro-bind", folder, folder]
    for hidden in _package_folders(tuple(folders)):
        profile += ["--perms", "0755", "--tmpfs", hidden, "--remount-ro", hidden]
    for link in ("/lib", "/lib64"):
        if os.path.islink(link):
            profile += ["--symlink", os.readlink(link), link]
        elif os.path.isdir(link):
            profile += ["--ro-bind", link, link]
    for device in ("/dev/null", "/dev/zero", "/dev/urandom", "/dev/random"):
        profile += ["--dev-bind", device, device]
    profile += ["--perms", "0755", "--dir", _SHOWN_PACKAGES]
    for part in shown:
        profile += ["--ro-bind", str(part), f"{_SHOWN_PACKAGES}/{part.name}"]
    profile += ["--ro-bind", str(_INSIDE), str(_SHOWN_INSIDE), "--dir", "/tmp", "--chdir", "/", "--remount-ro", "/"]
    arguments = [*profile, "--", *boot, str(_SHOWN_INSIDE.parent), "{control}", rung]
    arguments += [" ".join(packages), _SHOWN_PACKAGES if packages else ""]
    if as_root:
        arguments = [python, "-I", "-S", str(_INSIDE.parent / "launcher.py"), *arguments]
    return Command(rung=rung, arguments=tuple(arguments), user_tasks=_tasks(NOBODY if as_root else os.getuid()))


def _paths_of(package: str) -> list[Path]:
    """The folder (or file) of an installed package, and that of the shared libraries that belong to it. Raises
    UserError."""
    spec = importlib.util.find_spec(package) if package.isidentifier() else None
    if spec is None or spec.origin is None:
        raise UserError(f"reward 'code': the package {package!r} is not installed: pip install {package}")
    path = Path(spec.submodule_search_locations[0] if spec.submodule_search_locations else spec.origin)
    return [part for part in (path, path.parent / f"{package}.libs") if part.exists()]


def _profile(as_root: bool) -> list[str]:
    profile = ["--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"]
    # Run the server as process 1: otherwise bubblewrap inserts a process of its own, and does not wait for it to end.
    profile += ["--as-pid-1", "--die-with-parent", "--new-session", "--clearenv", "--cap-drop", "ALL"]
    # The fork server needs these to create a process and a mount namespace per child; the children drop all of them.
    needed = ["CAP_SYS_ADMIN", "CAP_SETPCAP", *(["CAP_SETUID", "CAP_SETGID", "CAP_KILL"] if as_root else [])]
    for capability in needed:
        profile += ["--cap-add", capability]
    if as_root:  # the launcher has created the user namespace and disabled further ones
        return profile
    return [*profile, "--unshare-user", "--uid", str(NOBODY), "--gid", str(NOBODY), "--disable-userns"]


def _read_folders(library: str) -> list[str]:
    """Folders that a Python interpreter reads: its standard library, the system's shared libraries and time zones."""
    folders = ["/usr/lib", "/usr/lib64", "/usr/share/zoneinfo", library]
    prefix = os.path.realpath(sys.base_prefix)
    if prefix != "/usr":
        folders.append(os.path.join(prefix, "lib"))
    inside = [folder for folder in dict.fromkeys(folders) if os.path.isdir(folder)]
    return [folder for folder in inside if not any(folder.startswith(f"{other}/") for other in inside)]


@functools.cache
def _package_folders(folders: tuple[str, ...]) -> list[str]:
    """The site-packages and dist-packages folders below these folders, of any interpreter."""
    found = []
    for folder in folders:
        for path, below, _ in os.walk(folder):
            packages = {"site-packages", "dist-packages"} & set(below)
            found += [os.path.join(path, name) for name in packages if not os.path.islink(os.path.join(path, name))]
            below[:] = [name for name in below if name not in packages]
    return sorted(found)


@functools.cache
def _without_packages(folders: tuple[str, ...]) -> tuple[list[str], list[str]]:
    """(readable paths, folders that may only be listed), which leave the packages installed in `folders` unreadable.
    A Landlock rule covers everything below a folder, so the siblings of a packages folder get one rule each. The
    folders above it may only be listed, which Python does before it imports from them."""
    packages = _package_folders(folders)
    read: list[str] = []
    listed: list[str] = []
    waiting = list(folders)
    while waiting:
        folder = waiting.pop()
        if not any(path.startswith(f"{folder}/") for path in packages):
            read.append(folder)
            continue
        listed.append(folder)
        for entry in os.scandir(folder):
            # The target of a link either has a rule of its own or must stay unreadable.
            if entry.is_symlink() or entry.path in packages:
                continue
            if entry.is_dir():
                waiting.append(entry.path)
            elif entry.is_file():
                read.append(entry.path)
    return sorted(read), sorted(listed)


def _tasks(uid: int) -> int:
    """Number of threads that a user has now. RLIMIT_NPROC counts those outside of the sandbox too."""
    count = 0
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            fields = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
            if int(fields["Uid"].split()[0]) == uid:
                count += int(fields["Threads"])
        except (OSError, KeyError, ValueError):
            continue
    return count


def main() -> None:
    """Print which rungs are available on this machine."""
    for rung in ("bubblewrap", "landlock"):
        print(f"{rung}: {unavailable(rung) or 'available'}")
    try:
        print(describe(choose_rung()))
    except UserError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
