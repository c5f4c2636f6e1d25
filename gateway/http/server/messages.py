"""Header sections of requests, and what happens to a connection after a response."""

from __future__ import annotations

from enum import Enum

from gateway.http.server.aiohttp_parser import HttpVersion, HttpVersion10, ParsedMessage


class RequestMessage:
    """The request line and the header section of a request, whether parsed or cached."""

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
        """Return a copy of the parser's message."""
        return RequestMessage(
            parsed.method,
            parsed.path,
            parsed.version,
            parsed.raw_headers,
            should_close=parsed.should_close,
            upgrade=parsed.upgrade,
        )


class RepeatedMessage(RequestMessage):
    """A message that was not parsed: a copy of the parsed message `first` with another target."""

    __slots__ = ()

    def __init__(self, first: RequestMessage, path: str) -> None:
        super().__init__(
            first.method, path, first.version, first.raw_headers, should_close=first.should_close
        )


class MalformedMessage(RequestMessage):
    """Replaces a message that could not be parsed, and contains nothing of it.

    `error` is the parser's exception, or the `GatewayError` to respond with.
    """

    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        super().__init__("UNKNOWN", "/", HttpVersion10, (), should_close=True)
        self.error = error


class ConnectionDisposition(Enum):
    """What happens to a connection after a response, as the response itself declares."""

    KEEP_ALIVE = "stays"
    CLOSE = "ends"
