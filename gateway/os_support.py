"""Functions of the operating system in one place, because much of POSIX is missing on Windows.

Everything here works on all systems; where a function is missing, the nearest equivalent is used.
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

# Whether a file can be locked, so that a second gateway finds it in use, and flushed to the disk.
HAS_FILE_LOCKS: Final = _IS_POSIX and hasattr(os, "fdatasync")
HAS_UNIX_SOCKETS: Final = hasattr(socket, "AF_UNIX")
# Whether several processes may listen on one port and each is given its part of the connections;
# with the option of the same name other systems give all to one process.
HAS_PORT_SHARING: Final = hasattr(socket, "SO_REUSEPORT") and sys.platform == "linux"
# Whether a file's mode determines which accounts may read it; other systems use access lists.
HAS_FILE_MODES: Final = _IS_POSIX
# The number of sockets that select() takes on Windows, where Python has nothing better for the
# event loop.
_MAX_SELECT_SOCKETS: Final = 512
# From ip(7) and ipv6(7); Python has no names for them: the smallest time to live, or number of hops
# left, with which a packet is taken.
_IP_MINTTL: Final = 21
_IPV6_MINHOPCOUNT: Final = 73
_MAX_HOPS: Final = 255
# From mallopt(3): the number of free bytes kept at the end of the heap, and the size from which a
# block of memory is not part of the heap.
_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
# A value of SO_LINGER that makes close() send RST: on, with a timeout of 0.
RESET_ON_CLOSE: Final = struct.pack("ii" if _IS_POSIX else "hh", 1, 0)


def new_event_loop() -> Callable[[], asyncio.AbstractEventLoop]:
    """Return uvloop's factory where it is installed, else that of asyncio's selector loop.

    The default loop on Windows, the proactor, cannot report pending connections at a listening
    socket.
    """
    try:
        import uvloop  # missing on some systems
    except ImportError:
        return asyncio.SelectorEventLoop
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


def set_heap_trim_threshold(max_free_bytes: int) -> None:
    """Let the C library keep up to `max_free_bytes` at the end of the heap for later use.

    By default glibc returns all beyond 128 KiB, and the system clears each page when it is needed
    again. With other C libraries nothing happens.
    """
    # Not every Python can call C (one built without libffi, or without permission to generate code
    # at run time), and not every C library has mallopt.
    with contextlib.suppress(ImportError, MemoryError, AttributeError, OSError, TypeError):
        import ctypes

        mallopt = ctypes.CDLL(None).mallopt
        # Setting either of them makes glibc stop adjusting both.
        mallopt(_M_MMAP_THRESHOLD, max_free_bytes)
        mallopt(_M_TRIM_THRESHOLD, max_free_bytes)


def raise_open_file_limit() -> None:
    """Raise the limit of open files to the hard limit: each exchange needs two."""
    if not _IS_POSIX:
        return
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def open_file_limit() -> int:
    """Return the number of files and sockets that this process may have open."""
    if not _IS_POSIX:
        return _MAX_SELECT_SOCKETS
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return allowed


def unacknowledged_bytes(connection: Any) -> int:
    """Return the bytes sent and not acknowledged by the peer (SIOCOUTQ of tcp(7)).

    0 where the system does not report them. Raises OSError, and ValueError for a closed socket.
    """
    if not _IS_POSIX:
        return 0
    result = fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, bytes(4))
    return int.from_bytes(result, sys.byteorder)


def unsent_bytes(transport: asyncio.Transport) -> int:
    """Return how many bytes the peer has not acknowledged, including those in the kernel.

    Those are left out where the system does not report them, or the socket is closed.
    """
    connection, buffered = transport.get_extra_info("socket"), transport.get_write_buffer_size()
    try:
        return buffered + (0 if connection is None else unacknowledged_bytes(connection))
    except (OSError, ValueError):
        return buffered


def has_failed(connection: Any) -> bool:
    """Return whether the peer has reset a socket that is not read any more."""
    try:
        return bool(connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
    except (OSError, ValueError):
        return True


def readability_check(fd: int) -> Callable[[], object]:
    """Return a function that tests whether a socket has data or its end to read.

    It returns a true or false value; true also for a closed socket.
    """
    if not hasattr(select, "poll"):
        return lambda: fd < 0 or select.select([fd], [], [], 0)[0]
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return functools.partial(poll.poll, 0)


def write(fd: int, data: bytes | memoryview) -> int:
    """Write as much as fits, blocking, and return its size. Raises OSError.

    Waits also where another process has made the open file description non-blocking.
    """
    while True:
        try:
            return os.write(fd, data)
        except BlockingIOError:
            _wait_writable(fd)


def _wait_writable(fd: int) -> None:
    """Wait until a descriptor is writable, at most one second."""
    if not hasattr(select, "poll"):
        time.sleep(0.01)
        return
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    poll.poll(1000)


def is_there(path: os.PathLike[str]) -> bool:
    """Return whether a file or folder is there. Raises OSError if that cannot be examined.

    `Path.exists` hides such errors since Python 3.14.
    """
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def lock_file(descriptor: int) -> None:
    """Lock a file for this process until the descriptor is closed; needs `HAS_FILE_LOCKS`.

    Raises BlockingIOError where another process has locked it.
    """
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def set_address_reuse(listening: socket.socket) -> None:
    """Allow binding an address again soon after it was closed, but not while it is in use."""
    if hasattr(socket, "SO_EXCLUSIVEADDRUSE"):
        # Windows lets any program share an address that was bound with SO_REUSEADDR.
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
    else:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)


def share_port(listening: socket.socket) -> None:
    """Allow processes of the same user that do this, too, to listen on the same port."""
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)


def drop_new_connections(listening: socket.socket) -> None:
    """Drop new SYN packets at a listening TCP socket; connections in its accept queue stay.

    A client whose SYN was dropped sends it again after a second. The socket is closed by then: the
    client reaches another process that shares the port, or is refused. Packets with the largest
    time to live are not dropped; hardly a system sends them. `take_all_packets` is for connections
    that the socket accepts afterwards. On other systems than Linux nothing happens, and closing
    resets clients that connect at that moment. Raises OSError where the system cannot do it.

    A packet filter would need a privilege on some systems, and a program for the group of sockets
    (SO_ATTACH_REUSEPORT_CBPF) names a socket by a position that no process knows of its own.
    """
    _require_hops(listening, _MAX_HOPS)


def take_all_packets(connection: socket.socket) -> None:
    """Undo `drop_new_connections` for a connection, which has it from the listening socket."""
    with contextlib.suppress(OSError):
        _require_hops(connection, 0)


def _require_hops(sock: socket.socket, hops: int) -> None:
    if not hasattr(os, "memfd_create"):
        return
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_MINHOPCOUNT, hops)
    else:
        sock.setsockopt(socket.IPPROTO_IP, _IP_MINTTL, hops)


def on_signals(handlers: Mapping[str, Callable[[], object]]) -> None:
    """Call handlers in the running loop at signals, given by name, for the life of the process.

    Names that this system does not know are ignored.
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
            signal.signal(number, functools.partial(_call_soon, loop, handler))


def _call_soon(loop: asyncio.AbstractEventLoop, handler: Callable[[], object], *_: object) -> None:
    loop.call_soon_threadsafe(handler)


def _install_wakeup_fd(loop: asyncio.AbstractEventLoop) -> None:
    """Wake the loop at a signal.

    Python runs signal handlers between two bytecode instructions only, and so not while the loop
    waits.
    """
    read_end, write_end = socket.socketpair()
    for end in (read_end, write_end):
        end.setblocking(False)

    def drain() -> None:
        with contextlib.suppress(BlockingIOError):
            while read_end.recv(4096):
                pass

    signal.set_wakeup_fd(write_end.fileno(), warn_on_full_buffer=False)
    loop.add_reader(read_end, drain)
    # The loop references `read_end` through `drain`; the other end must live as long.
    drain.__dict__["other_end"] = write_end
