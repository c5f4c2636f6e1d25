"""Header sections of requests, and what becomes of the connection of one that was answered."""

from __future__ import annotations

from enum import Enum

from gateway.http.server.aiohttp_parser import HttpVersion, HttpVersion10, ParsedMessage


class RequestMessage:
    """A request's header section: the same, wherever it came from."""

    __slots__ = ("method", "path", "raw_headers", "should_close", "upgrade", "version")

    def __init__(
        self,
        method: str,
        path: str,
        version: HttpVersion,
        raw_headers: tuple[tuple[bytes, bytes], ...],
        *,
        should_close: bool,
        upgrade: bool = False,
    ) -> None:
        self.method = method
        self.path = path
        self.version = version
        self.raw_headers = raw_headers
        self.should_close = should_close
        self.upgrade = upgrade

    @classmethod
    def from_parsed(cls, parsed: ParsedMessage) -> RequestMessage:
        """What the parser found."""
        return RequestMessage(
            parsed.method,
            parsed.path,
            parsed.version,
            parsed.raw_headers,
            should_close=parsed.should_close,
            upgrade=parsed.upgrade,
        )


class RepeatedMessage(RequestMessage):
    """One that the parser did not see: `first`, which it did, with another target."""

    __slots__ = ()

    def __init__(self, first: RequestMessage, path: str) -> None:
        super().__init__(
            first.method, path, first.version, first.raw_headers, should_close=first.should_close
        )


class MalformedMessage(RequestMessage):
    """Stands in the place of a message that could not be parsed, of which nothing is repeated."""

    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        super().__init__("UNKNOWN", "/", HttpVersion10, (), should_close=True)
        self.error = error


class ConnectionDisposition(Enum):
    """What becomes of a connection whose request was answered, as the answer itself says."""

    KEEP_ALIVE = "stays"
    CLOSE = "ends"
