"""What comes on a caller's connection: aiohttp parses it, messages wait in a queue.

The bytes of a long body of known length do not pass the parser: they are counted.
"""

from __future__ import annotations

from typing import Any, Final

from aiohttp.http import HttpRequestParser
from aiohttp.streams import EMPTY_PAYLOAD
from aiohttp.web_protocol import RequestHandler, RequestPayloadError, _ErrInfo

from gateway.proxy.counted_body import CountedBody, Payload
from gateway.proxy.incoming import RequestMessage

# Requests that were sent ahead: more are not read before these have been answered.
_MOST_QUEUED: Final = 4
# A parser that has found so many goes on when it is told to, which only happens when the queue was
# full. It counts one too many where a request was taken before its body had ended.
_MOST_PARSED: Final = _MOST_QUEUED + 1
# Bytes. So much of a header tells why it was refused.
_LOOKED_AT: Final = 64
# Bytes. A body of which less is still to come is not worth another parser.
_WORTH_COUNTING: Final = 64 * 1024


class MessageQueue(RequestHandler):
    """The reading half of a caller's connection, as asyncio calls it."""

    __slots__ = ("_counted", "_discarding", "_head_bytes", "_header_since", "payload")

    def __init__(self, server: Any, **options: Any) -> None:
        super().__init__(server, **options)
        # aiohttp would queue so many that their headers alone could fill the memory.
        self._max_msg_queue_size = _MOST_QUEUED
        self._msg_queue_resume_size = _MOST_QUEUED // 2
        self._counted: CountedBody | None = None
        self._header_since: float | None = None
        self._head_bytes = b""
        self._discarding = False
        # Of the request under way.
        self.payload: Payload = EMPTY_PAYLOAD

    @property
    def busy(self) -> bool:
        """Whether an exchange is under way."""
        return self._request_in_progress

    def data_received(self, data: bytes) -> None:
        """Parse, and note since when a header is incomplete."""
        if self._discarding:
            return
        if self._counted is not None:
            # The proactor of Windows brings bytearrays; bytes become bytes without a copy.
            data = self._counted.feed(bytes(data))
            if not self._counted.is_eof():
                return
            # The one before waits for the body's end, of which it was told nothing.
            self._counted, self._parser = None, self._another_parser()
        # These may be the rest of a body, which has its own clock.
        in_body = not self.payload.is_eof()
        super().data_received(data)
        if self._messages:
            self._look_at_last_message(data)
        if in_body or self._messages or self._request_in_progress:
            self._header_since = None
        elif data and self._header_since is None:
            self._header_since = self._loop.time()
            self._head_bytes = data[:_LOOKED_AT]

    def _look_at_last_message(self, data: bytes) -> None:
        message, payload = self._messages[-1]
        if isinstance(message, _ErrInfo):
            if self._header_since is None:
                self._head_bytes = data[:_LOOKED_AT]
            self._break_body()
        elif not payload.is_eof():
            # Which the parser has found to be a number, and the only framing.
            length = int(message.headers.get("Content-Length", 0))
            if length - payload.total_bytes > _WORTH_COUNTING:
                self._count(length, message, payload)

    def _count(self, length: int, message: RequestMessage, begun: Payload) -> None:
        """From here on the message's body, of which some came with the header, is counted."""
        # Before that is read: reading has what the parser may have kept fed again.
        self._counted = CountedBody(length, self)
        # Nobody but this class and its own looks into the queue.
        self._messages[-1] = (message, self._counted)  # type: ignore[assignment]
        self._counted.feed(begun.read_nowait(-1))

    def _another_parser(self) -> HttpRequestParser:
        """One as aiohttp made it for this connection."""
        return HttpRequestParser(
            self,
            self._loop,
            self._read_bufsize,
            max_line_size=self.max_line_size,
            max_field_size=self.max_field_size,
            max_headers=self.max_headers,
            payload_exception=RequestPayloadError,
            auto_decompress=False,
            max_msg_queue_size=_MOST_PARSED,
        )

    def hold_back(self) -> None:
        """Read no more of a counted body for now."""
        self._reading_paused = True
        self._pause_transport_reading()

    def read_on(self) -> None:
        """Read again."""
        self.resume_reading(resume_parser=False)

    def _break_body(self) -> None:
        """Tell who reads the body in which the parser failed; aiohttp leaves it waiting."""
        for payload in (self.payload, *(payload for _, payload in self._messages)):
            if not payload.is_eof():
                payload.set_exception(RequestPayloadError("broken"))

    async def _next_message(self) -> None:
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _take_message(self) -> tuple[RequestMessage | _ErrInfo, Payload]:
        """The next message; the parser learns that there is room for another."""
        taken = self._messages.popleft()
        if self._parser is not None:
            self._parser.message_consumed()
        if self._buffer_paused and len(self._messages) <= self._msg_queue_resume_size:
            self._resume_reading_if_drained()
        return taken

    def overdue(self, now: float, header_timeout: float) -> bool:
        """Whether a header has been incomplete for too long."""
        since = self._header_since
        return since is not None and not self.busy and now - since > header_timeout
