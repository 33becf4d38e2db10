"""Become a command that is killed when its parent dies, even by kill -9 (Linux only).

Run as ``python -I -S tether.py PARENT_PID COMMAND…``. A wrapper that execs, because
a ``preexec_fn`` runs Python between fork and exec and can deadlock beside threads.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Ask the kernel for SIGKILL on the parent's death, then exec the command."""
    parent, command = int(sys.argv[1]), sys.argv[2:]
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"prctl(PR_SET_PDEATHSIG): {os.strerror(code)}")
    if os.getppid() != parent:  # the parent died before prctl: the signal will never come
        return
    os.execv(command[0], command)  # noqa: S606 - the command is a resolved path, no shell


if __name__ == "__main__":
    main()
