"""Runs the gateway on a Linux Python from which everything that Windows lacks has been removed.

    python tests/deploy/without_posix.py run --config gateway.yaml

The standard library is imported first, since on Linux it needs what the gateway may not use.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import http.client
import importlib
import logging.handlers
import os
import random
import select
import selectors
import signal
import socket
import sqlite3
import ssl
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NoReturn

# Modules of the standard library that would otherwise be imported after the removal.
LOADED = (concurrent.futures, http.client, logging.handlers, random, sqlite3, ssl, subprocess)
ABSENT = ("fcntl", "grp", "pwd", "resource", "termios", "uvloop")
LACKING = {
    os: (
        "O_CLOEXEC O_DIRECTORY O_NONBLOCK O_NOFOLLOW chown fchmod fchown fdatasync fork "
        "getegid geteuid getgid getloadavg getuid killpg memfd_create pread pwrite readv "
        "register_at_fork sched_getaffinity setsid uname writev"
    ),
    select: "epoll poll",
    signal: "SIGALRM SIGCHLD SIGHUP SIGKILL SIGPIPE SIGUSR1 SIGUSR2 pthread_sigmask sigwait",
    socket: (
        "AF_UNIX MSG_DONTWAIT MSG_NOSIGNAL SOCK_CLOEXEC SOCK_NONBLOCK SO_REUSEPORT "
        "TCP_QUICKACK TCP_USER_TIMEOUT"
    ),
    time: "CLOCK_MONOTONIC clock_gettime clock_gettime_ns",
}


def raise_not_implemented(*_: object) -> NoReturn:
    """Raise NotImplementedError, as `add_signal_handler` of asyncio's loops on Windows does."""
    raise NotImplementedError


def remove_posix() -> None:
    """Remove everything that Windows lacks."""
    tempfile.gettempdir()
    if hasattr(os, "process_cpu_count"):
        # The version of Windows, since Python 3.13, uses no affinity.
        os.process_cpu_count = os.cpu_count  # type: ignore[attr-defined, unused-ignore]
    # The version of Windows makes a pair over loopback.
    pair = functools.partial(socket.socketpair, socket.AF_UNIX)
    socket.socketpair = pair
    for module, names in LACKING.items():
        for name in names.split():
            delattr(module, name)
    for name in ABSENT:
        sys.modules[name] = None  # type: ignore[assignment]
    selectors.DefaultSelector = selectors.SelectSelector  # type: ignore[assignment, misc]
    asyncio.SelectorEventLoop.add_signal_handler = raise_not_implemented  # type: ignore[assignment, method-assign]


def main() -> None:
    remove_posix()
    # The folder of this file holds no package; the checkout does.
    sys.path[0] = str(Path(__file__).parents[2])
    importlib.import_module("gateway.__main__").main()


if __name__ == "__main__":
    main()
