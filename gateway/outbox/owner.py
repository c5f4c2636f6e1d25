"""The name of a process that holds leases, by which others on its machine see that it is dead."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path
from typing import Final

_PROC: Final = Path("/proc")
_BOOT: Final = _PROC / "sys/kernel/random/boot_id"
_PID_NAMESPACE: Final = "self/ns/pid"
_RANDOM_BYTES: Final = 4
# The index of a process's start time among the fields behind its name in /proc/PID/stat, see
# proc(5). Index 0 is its state.
_START: Final = 19
_ENDED: Final = frozenset("ZX")


def current_owner() -> str:
    """Return `boot.pid_namespace.pid.start.random`, or the random part alone without /proc.

    The random part distinguishes several owners in one process.
    """
    random_part = secrets.token_hex(_RANDOM_BYTES)
    boot_and_namespace = _boot_and_pid_namespace()
    start = _process_start_time(os.getpid())
    if boot_and_namespace is None or not start:
        return random_part
    return f"{boot_and_namespace}.{os.getpid()}.{start}.{random_part}"


def is_owner_dead(owner: str) -> bool:
    """Return whether the process of that name has ended; False where that is unknown here."""
    boot, _, rest = owner.partition(".")
    boot_and_namespace = _boot_and_pid_namespace()
    if not rest or boot_and_namespace is None:
        return False
    this_boot, _, this_namespace = boot_and_namespace.partition(".")
    if boot != this_boot:
        return True
    namespace, pid, start, _ = rest.split(".")
    # In another container the same PID may be another process.
    return namespace == this_namespace and _process_start_time(int(pid)) not in (start, "")


def _boot_and_pid_namespace() -> str | None:
    """Return the boot id and the PID namespace; None where the system does not show them."""
    with contextlib.suppress(OSError):
        boot = _BOOT.read_text("ascii").strip().replace("-", "")[:16]
        namespace = "".join(filter(str.isdigit, os.readlink(_PROC / _PID_NAMESPACE)))
        return f"{boot}.{namespace}"
    return None


def _process_start_time(pid: int) -> str | None:
    """Return the start time of a process in clock ticks since boot.

    None when it has ended, "" where the start time is unknown.
    """
    try:
        text = (_PROC / str(pid) / "stat").read_text("ascii", "replace")
    except (FileNotFoundError, ProcessLookupError):
        return "" if _process_exists(pid) else None
    except OSError:
        return ""
    fields = text.rpartition(")")[2].split()
    return None if fields[0] in _ENDED else fields[_START]


def _process_exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
