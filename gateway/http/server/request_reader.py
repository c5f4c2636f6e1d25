"""The reading half of a caller's connection: aiohttp's parser parses the data, messages are queued.

Two kinds of data bypass the parser: the bytes of a long body of known length, which are counted,
and reads whose fields are those of the read before.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Final

from gateway.http.server.request_parser import (
    EMPTY_PAYLOAD,
    HttpProcessingError,
    MalformedMessage,
    RepeatedHeaderCache,
    RepeatedMessage,
    RequestMessage,
    ends_with_header,
    new_request_parser,
)
from gateway.http.server.request_payload import FixedLengthBody, RequestFramingError

if TYPE_CHECKING:
    from gateway.config.inbound_settings import LimitsSettings
    from gateway.http.server.request_parser import RequestParser
    from gateway.http.server.request_payload import Payload

# Pipelined requests. Reading pauses at the first number of queued requests and resumes at the
# second: without a limit their headers alone could fill the memory.
_MAX_QUEUED_MESSAGES: Final = 4
_LOW_QUEUED_MESSAGES: Final = 2
# Bytes of a header that are retained to find out why the parser rejected it.
_ERROR_PREFIX_BYTES: Final = 64
# Bytes. For a body of which less is still to come, counting is not worth the new parser after it.
_MIN_FIXED_LENGTH_BYTES: Final = 64 * 1024
_EMPTY_LINE: Final = b"\r\n\r\n"


class MessageReader:
    """The reading half of a caller's connection, called by the event loop and aiohttp's streams."""

    __slots__ = (
        *("_at_start", "_unparsed", "_counted", "_discarding", "_edge", "_ended", "_head_bytes"),
        *("_header_since", "_is_input_ignored", "_is_full", "_is_upgrade", "_limits", "_loop"),
        *("_messages", "_parser", "_reading_paused", "_repeated", "_waiter"),
        *("busy", "payload", "transport"),
    )

    def __init__(self, limits: LimitsSettings) -> None:
        self._loop = asyncio.get_running_loop()
        self._limits = limits
        self._parser: RequestParser | None = self._new_parser()
        self._at_start = True  # whether the parser is certainly at the beginning of a message
        self._edge = b""  # the last three bytes that the parser was given
        self._unparsed = b""  # data for the parser when the queue and the body have room
        self._repeated = RepeatedHeaderCache(limits.max_url_bytes)
        self._messages: deque[tuple[RequestMessage, Payload]] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._counted: FixedLengthBody | None = None
        self._header_since: float | None = None
        self._head_bytes = b""
        self._is_full = False  # whether the queue has reached its limit, so that reading pauses
        self._reading_paused = False  # by a body that is not consumed
        self._is_upgrade = False  # whether the last request whose header ended has an Upgrade
        self._is_input_ignored = False  # because nothing that follows can be a request
        self._discarding = False
        self._ended = False  # whether no further request is served
        self.transport: asyncio.Transport | None = None
        # Whether an exchange is running, and the body of its request.
        self.busy = False
        self.payload: Payload = EMPTY_PAYLOAD

    @property
    def connected(self) -> bool:
        """Whether more data may arrive (aiohttp's StreamReader)."""
        return self.transport is not None

    def data_received(self, data: bytes) -> None:
        """Parse the data and record since when a header is incomplete (asyncio.Protocol)."""
        if self._discarding:
            return
        if self._at_start and not (self._messages or self._ended or self._is_input_ignored):
            repeated = self._repeated.match(data)
            if repeated is not None:
                self._receive(repeated, EMPTY_PAYLOAD)
                return
        if not data and self._counted is None:
            # The bytes that the parser has retained come first.
            self._read_chunk(data)
        # The proactor event loop of Windows delivers bytearrays. For bytes there is no copy.
        data, in_chunks, at = bytes(data), False, 0
        if self._unparsed:
            data, self._unparsed, in_chunks = self._unparsed + data, b"", True
        while at < len(data):
            if in_chunks and (self._is_full or self._reading_paused):
                self._unparsed = data[at:]
                return
            if self._counted is not None:
                at = self._feed_fixed_length(self._counted, data, at)
                continue
            end = self._next_empty_line(data, at)
            if end < len(data) and not in_chunks:
                in_chunks = self._may_be_upgrade(data, at)
                end = end if in_chunks else len(data)
            chunk = data if end - at == len(data) else data[at:end]
            self._edge = (self._edge + chunk[-3:])[-3:]
            self._read_chunk(chunk)
            at = end

    def _feed_fixed_length(self, body: FixedLengthBody, data: bytes, at: int) -> int:
        """Feed a counted body; return the offset in `data` at which the body's bytes end."""
        rest = body.feed(data[at:])
        if body.is_eof():
            # The old parser still waits for the body, whose bytes it was not given.
            self._counted, self._parser, self._edge = None, self._new_parser(), b""
        return len(data) - len(rest)

    def _may_be_upgrade(self, data: bytes, at: int) -> bool:
        """Return whether a request with an Upgrade field may end in `data` from offset `at` on.

        The parser drops the bytes after the end of such a request if it is given both at once. The
        request ends with an empty line, like all whose body is not counted.
        """
        is_possible = self._is_upgrade if self._is_in_body else not self._at_start
        return is_possible or b"upgrade" in data[at:].lower()

    def _next_empty_line(self, data: bytes, at: int) -> int:
        """Return the offset after the next empty line, which may begin in the data before.

        Without an empty line that is the end of the data.
        """
        edge = self._edge
        seam = (edge + data[at : at + 3]).find(_EMPTY_LINE)
        if seam >= 0:
            return at + seam + len(_EMPTY_LINE) - len(edge)
        found = data.find(_EMPTY_LINE, at)
        return len(data) if found < 0 else found + len(_EMPTY_LINE)

    def _read_chunk(self, data: bytes) -> None:
        if self._parser is None or self._ended or self._is_input_ignored:
            return
        # The bytes may be the rest of a body, which has a timeout of its own.
        in_body = self._is_in_body
        header_ended = self._parse(self._parser, data)
        if self._messages:
            self._inspect_last_message(data)
        if not (header_ended or in_body) and data and self._header_since is None:
            self._begin_header(data)

    def _begin_header(self, data: bytes) -> None:
        # Some callers send an empty line after a request (RFC 9112 section 2.2).
        if not (self.busy or self._messages) or data.strip(b"\r\n"):
            self._header_since = self._loop.time()
            self._head_bytes = data[:_ERROR_PREFIX_BYTES]

    def _parse(self, parser: RequestParser, data: bytes) -> bool:
        """Parse the data; return whether a header ended or was rejected."""
        was_at_start, self._at_start = self._at_start, False
        try:
            parsed, switched, _ = parser.feed_data(data)
        except HttpProcessingError as error:
            # Without its traceback the error is in no reference cycle with this frame.
            self._is_input_ignored = True
            self._receive(MalformedMessage(error.with_traceback(None)), EMPTY_PAYLOAD)
            return True
        if switched:
            # An Upgrade is ignored (RFC 9110 section 7.8). The protocol after a CONNECT is unknown.
            parser.set_upgraded(False)
            self._is_input_ignored = bool(parsed) and parsed[-1][0].method == "CONNECT"
        if not parsed:
            return False
        for message, payload in parsed:
            self._receive(RequestMessage.from_parsed(message), payload)
        last, payload = self._messages[-1]
        self._is_upgrade = last.upgrade
        ended = data.endswith(_EMPTY_LINE)
        if ended or payload is not EMPTY_PAYLOAD:
            self._header_since = None
        else:
            self._note_pipelined_start(data)
        # With a full queue the parser may hold bytes that it has not parsed.
        if ended and not self._is_full and ends_with_header(last):
            self._at_start = True
            if was_at_start and len(parsed) == 1:
                self._repeated.store(data, last)
        return True

    def _note_pipelined_start(self, data: bytes) -> None:
        """Record a header that begins after a request without a body, the last one in `data`."""
        if not data:
            # The parser had held the message back; its bytes were examined when they arrived.
            return
        # An empty line (CRLFCRLF) may be split over two reads.
        header_start = data.rpartition(_EMPTY_LINE)[2].lstrip(b"\r\n")
        self._header_since = self._loop.time() if header_start else None
        self._head_bytes = header_start[:_ERROR_PREFIX_BYTES]

    def _receive(self, message: RequestMessage, payload: Payload) -> None:
        self._messages.append((message, payload))
        # If other messages are queued, the task waits for the scheduler and not for a message.
        if self._waiter is not None and not self._waiter.done() and len(self._messages) == 1:
            self._waiter.set_result(None)
        if len(self._messages) >= _MAX_QUEUED_MESSAGES and not self._is_full:
            self._is_full = True
            self._pause_transport()

    def _inspect_last_message(self, data: bytes) -> None:
        message, payload = self._messages[-1]
        if isinstance(message, MalformedMessage):
            if self._header_since is None:
                self._head_bytes = data[:_ERROR_PREFIX_BYTES]
            self._header_since = None
            self._fail_malformed_body()
        elif payload is not EMPTY_PAYLOAD and not payload.is_eof():
            length = _announced_length(message)
            if length and (
                message.upgrade or length - payload.total_bytes > _MIN_FIXED_LENGTH_BYTES
            ):
                self._start_fixed_length(length, message, payload)

    def _start_fixed_length(
        self, length: int, message: RequestMessage, parsed_body: Payload
    ) -> None:
        """Count the message's body from here on; `parsed_body` is what arrived with the header."""
        # Set before `read_nowait`, which resumes reading, so that `data_received` is called.
        self._counted = FixedLengthBody(length, self)
        # The message is still in the queue, so that its body can be replaced.
        self._messages[-1] = (message, self._counted)
        self._counted.feed(parsed_body.read_nowait(-1))

    def _new_parser(self) -> RequestParser:
        limits = self._limits
        return new_request_parser(
            self,
            self._loop,
            url_bytes=limits.max_url_bytes,
            header_bytes=limits.max_header_bytes,
            headers=limits.max_headers,
            max_read_ahead=_MAX_QUEUED_MESSAGES,
        )

    def pause_reading(self) -> None:
        """Pause because too much of a body is buffered (aiohttp's StreamReader)."""
        if self._parser is not None and not self._is_input_ignored:
            self._parser.pause_reading()
        self.pause_body()

    def resume_reading(self, resume_parser: bool = True) -> None:
        """Resume because enough of a body was consumed (aiohttp's StreamReader).

        Bytes that the parser has retained are parsed first.
        """
        self._reading_paused = False
        if resume_parser or self._unparsed:
            self.data_received(b"")
        # The bytes that were parsed may have paused the body again.
        if not self._reading_paused and not self._is_full:
            self._resume_transport()

    def pause_body(self) -> None:
        """Pause reading for a counted body."""
        self._reading_paused = True
        self._pause_transport()

    def resume_body(self) -> None:
        """Resume reading for a counted body."""
        self.resume_reading(resume_parser=False)

    def _pause_transport(self) -> None:
        if self.transport is not None and not self.transport.is_closing():
            self.transport.pause_reading()

    def _resume_transport(self) -> None:
        if self.transport is not None and not self.transport.is_closing():
            self.transport.resume_reading()

    def _fail_malformed_body(self) -> None:
        """Fail the body in which the parser failed; aiohttp would leave its reader waiting."""
        for payload in (self.payload, *(payload for _, payload in self._messages)):
            if not payload.is_eof():
                payload.set_exception(RequestFramingError("broken"))

    def _fail_body(self, error: BaseException) -> None:
        """Let the reader of the current request's body fail with `error` if it is incomplete."""
        # A complete body is not lost with the connection: a write is still carried out.
        if self.busy and not self.payload.is_eof():
            self.payload.set_exception(error)

    def _detach(self) -> None:
        """Release what refers back to this connection, which is lost."""
        self._fail_body(ConnectionResetError("connection lost"))
        self._parser = self._counted = None
        self._unparsed = b""
        self._messages.clear()
        if not self.busy:
            self._release_body()

    def _has_complete_request(self) -> bool:
        """Return whether a request has arrived completely; drop an incomplete one after it."""
        payloads = [payload for _, payload in self._messages]
        if self.busy:
            payloads.insert(0, self.payload)
        if not payloads or not payloads[0].is_eof():
            return False
        if not payloads[-1].is_eof():
            self._messages.pop()
        return True

    def _release_body(self) -> None:
        """Release the last request's body, and the frames that the traceback of its error holds."""
        error = self.payload.exception()
        if error is not None:
            error.__traceback__ = None
        self.payload = EMPTY_PAYLOAD

    def _message_event(self) -> asyncio.Future[None]:
        """Return a future that completes when a message arrives."""
        self._waiter = self._loop.create_future()
        return self._waiter

    def _take_message(self) -> tuple[RequestMessage, Payload]:
        """Take the next message from the queue and let the parser parse one more."""
        taken = self._messages.popleft()
        if self._parser is not None and not isinstance(taken[0], RepeatedMessage):
            self._parser.message_consumed()
        if self._is_full and len(self._messages) <= _LOW_QUEUED_MESSAGES:
            self._is_full = False
            self.data_received(b"")
            if not (self._is_full or self._reading_paused):
                self._resume_transport()
        return taken

    @property
    def _is_in_body(self) -> bool:
        """Whether the body of the last request has not ended."""
        payload = self._messages[-1][1] if self._messages else self.payload
        return payload is not EMPTY_PAYLOAD and not payload.is_eof()

    @property
    def _is_quiescent(self) -> bool:
        """Whether no request is running or queued and none has begun to arrive."""
        return not (self.busy or self._messages) and self._header_since is None


def _announced_length(message: RequestMessage) -> int:
    """Return the value of Content-Length, 0 without one.

    The parser has verified that it is a number and the only framing.
    """
    for name, value in message.raw_headers:
        if name.lower() == b"content-length":
            return int(value)
    return 0
