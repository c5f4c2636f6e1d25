"""Listening sockets: bound, protected against a second process, and removed at the end."""

from __future__ import annotations

import asyncio
import errno
import socket
import stat
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gateway import os_support
from gateway.config.sources import variable_name
from gateway.config.value_types import ListenAddress
from gateway.errors import StartError
from gateway.i18n import Message, exception_message, join_messages, system_error
from gateway.telemetry.logs import get_logger

_log = get_logger(__name__)

BACKLOG: Final = 1024
# Bytes, which Linux doubles. By default Linux buffers megabytes for each caller that reads slowly,
# and hundreds of such callers at once would occupy the event loop for a second.
_SEND_BUFFER: Final = 128 * 1024
_UNIX_MODE: Final = 0o660


class ListeningSockets:
    """The sockets of one address; `address` has the actual port.

    `sockets` are non-blocking and listen, on a shared port after `open`. `remove_path` removes a
    unix socket's path, unless another process has put its own socket there.
    """

    def __init__(self, address: ListenAddress, sockets: Sequence[socket.socket]) -> None:
        self.sockets = tuple(sockets)
        self.address = _actual_address(address, self.sockets)
        self._identity = None if address.path is None else _identity(Path(address.path))

    def open(self) -> None:
        """Listen, on a port that is shared, too: from now on this process is given connections.

        Raises `ListenError`: between `listen` and this, another process may have got the port.
        """
        if self.address.path is not None:
            return
        try:
            for sock in self.sockets:
                sock.listen(BACKLOG)
        except OSError as error:
            raise ListenError([ListenFailure.of("listen.address", self.address, error)]) from None

    def close(self) -> None:
        """Stop listening; the path stays."""
        for sock in self.sockets:
            sock.close()

    def remove_path(self) -> None:
        """Remove a unix socket's path if it still leads to this socket."""
        if self.address.path is None:
            return
        path = Path(self.address.path)
        if self._identity is not None and _identity(path) == self._identity:
            path.unlink(missing_ok=True)

    def stop_accepting(self) -> None:
        """Drop new connection attempts before the remaining ones are accepted.

        Closing the socket would reset connections that are established but not accepted yet.
        """
        self.remove_path()
        if self.address.path is not None:
            return
        try:
            for sock in self.sockets:
                os_support.drop_new_connections(sock)
        except OSError as error:
            _log.warning(
                "a caller that connects to %s in the moment in which it closes is reset instead of"
                " refused: the system cannot drop its packets (%s)",
                self.address,
                error.strerror,
            )


@dataclass(frozen=True, slots=True)
class ListenFailure:
    """An address that cannot be listened on, the setting that names it, and the reason."""

    key: str
    address: ListenAddress
    problem: Message

    @classmethod
    def of(cls, key: str, address: ListenAddress, error: OSError) -> ListenFailure:
        """Return the failure with the reason that the system gives."""
        return cls(key, address, system_error(error, exception_message(error)))

    def line(self) -> Message:
        """Return the message for the operator."""
        return Message(
            "{key}: cannot listen on {address}: {why}; set {key} or {variable}",
            key=self.key,
            address=self.address,
            why=self.problem,
            variable=variable_name(tuple(self.key.split("."))),
        )


class ListenError(StartError):
    """Some addresses cannot be listened on; the text has one line for each."""

    def __init__(self, refused: Iterable[ListenFailure]) -> None:
        self.failures = tuple(refused)
        super().__init__(join_messages("\n", (failure.line() for failure in self.failures)))


async def listen(
    addresses: Mapping[str, ListenAddress], *, shared_ports: Container[str] = ()
) -> list[ListeningSockets]:
    """Listen on addresses of the settings, given by key; the result has their order.

    Other processes that do the same may listen on the ports of the keys in `shared_ports`. Raises
    `ListenError` with every address that failed; then nothing listens.
    """
    found: list[ListeningSockets] = []
    refused: list[ListenFailure] = []
    for key, address in addresses.items():
        try:
            if address.path is None:
                sockets = await _listen_tcp(address, is_shared=key in shared_ports)
            else:
                sockets = [_listen_unix(Path(address.path))]
            found.append(ListeningSockets(address, sockets))
        except OSError as error:
            refused.append(ListenFailure.of(key, address, error))
    if refused:
        for listening in found:
            listening.close()
            listening.remove_path()
        raise ListenError(refused)
    return found


_ABSENT: Final = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)


async def _listen_tcp(address: ListenAddress, *, is_shared: bool) -> list[socket.socket]:
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(
        address.host or None, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    sockets: list[socket.socket] = []
    failure: OSError | None = None
    for family, _, protocol, _, socket_address in dict.fromkeys(found):
        try:
            sockets.append(_listen_inet(family, protocol, socket_address, is_shared=is_shared))
        except OSError as error:
            failure = error
    # A name such as localhost may stand for an address family that this machine does not have.
    if failure is not None and not (sockets and failure.errno in _ABSENT):
        for sock in sockets:
            sock.close()
        raise failure
    return sockets


def _listen_inet(
    family: int, protocol: int, socket_address: object, *, is_shared: bool
) -> socket.socket:
    listening = socket.socket(family, socket.SOCK_STREAM, protocol)
    try:
        os_support.set_address_reuse(listening)
        if is_shared:
            os_support.share_port(listening)
        if family == socket.AF_INET6:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        # Accepted connections inherit it.
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
        listening.bind(socket_address)  # type: ignore[arg-type]
        # On a shared port, a start that fails or takes long must not hold callers' connections.
        if not is_shared:
            listening.listen(BACKLOG)
        listening.setblocking(False)
    except BaseException:
        listening.close()
        raise
    return listening


def _listen_unix(path: Path) -> socket.socket:
    if is_stale_socket(path):
        path.unlink(missing_ok=True)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listening.bind(str(path))
        # No connection is possible before it listens, so that the mode is never too wide.
        path.chmod(_UNIX_MODE)
        listening.listen(BACKLOG)
        listening.setblocking(False)
    except BaseException:
        listening.close()
        raise
    return listening


def is_stale_socket(path: Path) -> bool:
    """Return whether there is a socket that no process listens on any more.

    Raises OSError where a process listens, or where the file is no socket.
    """
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return False
    if not stat.S_ISSOCK(mode):
        raise OSError(Message("a file that is not a socket has this path"))
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return True
        except FileNotFoundError:
            return False
        except TimeoutError:
            pass
    raise OSError(Message("another process listens there"))


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.lstat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _actual_address(address: ListenAddress, sockets: Sequence[socket.socket]) -> ListenAddress:
    """Return the address with the port that the system chose, where port 0 was configured."""
    if address.path is not None or address.port:
        return address
    return ListenAddress(host=address.host, port=int(sockets[0].getsockname()[1]))
