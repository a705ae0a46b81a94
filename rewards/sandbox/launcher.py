"""Creates a user namespace as root, then executes bubblewrap in it. Run as a standalone program.

If root starts bubblewrap directly, the only user of its namespace maps to root outside: a process in it would own
root's files, and process limits do not apply to root. This namespace has two users: root for the mounts, and nobody for
the programs."""

import ctypes
import os
import sys

CLONE_NEWUSER = 0x10000000
_USERS = "0 0 1\n65534 65534 1\n"


def main(command: list[str]) -> None:
    """Replace this process with `command`, as root of a new user namespace in which no further namespace can be
    created."""
    made_read, made_write = os.pipe()
    mapped_read, mapped_write = os.pipe()
    own = os.getpid()
    helper = os.fork()
    if helper == 0:  # stays outside the namespace, since only a process outside may map a second user
        if os.read(made_read, 1):
            for kind in ("uid_map", "gid_map"):
                with open(f"/proc/{own}/{kind}", "w") as file:
                    file.write(_USERS)
            os.write(mapped_write, b"1")
        os._exit(0)
    os.close(mapped_write)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWUSER):
        code = ctypes.get_errno()
        os.close(made_write)
        sys.exit(f"a user namespace cannot be created: {os.strerror(code)}")
    os.write(made_write, b"1")
    mapped = os.read(mapped_read, 1)
    os.waitpid(helper, 0)
    if not mapped:
        sys.exit("users cannot be mapped into a user namespace")
    with open("/proc/sys/user/max_user_namespaces", "w") as file:
        file.write("0")
    os.execv(command[0], command)


if __name__ == "__main__":
    main(sys.argv[1:])
