"""Runs a program under the system call filter and the memory rule of a systemd unit.

    python tests/deploy/confined.py SYSTEM_CALL … -- PROGRAM ARGUMENT …

The named calls are allowed, every other one fails with EPERM, and no memory is both writable and
executable, as systemd sets it up for a service. libseccomp is the library that systemd uses.
"""

from __future__ import annotations

import ctypes
import os
import sys

_PR_SET_NO_NEW_PRIVS, _PR_SET_MDWE = 38, 65
_EPERM = 0x00050000 | 1
_ALLOW = 0x7FFF0000


def confine(allowed: list[str]) -> None:
    """Restrict this process, and the program that it executes, to these calls."""
    prctl = ctypes.CDLL(None).prctl
    prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    prctl(_PR_SET_MDWE, 1, 0, 0, 0)
    seccomp = ctypes.CDLL("libseccomp.so.2")
    seccomp.seccomp_init.restype = ctypes.c_void_p
    context = ctypes.c_void_p(seccomp.seccomp_init(_EPERM))
    for name in allowed:
        number = seccomp.seccomp_syscall_resolve_name(name.encode())
        # The number is negative for calls that are unknown or of other processors.
        if number >= 0:
            seccomp.seccomp_rule_add_array(context, _ALLOW, number, 0, None)
    if seccomp.seccomp_load(context) != 0:
        raise OSError("the filter cannot be loaded")


def main() -> None:
    border = sys.argv.index("--")
    program = sys.argv[border + 1 :]
    confine(sys.argv[1:border])
    os.execv(program[0], program)  # noqa: S606 - the program of the command line


if __name__ == "__main__":
    main()
