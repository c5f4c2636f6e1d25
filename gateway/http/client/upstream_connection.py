"""One HTTP/1.1 connection to the platform: a client protocol on llhttp's strict response parser.

It sends what it is given and reports exactly what came back: whether any byte of a response was
received, how the response was framed, whether it ended as announced. It never retries, follows no
redirect and never guesses (RFC 9112 sections 6 to 9). The pool decides how long it is used.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, cast

import httptools

from gateway import os_support
from gateway.http.client.response_head import (
    MAX_OVERHEAD,
    FailureKind,
    Framing,
    ResponseFields,
    ResponseHead,
    UpstreamConnectionError,
    determine_framing,
    exceeds_header_limits,
)
from gateway.http.client.tls_transport import (
    BoundedReadProtocol,
    ClientCertificateRejectedError,
    TlsTransport,
)
from gateway.http.write_batching import MAX_BATCHED_BYTES, WriteBatcher

_NO_DEADLINE: Final = float("inf")


_MAX_INTERIM_RESPONSES: Final = 20
# Bytes. Reading pauses when this much of a body is buffered, and resumes when its consumer reads: a
# caller that reads nothing occupies the memory of no more than two reads.
_HIGH_WATER: Final = 64 * 1024


class UpstreamConnection(BoundedReadProtocol):
    """A connection that carries one exchange after the other.

    An exchange calls `start_exchange`, `write`, `head` after each `next_event`, then `read` until
    it returns nothing. It ends with `UpstreamConnectionError` when the connection fails or
    `deadline` passes, which the pool's sweep enforces. A request that is written in several parts
    begins with `is_streamed=True` and ends with `mark_body_sent`: a response that arrives in
    between is the connection's last one. Nothing is sent on a reused connection on which data
    arrived since its last exchange. `clock` is monotonic, the timeouts are in seconds.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        on_lost: Callable[[UpstreamConnection], None],
        *,
        response_timeout: float,
        idle_timeout: float,
        batching: WriteBatcher,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self.clock = clock
        self._response_timeout = response_timeout
        self._batching = batching
        self.transport: asyncio.Transport | TlsTransport | None = None
        # Returns whether data can be read; None where there is no socket.
        self._has_data: Callable[[], object] | None = None
        self.deadline = _NO_DEADLINE
        self.failure: FailureKind | None = None
        # Whether the connection is reused and nothing of the current request has been sent yet.
        self._is_unsent = False
        self._held_request = b""
        self._write_paused = False
        self._drained: asyncio.Future[None] | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._on_lost = on_lost
        self._idle_timeout = idle_timeout
        # State of the connection.
        self.opened_at = clock()
        self.exchange_count = 0
        # Until when it may be used again.
        self.idle_until = self.opened_at
        # Chunks of a body, and their bytes. If some are left after an exchange, the connection is
        # not reused.
        self._chunks: list[bytes] = []
        self._buffered = 0
        # A parser whose message has ended, for the next exchange.
        self._spare_parser: httptools.HttpResponseParser | None = None
        # State of one exchange.
        self._parser: httptools.HttpResponseParser | None = None
        self._reset(expect_body=True, has_body=False)

    def _reset(self, *, expect_body: bool, has_body: bool) -> None:
        self.response_head: ResponseHead | None = None
        self.complete = False
        self.started = self._usual = self._sending = False
        self._expect_body = expect_body
        self._has_body = has_body
        self._fields = ResponseFields()
        self._overhead = self._interim = self._body_size = 0
        self._in_interim = False
        self._surplus = False
        self._body_bytes_left: int | None = None
        self._keep_alive, self._parsed, self._reading_paused = False, False, False
        self._waiter = None

    # Sending.

    def connection_made(self, transport: asyncio.BaseTransport | TlsTransport) -> None:
        self.transport = cast("asyncio.Transport | TlsTransport", transport)
        raw = transport.get_extra_info("socket")
        if raw is not None:
            self._has_data = os_support.readability_check(raw.fileno())

    def write(self, data: bytes) -> None:
        """Write bytes to the transport and set the deadline `response_timeout` from now."""
        self._send(data)
        self.deadline = self.clock() + self._response_timeout

    def write_request(self, request: bytes) -> None:
        """Do the same for a complete request, which is written at the end of the loop iteration."""
        if len(request) > MAX_BATCHED_BYTES:
            self.write(request)
            return
        self._held_request = request
        self._batching.schedule_flush(self.flush)
        self.deadline = self.clock() + self._response_timeout

    def flush(self) -> None:
        """Write the held request to the transport; there is none after a failure."""
        held, self._held_request = self._held_request, b""
        if held:
            self._send(held)

    def _send(self, data: bytes) -> None:
        if self.transport is None:
            return
        if self._is_unsent:
            # Data that has arrived already cannot be the response to a request that was not sent.
            if self._has_data is not None and self._has_data():
                self.abort()
                return
            self._is_unsent = False
        self.transport.write(data)

    def suspend_deadline(self) -> None:
        """Remove the deadline while the exchange waits for the caller and not for the platform."""
        self.deadline = _NO_DEADLINE

    async def drain(self) -> None:
        """Wait until the transport accepts more; return at once on a lost connection."""
        if self._write_paused and self.transport is not None:
            self._drained = self._loop.create_future()
            await self._drained

    def next_event(self) -> asyncio.Future[None]:
        """Return a future that completes at the next event: data, close, failure or deadline."""
        self._waiter = self._loop.create_future()
        return self._waiter

    def abort(self, kind: FailureKind = "closed") -> None:
        """Close the connection at once; the running exchange fails with `kind`, or `unsent`."""
        self._fail(kind)
        if self.transport is not None:
            self.transport.abort()

    def pause_writing(self) -> None:
        self._write_paused = True

    def resume_writing(self) -> None:
        self._write_paused = False
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)

    def _fail(self, kind: FailureKind) -> None:
        self._held_request = b""
        if self.failure is None:
            self.failure = "unsent" if self._is_unsent else kind
        self._notify_waiter()

    def _notify_waiter(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # Called by the exchange.

    def start_exchange(
        self, *, expect_body: bool, has_body: bool = False, is_streamed: bool = False
    ) -> None:
        """Start an exchange.

        `expect_body` is False for HEAD. `has_body`: the request has a body; `is_streamed`: the
        request is written in several parts.
        """
        self._reset(expect_body=expect_body, has_body=has_body)
        self._sending = is_streamed
        self._parser, self._spare_parser = (
            self._spare_parser or httptools.HttpResponseParser(self),
            None,
        )
        self._is_unsent = self.exchange_count > 0
        self.exchange_count += 1

    def mark_body_sent(self) -> None:
        """Record that all parts of a streamed request but its end are written."""
        self._sending = False

    def head(self) -> ResponseHead | None:
        """Return the head of the final response, None before it has arrived.

        Raises `UpstreamConnectionError`.
        """
        if self.response_head is None:
            self._raise_failure()
        else:
            self.deadline = _NO_DEADLINE
        return self.response_head

    async def wait_for_head(self) -> None:
        """Wait until the head of the response has arrived or can no longer arrive; never raises."""
        while self.response_head is None and self.failure is None and self.transport is not None:
            await self.next_event()

    async def read(self) -> list[bytes]:
        """Return the chunks of the body that arrived, after waiting for some; [] at the end.

        Raises `UpstreamConnectionError`.
        """
        try:
            while not self._chunks:
                if self.complete:
                    return []
                self._raise_failure()
                self._resume_reading()
                self.deadline = self.clock() + self._idle_timeout
                await self.next_event()
        finally:
            self.deadline = _NO_DEADLINE
        return self.take_chunks()

    def take_chunks(self) -> list[bytes]:
        """Return the chunks of the body that have arrived and were not read yet."""
        chunks, self._chunks = self._chunks, []
        self._buffered = 0
        return chunks

    def _resume_reading(self) -> None:
        if self._reading_paused and self.transport is not None:
            self._reading_paused = False
            self.transport.resume_reading()

    @property
    def is_reusable(self) -> bool:
        """Whether another exchange can follow: complete response, no surplus bytes, kept alive."""
        return (
            self.complete
            and self._keep_alive
            and not self._surplus
            and not self._chunks
            and self.failure is None
            and self.transport is not None
            and not self.transport.is_closing()
        )

    def mark_idle(self, until: float) -> None:
        """Become idle until time `until`: any byte that arrives from now on is surplus."""
        self._spare_parser = self._parser if self._parsed else None
        self._parser = None
        self._resume_reading()
        self.deadline = _NO_DEADLINE
        self.idle_until = until

    @property
    def announced_keep_alive(self) -> bytes | None:
        """The value of the last response's Keep-Alive field."""
        return self._fields.values.get(b"keep-alive")

    def close(self) -> None:
        """Close after a response (TLS sends close_notify, RFC 9112 section 9.8)."""
        if isinstance(self.transport, TlsTransport):
            self.transport.close()
        elif self.transport is not None:
            # `close` would wait without limit for a platform that stopped reading the request.
            self.transport.abort()

    def data_received(self, data: bytes) -> None:
        """Parse the data; it is surplus without a request or after a response.

        RFC 9112 section 9.2 (asyncio.Protocol).
        """
        if self._parser is None or self.complete:
            self._surplus = True
            if self._parser is None:
                self.close()
            return
        if self._held_request:
            # The data cannot be the response to a request that was not sent yet.
            self.abort()
            return
        if not self.started:
            self.started, self._usual = True, data.startswith(b"HTTP/1.1 ")
        if self._body_bytes_left is not None:
            self._take_body(data, self._body_bytes_left)
            return
        self._overhead += len(data)
        self._parse(self._parser, data)
        if self._overhead > MAX_OVERHEAD and not self.complete:
            self._fail("protocol")
        if self.failure is not None and self.transport is not None:
            self.transport.abort()
        elif self.response_head is not None and self.response_head.framing is Framing.LENGTH:
            self._body_bytes_left = (self.response_head.content_length or 0) - self._body_size
        self._notify_waiter()

    def _take_body(self, data: bytes, left: int) -> None:
        """Count the bytes of a body of known length: there is nothing to parse in them."""
        self._body_bytes_left = left - len(data)
        if self._body_bytes_left <= 0:
            self.complete = True
            self._surplus |= self._body_bytes_left < 0
            data = data[:left]
        self._buffer_body(data)
        self._notify_waiter()

    def _parse(self, parser: httptools.HttpResponseParser, data: bytes) -> None:
        try:
            parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            # After a complete response llhttp fails at the bytes that follow, which are not part of
            # the response.
            if self.complete:
                self._surplus = True
            else:
                self._fail("protocol")
        # llhttp reports no event yet for the beginning of a chunk after the header of a response to
        # HEAD.
        if self.complete and not self._expect_body and not data.endswith(b"\n"):
            self._surplus = True

    def on_ciphertext_received(self) -> None:
        """Called when ciphertext arrived that does not yet decrypt to any data.

        On an idle connection, or before the request is sent on a reused one, such bytes are
        unexpected, so that the connection is closed and not reused.
        """
        if self._is_unsent:
            self.abort()
        elif self._parser is None and self.exchange_count:
            self.close()

    def eof_received(self) -> bool:
        """Handle the end of the platform's data (asyncio.Protocol).

        It completes a response that is framed by it, if the end was clean.
        """
        if self._parser is not None and not self.complete and self.failure is None:
            head = self.response_head
            if head is not None and head.framing is Framing.CLOSE and self._has_clean_close():
                self.complete = True
            else:
                self._fail("truncated" if self.started else "closed")
        self._notify_waiter()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail the running exchange; a reset never completes a response (asyncio.Protocol)."""
        if isinstance(exc, ClientCertificateRejectedError):
            self._fail("certificate")
        elif self._parser is not None and not self.complete:
            self._fail("truncated" if self.started else "closed")
        # This breaks the reference cycle of parser and connection.
        self.transport = self._parser = self._spare_parser = None
        self._keep_alive = False
        self.resume_writing()
        self._notify_waiter()
        self._on_lost(self)

    def on_message_begin(self) -> None:
        """Record a message after a complete one, which is no response (RFC 9112 section 6.3)."""
        if self.complete:
            self._surplus = True

    def on_header(self, name: bytes, value: bytes) -> None:
        """Add a field; those of trailers and of surplus messages are dropped."""
        # Too many fields are rejected anyway, and the time to add one can grow with their number.
        if (
            self.response_head is None
            and not self.complete
            and not exceeds_header_limits(self._fields)
        ):
            self._fields.add(name, value)

    def on_headers_complete(self) -> None:
        """Check what llhttp does not check, and determine the framing of the body."""
        if self.response_head is not None or self._parser is None or self.failure is not None:
            return
        status = self._parser.get_status_code()
        if 100 <= status < 200:
            self._interim += 1
            self._in_interim = True
            if status == 101 or self._interim > _MAX_INTERIM_RESPONSES:
                self._fail("protocol")
            return
        # This is cheaper than the parser's formatting of the version.
        version = "1.1" if self._usual and not self._interim else self._parser.get_http_version()
        valid = version in ("1.1", "1.0") and 200 <= status <= 599
        fields = self._fields
        framed = None
        if valid and not exceeds_header_limits(fields):
            framed = determine_framing(status, version, fields, expect_body=self._expect_body)
        if framed is None:
            self._fail("protocol")
            return
        framing, length = framed
        self._keep_alive = self._parser.should_keep_alive() and not (
            # If a body is sent nevertheless, however late, it would be taken for the beginning of
            # the next response.
            framing is Framing.NONE or self._may_misframe_next(status)
        )
        self.response_head = ResponseHead(status, fields, framing, length)
        if framing is Framing.NONE:
            # llhttp does not know that this was a HEAD; what it parses as a body is surplus.
            self.complete = True

    def _may_misframe_next(self, status: int) -> bool:
        """Return whether the platform may read the rest of this request as the next request."""
        if not self._has_body:
            return False
        unsent = self.transport is not None and self.transport.get_write_buffer_size() > 0
        # A platform that rejects a write often does so after its header alone.
        return status >= 400 or self._sending or unsent

    def on_body(self, data: bytes) -> None:
        """Buffer a chunk of the body, and pause reading when the caller is slow."""
        if self.complete:
            self._surplus = True
            return
        if self.response_head is None:
            # llhttp allows a body in some interim responses; RFC 9110 section 15.2: none has one.
            self._fail("protocol")
            return
        self._overhead = 0
        self._buffer_body(data)

    def _buffer_body(self, data: bytes) -> None:
        self._chunks.append(data)
        self._body_size += len(data)
        self._buffered += len(data)
        if (
            self._buffered >= _HIGH_WATER
            and not self._reading_paused
            and self.transport is not None
        ):
            self._reading_paused = True
            self.transport.pause_reading()

    def on_chunk_header(self) -> None:
        """Handle a chunk where no body is possible, after a response or in an interim one.

        It is surplus after the response, a protocol error before it.
        """
        if self.complete:
            self._surplus = True
        elif self.response_head is None:
            self._fail("protocol")

    def on_message_complete(self) -> None:
        """Record that the message ended as its framing announced."""
        if self._in_interim:
            self._in_interim = False
            self._fields = ResponseFields()
        elif self.response_head is not None and self.response_head.framing is not Framing.CLOSE:
            self.complete = self._parsed = True

    def _has_clean_close(self) -> bool:
        """Return whether the end is no broken connection: over TLS only close_notify proves it."""
        transport = self.transport
        return not isinstance(transport, TlsTransport) or transport.received_close_notify

    def _raise_failure(self) -> None:
        kind = self.failure or ("closed" if self.transport is None else None)
        if kind is not None:
            raise UpstreamConnectionError(kind, reused=self.exchange_count > 1)
