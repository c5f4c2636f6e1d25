"""What the operating system offers, asked in one place: on Windows much of POSIX is not there.

Everything here works everywhere; where the system has nothing of the kind it does the next best.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import select
import signal
import socket
import struct
import sys
import time
from array import array
from collections.abc import Callable, Mapping
from typing import Any, Final

try:
    import fcntl
    import resource
    import termios
except ImportError:
    _IS_POSIX = False
else:
    _IS_POSIX = True

# Files that several processes of one gateway write in turns, and that a second gateway finds taken.
HAS_FILE_LOCKS: Final = _IS_POSIX and hasattr(os, "memfd_create")
HAS_UNIX_SOCKETS: Final = hasattr(socket, "AF_UNIX")
# Whether a file's mode says who may read it; elsewhere access lists do.
HAS_FILE_MODES: Final = _IS_POSIX
# As many sockets as select() takes on Windows, where Python has nothing better for our loop.
_SELECTABLE: Final = 512
# Of socket(7), for which Python has no names: a filter of packets, as code of its own that is given
# the TCP header. It takes all but a SYN without ACK: load the flags, keep these two, and where only
# SYN is left give 0 bytes of the packet, else all.
_SO_ATTACH_FILTER: Final = 26
_ALL_BUT_SYN: Final = b"".join(
    struct.pack("HBBI", *step)
    for step in (
        (0x30, 0, 0, 13),
        (0x54, 0, 0, 0x12),
        (0x15, 0, 1, 0x02),
        (0x06, 0, 0, 0),
        (0x06, 0, 0, 0xFFFFFFFF),
    )
)
# Of mallopt(3): bytes at the heap's end that are kept when they are free, and from how many on a
# piece of memory is no part of the heap.
_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
# SO_LINGER that ends a connection by RST: on, for no time at all.
RESET_ON_CLOSE: Final = struct.pack("ii" if _IS_POSIX else "hh", 1, 0)


def new_event_loop() -> Callable[[], asyncio.AbstractEventLoop]:
    """uvloop's factory where there is one, else that of asyncio's loop which watches descriptors.

    Windows' default, the proactor, cannot tell when somebody waits at a listening socket.
    """
    try:
        import uvloop  # not on every platform
    except ImportError:
        return asyncio.SelectorEventLoop
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


def set_heap_trim_threshold(most: int) -> None:
    """Have the C library keep up to `most` free bytes at the heap's end for what comes next.

    glibc by itself gives back all beyond 128 KiB; the system clears each page of it anew when it is
    needed again. Elsewhere nothing happens.
    """
    # Not every Python can call C (one that was built without libffi, or may not make code as it
    # runs), and not every C library has this.
    with contextlib.suppress(ImportError, MemoryError, AttributeError, OSError, TypeError):
        import ctypes

        mallopt = ctypes.CDLL(None).mallopt
        # Each of them alone would have glibc adjust neither any more.
        mallopt(_M_MMAP_THRESHOLD, most)
        mallopt(_M_TRIM_THRESHOLD, most)


def raise_open_file_limit() -> None:
    """Allow as many open files as the system lets us: each exchange takes two."""
    if not _IS_POSIX:
        return
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def open_file_limit() -> int:
    """How many files and sockets this process may have open."""
    if not _IS_POSIX:
        return _SELECTABLE
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return allowed


def unacknowledged_bytes(connection: Any) -> int:
    """Bytes sent and not acknowledged by the other system (SIOCOUTQ of tcp(7)).

    0 where the system does not tell. Raises OSError, and ValueError for a closed socket.
    """
    if not _IS_POSIX:
        return 0
    answer = fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, bytes(4))
    return int.from_bytes(answer, sys.byteorder)


def has_failed(connection: Any) -> bool:
    """Whether the other side has reset a socket, of which nothing is read any more."""
    try:
        return bool(connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
    except (OSError, ValueError):
        return True


def readability_check(fd: int) -> Callable[[], object]:
    """What says, as often as it is called, whether something has come on a socket, be it its end.

    Something that is true or false; true also for a socket that is closed.
    """
    if not hasattr(select, "poll"):
        return lambda: fd < 0 or select.select([fd], [], [], 0)[0]
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return functools.partial(poll.poll, 0)


def wait_writable(fd: int) -> None:
    """Wait until a descriptor takes more, at most a second."""
    if not hasattr(select, "poll"):
        time.sleep(0.01)
        return
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    poll.poll(1000)


def set_address_reuse(listening: socket.socket) -> None:
    """Let an address be bound again soon after its last owner, and by nobody while it is ours."""
    if hasattr(socket, "SO_EXCLUSIVEADDRUSE"):
        # Windows lets any program share an address that was bound with SO_REUSEADDR.
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
    else:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)


def drop_new_connections(listening: socket.socket) -> None:
    """Let nobody connect any more; who has, still waits in the queue of the listening TCP socket.

    Who comes now tries again after a second and is refused, as the socket is closed by then. Where
    the system is not Linux nothing happens, and closing resets who comes in that moment. Raises
    OSError where the system permits no filter, as some Linux does to root alone.
    """
    if not hasattr(os, "memfd_create"):
        return
    code = array("B", _ALL_BUT_SYN)
    program = struct.pack("HL", len(code) // 8, code.buffer_info()[0])
    listening.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)


def on_signals(handlers: Mapping[str, Callable[[], None]]) -> None:
    """Call back in the running loop at a signal, by its name; one that is unknown here never comes.

    For the life of the process.
    """
    loop = asyncio.get_running_loop()
    known = {
        number: handler
        for name, handler in handlers.items()
        if (number := getattr(signal, name, None)) is not None
    }
    try:
        for number, handler in known.items():
            loop.add_signal_handler(number, handler)
    except NotImplementedError:
        _install_wakeup_fd(loop)
        for number, handler in known.items():
            signal.signal(number, _callback_soon(loop, handler))


def _callback_soon(
    loop: asyncio.AbstractEventLoop, handler: Callable[[], None]
) -> Callable[..., None]:
    def signalled(*_: object) -> None:
        loop.call_soon_threadsafe(handler)

    return signalled


def _install_wakeup_fd(loop: asyncio.AbstractEventLoop) -> None:
    """Python sees a signal between two steps of the program only; a loop that waits takes none."""
    ours, theirs = socket.socketpair()
    for end in (ours, theirs):
        end.setblocking(False)

    def awake() -> None:
        with contextlib.suppress(BlockingIOError):
            while ours.recv(4096):
                pass

    signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
    loop.add_reader(ours, awake)
    # The loop keeps `ours` through `awake`; the other end must live as long.
    awake.__dict__["other_end"] = theirs
