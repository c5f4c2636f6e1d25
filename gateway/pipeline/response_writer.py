"""Writes responses to callers; nothing else writes responses to their connections.

A small complete response is sent in one write. Once the first byte is sent the response is final: a
later failure aborts the connection, so that a truncated response does not look complete (RFC 9112
section 8). `DownstreamWriter` writes the response of one exchange. A `ResponsePlan` has the changes
to one response: the link translator decides them, and this module applies them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from http import HTTPStatus
from itertools import chain
from typing import TYPE_CHECKING, Final

from gateway import errors
from gateway.errors import GatewayError
from gateway.fhir.interaction import is_safe_interaction
from gateway.fhir.operation_outcome import error_outcome, write_resource
from gateway.http.client.response_head import (
    Framing,
    add_vary_accept_encoding,
    decoded_field_lines,
    remove_digest_fields,
)
from gateway.http.content_coding import STEP_BYTES, BodyTransform, feed_in_steps
from gateway.http.headers import date_line, remove_fields
from gateway.http.server.request_parser import ConnectionDisposition, HttpVersion11
from gateway.http.slow_readers import ResponseReader, SlowReaders, has_left
from gateway.pipeline.admission import Admission, LifecyclePhase
from gateway.pipeline.own_replies import LocalResponder, LocalResponse, OutcomeFormat, outcome_page
from gateway.pipeline.request_body import CallerDisconnectedError

if TYPE_CHECKING:
    from gateway.exchange import Exchange
    from gateway.http.client.upstream_response import UpstreamResponse
    from gateway.http.server.caller_connection import CallerConnection, IncomingRequest


# Not frozen: mypyc cannot compile the constructor of a frozen dataclass.
@dataclass(slots=True)
class ResponsePlan:
    """How a response changes on its way: the values of its fields, its body, a warning.

    `translate` maps a lower-case field name and a value to the new value; None changes nothing.
    `warning` is the value of X-Gateway-Warning. `is_decoded`: the transform removes the content
    coding.
    """

    translate: Callable[[bytes, bytes], bytes] | None = None
    transform: BodyTransform | None = None
    warning: bytes | None = None
    is_decoded: bool = False


# Bytes buffered of a response for an HTTP/1.0 caller, to which no chunked coding may be sent.
_MAX_HTTP10_BYTES: Final = 64 * 1024 * 1024
# A transformed body up to this size is sent with its length; a longer one in chunks, while it is
# transformed.
_MAX_SINGLE_WRITE: Final = 1024 * 1024
_CHUNKED: Final = b"Transfer-Encoding: chunked\r\n"
_LAST_CHUNK: Final = b"0\r\n\r\n"

_STATUS_LINES: Final = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode("ascii")
    for status in HTTPStatus
}


class DownstreamWriter:
    """Writes the response of one exchange to the caller's connection.

    * `admission` shows, when the response head is written, whether the gateway is shutting down.
    * `stall_timeout`: seconds for which a caller may read nothing at all of the unsent bytes.
    * `wall_clock` returns Unix time, for the Date of responses that have none.
    * `extra_field_lines`: field lines that are added to every response of the exchange.
    * `expired_session_responder`: responds to a signed-in user in place of caller-unauthenticated.
    """

    __slots__ = (
        "_admission",
        "_connection",
        "_exchange",
        "_is_head_request",
        "_is_http10",
        "_keep_alive",
        "_request",
        "_slow_reader",
        "_slow_readers",
        "_stall_timeout",
        "_wall_clock",
        "expired_session_responder",
        "extra_field_lines",
        "has_started",
    )

    def __init__(
        self,
        request: IncomingRequest,
        exchange: Exchange,
        admission: Admission,
        *,
        stall_timeout: float,
        wall_clock: Callable[[], float],
        extra_field_lines: bytes = b"",
        expired_session_responder: LocalResponder | None = None,
    ) -> None:
        message = request.message
        self._request = request
        self._connection: CallerConnection = request.connection
        self._exchange = exchange
        self._admission = admission
        self._stall_timeout = stall_timeout
        self._wall_clock = wall_clock
        self._keep_alive = not message.should_close
        version = message.version
        self._is_http10 = version is not HttpVersion11 and version < HttpVersion11
        self._connection.aborts_by_reset = self._is_http10
        self._is_head_request = message.method == "HEAD"
        self.extra_field_lines = extra_field_lines
        self.expired_session_responder = expired_session_responder
        self.has_started = False
        # Set while this exchange holds an upstream connection.
        self._slow_readers: SlowReaders | None = None
        self._slow_reader: ResponseReader | None = None

    def is_closed(self) -> bool:
        """Return whether the connection is closed, so that no response can be read any more."""
        transport = self._connection.transport
        return transport is None or transport.is_closing()

    def abort(self) -> ConnectionDisposition:
        """Abort the connection so that a truncated response does not look complete."""
        self._exchange.is_aborted = True
        self._keep_alive = False
        self._connection.abort()
        return ConnectionDisposition.CLOSE

    def send_100_continue(self) -> None:
        """Send 100 Continue to a caller that withholds its body (RFC 9110 section 10.1.1)."""
        if not self.has_started and not self._is_http10:
            self._connection.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    async def forward_response(
        self, response: UpstreamResponse, plan: ResponsePlan
    ) -> ConnectionDisposition:
        """Forward a platform's response, changed as planned.

        Raises `GatewayError` while nothing was sent, `UpstreamConnectionError` and
        `CallerDisconnectedError` at any time.
        """
        field_lines = response.fields.downstream_lines(
            self._exchange.request_id.encode("ascii"), self._wall_clock, plan.translate
        )
        if response.content_coding is not None:
            field_lines = add_vary_accept_encoding(
                decoded_field_lines(field_lines) if plan.is_decoded else field_lines
            )
        if self.extra_field_lines:
            # Otherwise the platform's fields would be sent beside them, and browsers use one or the
            # other.
            field_lines = remove_fields(field_lines, _replaced_by(self.extra_field_lines))
        if plan.warning is not None:
            field_lines.append(b"X-Gateway-Warning: %s\r\n" % plan.warning)
        transform = plan.transform
        if self._is_head_request or response.framing is Framing.NONE:
            self._send_bodiless(response, field_lines, transform)
        elif not response.is_complete:
            await self._stream(response, field_lines, transform)
        elif transform is None:
            self._send_buffered(response.status, field_lines, [response.buffered_body])
        else:
            await self._send_transformed(response, field_lines, transform)
        return await self._await_delivery()

    async def write_local_response(self, response: LocalResponse) -> ConnectionDisposition:
        """Send a local response that is not FHIR.

        Its fields take the place of `extra_field_lines`. Raises `CallerDisconnectedError`.
        """
        headers = response.all_headers
        replaced = frozenset(name.lower().encode("ascii") for name, _ in headers)
        extra_lines = self.extra_field_lines.splitlines(keepends=True)
        self.extra_field_lines = b"".join(remove_fields(extra_lines, replaced))
        return await self._write_complete(response.status, headers, response.body)

    async def write_outcome(
        self, error: GatewayError, *, language: str, outcome_format: OutcomeFormat
    ) -> ConnectionDisposition:
        """Send an error of the gateway, in FHIR or as a page. Raises `CallerDisconnectedError`."""
        exchange = self._exchange
        if error.close_connection:
            self._keep_alive = False
        outcome = error_outcome(
            error,
            request_id=exchange.request_id,
            language=language,
            attempts=exchange.attempts,
            write=not is_safe_interaction(exchange.method, exchange.interaction),
            delivery=exchange.delivery,
        )
        headers: tuple[tuple[str, str], ...] = (
            ("X-Gateway-Error", error.reason.code),
            *error.headers,
        )
        if error.retry_after is not None:
            headers += (("Retry-After", str(max(1, -int(-error.retry_after // 1)))),)
        if outcome_format == "html":
            page = outcome_page(outcome, error.status)
            return await self.write_local_response(replace(page, headers=page.headers + headers))
        body, content_type = write_resource(outcome, xml=outcome_format == "xml")
        headers = (
            ("Content-Type", content_type.decode("ascii")),
            ("Content-Language", language),
            ("Cache-Control", "no-store"),
            *headers,
        )
        return await self._write_complete(error.status, headers, body)

    async def _write_complete(
        self, status: int, headers: tuple[tuple[str, str], ...], body: bytes
    ) -> ConnectionDisposition:
        field_lines = [
            date_line(int(self._wall_clock())),
            b"Content-Length: %d\r\n" % len(body),
            b"X-Request-Id: %s\r\n" % self._exchange.request_id.encode("ascii"),
        ]
        field_lines += (f"{name}: {value}\r\n".encode("latin-1") for name, value in headers)
        sent = b"" if self._is_head_request else body
        self._write_head(status, field_lines, [sent])
        self._exchange.response_bytes = len(sent)
        # Errors are cheap to cause: without this wait a caller that reads no responses could fill
        # the memory.
        return await self._await_delivery()

    def _send_bodiless(
        self,
        response: UpstreamResponse,
        field_lines: list[bytes],
        transform: BodyTransform | None,
    ) -> None:
        length = response.content_length
        if transform is not None:
            # A rewritten body has another length and other digests than those announced here.
            field_lines = remove_digest_fields(field_lines)
        elif length is not None and response.status != 204:
            field_lines.append(b"Content-Length: %d\r\n" % length)
        self._write_head(response.status, field_lines, batched=True)

    def _send_buffered(self, status: int, field_lines: list[bytes], chunks: list[bytes]) -> None:
        size = 0
        for chunk in chunks:
            size += len(chunk)
        # Formatting the number within the longer bytes literal takes twice as long.
        field_lines.append(b"Content-Length: " + b"%d" % size + b"\r\n")
        self._write_head(status, field_lines, chunks, batched=True)
        self._exchange.response_bytes = size

    async def _send_transformed(
        self, response: UpstreamResponse, field_lines: list[bytes], transform: BodyTransform
    ) -> None:
        """Send a buffered response, in one write unless its transformed body exceeds the limit."""
        body = response.buffered_body
        chunks = transform.transform_complete(body) if len(body) <= 2 * STEP_BYTES else None
        if chunks is None:
            chunks, size = [], 0
            limit = _MAX_HTTP10_BYTES if self._is_http10 else _MAX_SINGLE_WRITE
            rest = feed_in_steps(transform, body)
            for chunk in rest:
                if chunks:
                    await asyncio.sleep(0)
                chunks.append(chunk)
                size += len(chunk)
                if size > limit:
                    produced = chain(chunks, rest)
                    await self._send_long(response.status, field_lines, transform, produced)
                    return
            chunks.append(transform.finish())
        without_digests = remove_digest_fields(field_lines)
        if len(without_digests) < len(field_lines) and b"".join(chunks) != body:
            field_lines = without_digests
        self._send_buffered(response.status, field_lines, chunks)

    async def _send_long(
        self,
        status: int,
        field_lines: list[bytes],
        transform: BodyTransform,
        chunks: Iterator[bytes],
    ) -> None:
        """Send the chunks that a transform makes as they are produced, and its end."""
        if self._is_http10:
            raise _too_long()
        self._write_head(status, [*remove_digest_fields(field_lines), _CHUNKED])
        await self._send_chunks(chunks, chunked=True)
        await self._send_chunk(transform.finish(), chunked=True)
        self._write(_LAST_CHUNK)

    async def _stream(
        self,
        response: UpstreamResponse,
        field_lines: list[bytes],
        transform: BodyTransform | None,
    ) -> None:
        length = response.content_length
        if transform is not None:
            field_lines, length = remove_digest_fields(field_lines), None
        if length is None and self._is_http10:
            await self._send_collected_http10(response, field_lines, transform)
            return
        chunked = length is None
        field_lines.append(_CHUNKED if length is None else b"Content-Length: %d\r\n" % length)
        self._write_head(response.status, field_lines)
        while chunks := await response.read_chunks():
            self._slow_readers = response.slow_readers
            if transform is not None or chunked or len(chunks) > 2:
                # Two large chunks stay separate: a second write costs less than a copy. Others are
                # joined, and `chunks` is replaced so that they are not in memory twice.
                chunks = [b"".join(chunks)]
            for chunk in chunks:
                if transform is None:
                    await self._send_chunk(chunk, chunked=chunked)
                else:
                    await self._send_chunks(feed_in_steps(transform, chunk), chunked=chunked)
        self._slow_readers = None
        if transform is not None:
            await self._send_chunk(transform.finish(), chunked=chunked)
        if chunked:
            self._write(_LAST_CHUNK)

    async def _send_chunks(self, chunks: Iterator[bytes], *, chunked: bool) -> None:
        """Send chunks as they are produced; other tasks run between two of them."""
        for number, chunk in enumerate(chunks):
            if number:
                await asyncio.sleep(0)
            await self._send_chunk(chunk, chunked=chunked)

    async def _send_chunk(self, data: bytes, *, chunked: bool) -> None:
        if not data:
            return
        self._write(b"%x\r\n%s\r\n" % (len(data), data) if chunked else data)
        self._exchange.response_bytes += len(data)
        if self._connection.is_write_paused:
            await self._drain()

    async def _send_collected_http10(
        self,
        response: UpstreamResponse,
        field_lines: list[bytes],
        transform: BodyTransform | None,
    ) -> None:
        """Send a response once it is complete; all such responses share one memory budget."""
        budget = self._admission.buffer_budget
        chunks: list[bytes] = []
        size = 0
        try:
            while data := await response.read():
                for chunk in iter((data,)) if transform is None else feed_in_steps(transform, data):
                    if not budget.try_reserve(len(chunk)):
                        detail = "too many long answers in HTTP/1.0 at once"
                        hint = "use HTTP/1.1"
                        raise GatewayError(errors.OVERLOADED, detail, hint=hint, retry_after=1.0)
                    chunks.append(chunk)
                    size += len(chunk)
                    if size > _MAX_HTTP10_BYTES:
                        raise _too_long()
                    await asyncio.sleep(0)
            if transform is not None:
                chunks.append(transform.finish())
            self._send_buffered(response.status, field_lines, chunks)
            await self._drain()
        finally:
            budget.release(size)

    def _write_head(
        self,
        status: int,
        field_lines: list[bytes],
        body: Sequence[bytes] = (),
        *,
        batched: bool = False,
    ) -> None:
        """Write a response's head, followed by the body as far as it is given."""
        status_line = _STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status
        message = [
            status_line,
            *field_lines,
            self.extra_field_lines,
            self._connection_field(),
            b"\r\n",
            *body,
        ]
        self._write(b"".join(message), batched=batched)
        self._exchange.status = status

    def _write(self, data: bytes, *, batched: bool = False) -> None:
        """Write bytes to the transport, `batched` at the end of the loop iteration.

        Raises `CallerDisconnectedError`.
        """
        connection = self._connection
        if self.is_closed():
            raise CallerDisconnectedError
        self.has_started = connection.has_started_response = True
        if batched:
            connection.write_batched(data)
        else:
            connection.write(data)

    def _connection_field(self) -> bytes:
        """Return the Connection field line, which announces what follows (RFC 9112 section 9.3)."""
        # A body that was not read would be parsed as the next request. During shutdown, pipelined
        # requests are still answered.
        connection = self._connection
        closing = (
            self._admission.phase is not LifecyclePhase.SERVING
            and not connection.has_pipelined_requests
        )
        if closing or connection.is_last_request or not self._request.payload.is_eof():
            self._keep_alive = False
        return connection.keep_alive_lines if self._keep_alive else b"Connection: close\r\n"

    async def _drain(self) -> None:
        """Wait until a slow caller has read enough.

        Raises `CallerDisconnectedError`, also after `stall_timeout` seconds without progress.
        """
        readers = self._slow_readers
        if readers is None:
            await self._drained()
            return
        reader = self._slow_reader
        if reader is None:
            reader = self._slow_reader = ResponseReader(self._connection, self._exchange)
        readers.add(reader)
        try:
            await self._drained()
        finally:
            readers.remove(reader)

    async def _drained(self) -> None:
        connection = self._connection
        while connection.is_write_paused:
            if connection.transport is None:
                raise CallerDisconnectedError
            unsent_before = connection.unsent_bytes
            try:
                async with asyncio.timeout(self._stall_timeout):
                    await connection.drain()
            except TimeoutError:
                # A slow caller is allowed, also on a slow network; only one that reads nothing at
                # all is disconnected.
                if connection.unsent_bytes >= unsent_before:
                    self.abort()
                    raise CallerDisconnectedError from None

    async def _await_delivery(self) -> ConnectionDisposition:
        """Wait until everything written is sent; return the connection's disposition.

        Raises `CallerDisconnectedError` if the caller was gone before it could read the response.
        """
        connection = self._connection
        if connection.is_write_paused:
            await self._drain()
        if connection.is_half_closed and await has_left(connection):
            raise CallerDisconnectedError
        return ConnectionDisposition.KEEP_ALIVE if self._keep_alive else ConnectionDisposition.CLOSE


@lru_cache(maxsize=64)
def _replaced_by(field_lines: bytes) -> frozenset[bytes]:
    """Return the names of these fields in lower case, except Vary, a list that may come twice."""
    names = {line.partition(b":")[0].lower() for line in field_lines.split(b"\r\n")}
    return frozenset(names - {b"", b"vary"})


def _too_long() -> GatewayError:
    return GatewayError(
        errors.UPSTREAM_FAILED, "too long for HTTP/1.0", hint="use HTTP/1.1", close_connection=True
    )
