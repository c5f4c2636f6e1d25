"""What the listener hands to the handler and gets back."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Protocol

from aiohttp import HttpVersion, HttpVersion10
from aiohttp.streams import EMPTY_PAYLOAD

from gateway.proxy.counted_body import Payload

if TYPE_CHECKING:
    from gateway.proxy.caller_connection import CallerConnection


class RequestMessage(Protocol):
    """A request's header section as aiohttp's parser gives it (its own name is two classes')."""

    @property
    def method(self) -> str:
        """As the caller wrote it."""
        ...

    @property
    def path(self) -> str:
        """The request target as the caller wrote it (RFC 9112 section 3.2)."""
        ...

    @property
    def version(self) -> HttpVersion:
        """HTTP's version."""
        ...

    @property
    def raw_headers(self) -> tuple[tuple[bytes, bytes], ...]:
        """The fields in their order, names as the caller wrote them."""
        ...

    @property
    def should_close(self) -> bool:
        """Whether the caller wants the connection to end with the answer."""
        ...

    @property
    def upgrade(self) -> bool:
        """Whether the caller asks for another protocol."""
        ...


class Unparsed:
    """Stands in the place of a message that could not be parsed, of which nothing is repeated."""

    __slots__ = (*("error", "method", "path", "raw_headers", "should_close", "upgrade", "version"),)

    def __init__(self, error: BaseException) -> None:
        self.error = error
        self.method = "UNKNOWN"
        self.path = "/"
        self.version = HttpVersion10
        self.raw_headers: tuple[tuple[bytes, bytes], ...] = ()
        self.should_close = True
        self.upgrade = False


class IncomingRequest:
    """A parsed request as the handler wants it; in the place of aiohttp's own request object."""

    __slots__ = ("connection", "message", "payload")

    def __init__(
        self, message: RequestMessage, payload: Payload, connection: CallerConnection
    ) -> None:
        self.message = message
        self.payload = connection.payload = payload
        self.connection = connection

    @property
    def has_body(self) -> bool:
        """Whether the message announced a body."""
        return self.payload is not EMPTY_PAYLOAD

    @property
    def remote(self) -> str:
        """The address of the caller's end of the connection; "unix" for a unix socket."""
        return self.connection.peer.address

    @property
    def fresh(self) -> bool:
        """Whether it is the first one on its connection."""
        return not self.connection.kept

    @property
    def scheme(self) -> str:
        """`https` when it came over TLS, else `http`."""
        return "https" if self.connection.secure else "http"


class Answered(Enum):
    """What becomes of a connection whose request was answered, as the answer itself says."""

    STAYS = "stays"
    ENDS = "ends"
