"""One HTTP/1.1 connection to the platform: a client protocol on llhttp's strict response parser.

It sends what it is told and says precisely what came back: whether any byte of an answer was
seen, how the answer was framed, whether it ended as announced. It never repeats anything, never
follows anything and never guesses (RFC 9112 sections 6 to 9). The pool decides about its life.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import httptools

from gateway.http.client.framing import (
    MAX_OVERHEAD,
    AmbiguousFramingError,
    Framing,
    ResponseHead,
    UpstreamConnectionError,
    determine_framing,
    exceeds_header_limits,
)
from gateway.http.client.request_side import NO_DEADLINE, UpstreamWriter
from gateway.http.client.response_header import ResponseFields
from gateway.http.client.tls import ClientCertificateRejectedError, TlsTransport
from gateway.http.write_batching import WriteBatcher

_MAX_INTERIM_RESPONSES: Final = 20
# Reading pauses when more than this of a body waits, and goes on when its caller wants more: one
# that takes nothing holds no more than two reads.
_HIGH_WATER: Final = 64 * 1024


class UpstreamConnection(UpstreamWriter):
    """A connection that carries one exchange after the other.

    `start_exchange`, `write`, `head` after each `next_event`, then `read` until nothing comes. All
    of it ends with `UpstreamConnectionError` when the connection fails or `deadline` passes, which
    the pool's sweep looks after. Who writes a request in pieces begins it so and says
    `mark_body_sent` at its end: an answer that comes meanwhile is the connection's last one.
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
        super().__init__(clock, response_timeout, batching)
        self._on_lost = on_lost
        self._idle_timeout = idle_timeout
        # Of the connection's whole life.
        self.opened_at = clock()
        self.exchange_count = 0
        self.idle_since = self.opened_at
        # Of a body. Between exchanges there are none, or the connection is not used again.
        self._chunks: list[bytes] = []
        self._buffered = 0
        # One that has seen its message end, for the next exchange.
        self._spare_parser: httptools.HttpResponseParser | None = None
        # Of one exchange.
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

    # What the exchange calls.

    def start_exchange(
        self, *, expect_body: bool, has_body: bool = False, is_streamed: bool = False
    ) -> None:
        """Start an exchange; `expect_body` is False for HEAD, the others are about the request."""
        self._reset(expect_body=expect_body, has_body=has_body)
        self._sending = is_streamed
        self._parser, self._spare_parser = (
            self._spare_parser or httptools.HttpResponseParser(self),
            None,
        )
        self._is_unsent = self.exchange_count > 0
        self.exchange_count += 1

    def mark_body_sent(self) -> None:
        """All but the end of a request in pieces is written."""
        self._sending = False

    def head(self) -> ResponseHead | None:
        """The final answer's head, None until it has come. Raises `UpstreamConnectionError`."""
        if self.response_head is None:
            self._raise_failure()
        else:
            self.deadline = NO_DEADLINE
        return self.response_head

    async def wait_for_head(self) -> None:
        """Wait until there is an answer or there will be none; never raises."""
        while self.response_head is None and self.failure is None and self.transport is not None:
            await self.next_event()

    async def read(self) -> list[bytes]:
        """The pieces of the body that arrived, at the end none.

        Raises `UpstreamConnectionError`.
        """
        while not self._chunks:
            if self.complete:
                return []
            self._raise_failure()
            self._resume_reading()
            self.deadline = self._clock() + self._idle_timeout
            await self.next_event()
        self.deadline = NO_DEADLINE
        return self.take_chunks()

    def take_chunks(self) -> list[bytes]:
        """The pieces of the body that arrived and were not read yet."""
        pieces, self._chunks = self._chunks, []
        self._buffered = 0
        return pieces

    def _resume_reading(self) -> None:
        if self._reading_paused and self.transport is not None:
            self._reading_paused = False
            self.transport.resume_reading()

    @property
    def has_pending_body(self) -> bool:
        """Whether body bytes wait to be read."""
        return bool(self._chunks)

    @property
    def is_reusable(self) -> bool:
        """Whether the connection is beyond doubt: answered in full, nothing more, kept alive."""
        return (
            self.complete
            and self._keep_alive
            and not self._surplus
            and not self._chunks
            and self.failure is None
            and self.transport is not None
            and not self.transport.is_closing()
        )

    def mark_idle(self, now: float) -> None:
        """Become idle: from now on any byte is one too many."""
        self._spare_parser = self._parser if self._parsed else None
        self._parser = None
        self._resume_reading()
        self.deadline = NO_DEADLINE
        self.idle_since = now

    def close(self) -> None:
        """Close after an answer (TLS says close_notify, RFC 9112 section 9.8)."""
        if isinstance(self.transport, TlsTransport):
            self.transport.close()
        elif self.transport is not None:
            # Its `close` would wait without end for a platform that reads no more of the request.
            self.transport.abort()

    def on_deadline(self) -> None:
        """The deadline has passed."""
        self.abort("timeout")

    def data_received(self, data: bytes) -> None:
        """Parse; what comes unasked or after an answer is in excess (RFC 9112 section 9.2)."""
        if self._parser is None or self.complete:
            self._surplus = True
            if self._parser is None:
                self.close()
            return
        if self._held_request:
            # It cannot be the answer to a request that was not sent yet.
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
        """What comes of a body of known length is counted: no parser could find anything in it."""
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
            # After a complete answer llhttp stumbles over what follows: not part of the answer.
            if self.complete:
                self._surplus = True
            else:
                self._fail("protocol")
        # To llhttp the beginning of a chunk after the header of a HEAD's answer is no event yet.
        if self.complete and not self._expect_body and not data.endswith(b"\n"):
            self._surplus = True

    def on_ciphertext_received(self) -> None:
        """Something came below of which there is nothing to read yet, be it half an answer."""
        if self._is_unsent:
            self.abort()
        elif self._parser is None and self.exchange_count:
            self.close()

    def eof_received(self) -> bool:
        """The platform sends no more; an answer framed by that must have ended cleanly."""
        if self._parser is not None and not self.complete and self.failure is None:
            answer = self.response_head
            if answer is not None and answer.framing is Framing.CLOSE and self._has_clean_close():
                self.complete = True
            else:
                self._fail("truncated" if self.started else "closed")
        self._notify_waiter()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail what waits; a reset never completes an answer."""
        if isinstance(exc, ClientCertificateRejectedError):
            self._fail("certificate")
        elif self._parser is not None and not self.complete:
            self._fail("truncated" if self.started else "closed")
        # Break the cycle of parser and connection.
        self.transport = self._parser = self._spare_parser = None
        self._keep_alive = False
        self.resume_writing()
        self._notify_waiter()
        self._on_lost(self)

    def on_message_begin(self) -> None:
        """A second message after a complete one is never an answer (RFC 9112 section 6.3)."""
        if self.complete:
            self._surplus = True

    def on_header(self, name: bytes, value: bytes) -> None:
        """One field; those of trailers and of surplus messages are dropped."""
        # Too many are refused anyway, and adding one takes as long as there are others.
        if (
            self.response_head is None
            and not self.complete
            and not exceeds_header_limits(self._fields)
        ):
            self._fields.add(name, value)

    def on_headers_complete(self) -> None:
        """Check what llhttp leaves to its user, and note how the body will end."""
        if self.response_head is not None or self._parser is None or self.failure is not None:
            return
        status = self._parser.get_status_code()
        if 100 <= status < 200:
            self._begin_interim(status)
            return
        # Cheaper than to have the parser format it.
        version = "1.1" if self._usual and not self._interim else self._parser.get_http_version()
        valid = version in ("1.1", "1.0") and 200 <= status <= 599
        fields = self._fields
        if not valid or exceeds_header_limits(fields):
            self._fail("protocol")
            return
        try:
            framing, length = determine_framing(
                status, version, fields, expect_body=self._expect_body
            )
        except AmbiguousFramingError:
            self._fail("protocol")
            return
        self._keep_alive = self._parser.should_keep_alive() and not (
            # A body that comes all the same, however late, would be the next answer's beginning.
            framing is Framing.NONE or self._may_misframe_next(status)
        )
        self.response_head = ResponseHead(status, fields, framing, length)
        if framing is Framing.NONE:
            # llhttp does not know that this was a HEAD; what it takes for a body is in excess.
            self.complete = True

    def _may_misframe_next(self, status: int) -> bool:
        """Whether the platform may take the rest of this request for the beginning of the next."""
        if not self._has_body:
            return False
        unsent = self.transport is not None and self.transport.get_write_buffer_size() > 0
        # Who refuses a write often does so by its header alone.
        return status >= 400 or self._sending or unsent

    def on_body(self, data: bytes) -> None:
        """Keep a piece of the body and hold the platform back when its caller is slow."""
        if self.complete:
            self._surplus = True
            return
        if self.response_head is None:
            # Some interim answers may have a body for llhttp; RFC 9110 section 15.2: none has.
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
        """A chunk where no body can be: after an answer without one, or in an interim one."""
        if self.complete:
            self._surplus = True
        elif self.response_head is None:
            self._fail("protocol")

    def on_message_complete(self) -> None:
        """The message ended as its framing announced."""
        if self._in_interim:
            self._in_interim = False
            self._fields = ResponseFields()
        elif self.response_head is not None and self.response_head.framing is not Framing.CLOSE:
            self.complete = self._parsed = True

    def _begin_interim(self, status: int) -> None:
        self._interim += 1
        self._in_interim = True
        if status == 101 or self._interim > _MAX_INTERIM_RESPONSES:
            self._fail("protocol")

    def _has_clean_close(self) -> bool:
        """Whether the end is more than a cut line: over TLS only close_notify says so."""
        transport = self.transport
        return not isinstance(transport, TlsTransport) or transport.received_close_notify

    def _raise_failure(self) -> None:
        kind = self.failure or ("closed" if self.transport is None else None)
        if kind is not None:
            raise UpstreamConnectionError(kind, reused=self.exchange_count > 1)
