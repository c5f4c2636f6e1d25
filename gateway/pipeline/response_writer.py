"""Writes responses to callers; nothing else writes responses to their connections.

A small complete response is sent in one write. Once the first byte is sent the response is final: a
later failure aborts the connection, so that a truncated response does not look complete (RFC 9112
section 8). `DownstreamWriter` writes to a caller's connection, for one exchange at a time. A
`ResponsePlan` has the changes to one response: the link translator decides them, and this module
applies them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from email.utils import formatdate
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
from gateway.http.content_coding import STEP_BYTES, equals_joined, feed_in_steps
from gateway.http.headers import remove_fields
from gateway.http.server.request_parser import ConnectionDisposition, HttpVersion11
from gateway.http.slow_readers import ResponseReader, has_left
from gateway.pipeline.own_replies import outcome_page
from gateway.pipeline.request_body import CallerDisconnectedError

if TYPE_CHECKING:
    from gateway.exchange import Exchange
    from gateway.http.client.upstream_response import UpstreamResponse
    from gateway.http.content_coding import BodyTransform
    from gateway.http.server.caller_connection import CallerConnection, IncomingRequest
    from gateway.http.slow_readers import SlowReaders
    from gateway.pipeline.admission import Admission
    from gateway.pipeline.own_replies import LocalResponder, LocalResponse, OutcomeFormat
    from gateway.pipeline.request_body import MemoryBudget


class DownstreamWriter:
    """The downstream connection for the duration of one exchange.

    * `admission` shows, when the response head is written, whether the gateway is shutting down.
    * `stall_timeout`: seconds for which a caller may read nothing at all of the unsent bytes.
    * `extra_field_lines`: field lines that are added to every response of the exchange.
    * `expired_session_responder`: responds to a signed-in user in place of caller-unauthenticated.
    """

    __slots__ = (
        "_admission",
        "_keep_alive",
        "_request",
        "_slow_reader",
        "_stall_timeout",
        "caller",
        "expired_session_responder",
        "extra_field_lines",
        "has_started",
        "is_head_request",
        "is_http10",
        "slow_readers",
    )

    def __init__(
        self,
        request: IncomingRequest,
        admission: Admission,
        *,
        stall_timeout: float,
        extra_field_lines: bytes = b"",
        expired_session_responder: LocalResponder | None = None,
    ) -> None:
        message = request.message
        self._request = request
        self._admission = admission
        self._stall_timeout = stall_timeout
        self._keep_alive = not message.should_close
        version = message.version
        self.is_http10 = version is not HttpVersion11 and version < HttpVersion11
        request.connection.aborts_by_reset = self.is_http10
        self.is_head_request = message.method == "HEAD"
        self.extra_field_lines = extra_field_lines
        self.expired_session_responder = expired_session_responder
        self.has_started = False
        # Set while this exchange holds an upstream connection.
        self.slow_readers: SlowReaders | None = None
        self.caller = ""
        self._slow_reader: ResponseReader | None = None

    @property
    def buffer_budget(self) -> MemoryBudget:
        """The memory budget shared by responses that are buffered for HTTP/1.0 callers."""
        return self._admission.buffer_budget

    def is_closed(self) -> bool:
        """Return whether the connection is closed, so that no response can be read any more."""
        transport = self._request.connection.transport
        return transport is None or transport.is_closing()

    def is_half_closed(self) -> bool:
        """Return whether the caller has half-closed: it sends no more.

        Whether it still reads is known only after a write.
        """
        return self._request.connection.is_half_closed

    def close_after_response(self) -> None:
        """Close the connection after this response."""
        self._keep_alive = False

    def abort(self) -> None:
        """Abort the connection so that a truncated response does not look complete."""
        self._keep_alive = False
        self._request.connection.abort()

    def send_100_continue(self) -> None:
        """Send 100 Continue to a caller that withholds its body (RFC 9110 section 10.1.1)."""
        if not self.has_started and not self.is_http10:
            self._request.connection.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def write(self, data: bytes) -> None:
        """Write bytes to the transport. Raises `CallerDisconnectedError`."""
        self._start_response().write(data)

    def write_message(self, message: bytes) -> None:
        """Write a complete response to the transport. Raises `CallerDisconnectedError`."""
        self._start_response().write_batched(message)

    def _start_response(self) -> CallerConnection:
        connection = self._request.connection
        transport = connection.transport
        if transport is None or transport.is_closing():
            raise CallerDisconnectedError
        self.has_started = connection.has_started_response = True
        return connection

    @property
    def is_write_paused(self) -> bool:
        """Whether writing is paused until the caller has read more of what was written."""
        return self._request.connection.is_write_paused

    async def drain(self) -> None:
        """Wait until a slow caller has read enough.

        Raises `CallerDisconnectedError`, also after `stall_timeout` seconds without progress.
        """
        readers = self.slow_readers
        if readers is None:
            await self._drained()
            return
        reader = self._slow_reader
        if reader is None:
            connection = self._request.connection
            reader = self._slow_reader = ResponseReader(connection, self.caller)
        readers.add(reader)
        try:
            await self._drained()
        finally:
            readers.remove(reader)

    async def _drained(self) -> None:
        connection = self._request.connection
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

    def connection_field(self) -> bytes:
        """Return the Connection field line, which announces what follows (RFC 9112 section 9.3)."""
        # A body that was not read would be parsed as the next request. During shutdown, pipelined
        # requests are still answered.
        connection = self._request.connection
        closing = self._admission.is_draining() and not connection.has_pipelined_requests
        if closing or connection.is_last_request or not self._request.payload.is_eof():
            self._keep_alive = False
        if not self._keep_alive:
            return b"Connection: close\r\n"
        return connection.keep_alive_lines

    async def await_delivery(self) -> ConnectionDisposition:
        """Wait until everything written is sent; return the connection's disposition.

        Raises `CallerDisconnectedError` if the caller was gone before it could read the response.
        """
        if self.is_write_paused:
            await self.drain()
        connection = self._request.connection
        if connection.is_half_closed and await has_left(connection):
            raise CallerDisconnectedError
        return self.finish()

    def finish(self) -> ConnectionDisposition:
        """Return whether the connection is kept or closed after this exchange."""
        return ConnectionDisposition.KEEP_ALIVE if self._keep_alive else ConnectionDisposition.CLOSE


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


_UNCHANGED: Final = ResponsePlan()


def _strip_stale_digests(response: UpstreamResponse, field_lines: list[bytes]) -> list[bytes]:
    """Return the field lines without digests, which a changed body makes wrong."""
    return remove_digest_fields(field_lines) if response.fields.has_digest else field_lines


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


async def forward_response(
    downstream: DownstreamWriter,
    exchange: Exchange,
    response: UpstreamResponse,
    plan: ResponsePlan = _UNCHANGED,
) -> ConnectionDisposition:
    """Forward a platform's response to its caller.

    Raises `GatewayError` while nothing was sent, `UpstreamConnectionError` and
    `CallerDisconnectedError` at any time.
    """
    field_lines = response.fields.downstream_lines(
        exchange.request_id.encode("ascii"), plan.translate
    )
    if response.content_coding is not None:
        field_lines = add_vary_accept_encoding(
            decoded_field_lines(field_lines) if plan.is_decoded else field_lines
        )
    if downstream.extra_field_lines:
        # Otherwise the platform's fields would be sent beside them, and browsers use one or the
        # other.
        field_lines = remove_fields(field_lines, _replaced_by(downstream.extra_field_lines))
    if plan.warning is not None:
        field_lines.append(b"X-Gateway-Warning: %s\r\n" % plan.warning)
    transform = plan.transform
    if downstream.is_head_request or response.framing is Framing.NONE:
        _send_bodiless(downstream, response, field_lines, transform)
        exchange.status = response.status
    elif response.is_complete and transform is None:
        _send_buffered(downstream, exchange, response.status, field_lines, [response.buffered_body])
    elif response.is_complete and transform is not None:
        body = response.buffered_body
        chunks = transform.transform_complete(body) if len(body) <= 2 * STEP_BYTES else None
        if chunks is None:
            await _send_transformed(downstream, exchange, response, field_lines, transform)
        else:
            _send_with_length(downstream, exchange, response, field_lines, chunks)
    else:
        await _stream(downstream, exchange, response, field_lines, transform)
    return await downstream.await_delivery()


@lru_cache(maxsize=64)
def _replaced_by(field_lines: bytes) -> frozenset[bytes]:
    """Return the names of these fields in lower case, except Vary, a list that may come twice."""
    names = {line.partition(b":")[0].lower() for line in field_lines.split(b"\r\n")}
    return frozenset(names - {b"", b"vary"})


def _send_bodiless(
    downstream: DownstreamWriter,
    response: UpstreamResponse,
    field_lines: list[bytes],
    transform: BodyTransform | None,
) -> None:
    length = response.content_length
    # A rewritten body would have another length than the one announced in the response to HEAD.
    if length is not None and response.status != 204 and transform is None:
        field_lines.append(b"Content-Length: %d\r\n" % length)
    downstream.write_message(_header_section(downstream, response.status, field_lines))


def _send_buffered(
    downstream: DownstreamWriter,
    exchange: Exchange,
    status: int,
    field_lines: list[bytes],
    chunks: list[bytes],
) -> None:
    size = 0
    for chunk in chunks:
        size += len(chunk)
    # Formatting the number within the longer bytes literal takes twice as long.
    field_lines.append(b"Content-Length: " + b"%d" % size + b"\r\n")
    downstream.write_message(_header_section(downstream, status, field_lines, chunks))
    exchange.status = status
    exchange.response_bytes = size


def _send_with_length(
    downstream: DownstreamWriter,
    exchange: Exchange,
    response: UpstreamResponse,
    field_lines: list[bytes],
    chunks: list[bytes],
) -> None:
    """Send a response in one write whose transformed body consists of these chunks."""
    if not equals_joined(response.buffered_body, chunks):
        field_lines = _strip_stale_digests(response, field_lines)
    _send_buffered(downstream, exchange, response.status, field_lines, chunks)


async def _send_transformed(
    downstream: DownstreamWriter,
    exchange: Exchange,
    response: UpstreamResponse,
    field_lines: list[bytes],
    transform: BodyTransform,
) -> None:
    """Send a buffered response, in one write unless its transformed body exceeds the limit."""
    rest = feed_in_steps(transform, response.buffered_body)
    limit = _MAX_HTTP10_BYTES if downstream.is_http10 else _MAX_SINGLE_WRITE
    chunks: list[bytes] = []
    size = 0
    for chunk in rest:
        if chunks:
            await asyncio.sleep(0)
        chunks.append(chunk)
        size += len(chunk)
        if size > limit:
            break
    else:
        _send_with_length(
            downstream, exchange, response, field_lines, [*chunks, transform.finish()]
        )
        return
    if downstream.is_http10:
        raise _too_long()
    field_lines = [*_strip_stale_digests(response, field_lines), _CHUNKED]
    downstream.write(_header_section(downstream, response.status, field_lines))
    exchange.status = response.status
    await _send_chunks(downstream, exchange, chain(chunks, rest), chunked=True)
    await _send_chunk(downstream, exchange, transform.finish(), chunked=True)
    downstream.write(_LAST_CHUNK)


async def _stream(
    downstream: DownstreamWriter,
    exchange: Exchange,
    response: UpstreamResponse,
    field_lines: list[bytes],
    transform: BodyTransform | None,
) -> None:
    length = response.content_length
    if transform is not None:
        field_lines, length = _strip_stale_digests(response, field_lines), None
    if length is None and downstream.is_http10:
        await _send_collected_http10(downstream, exchange, response, field_lines, transform)
        return
    chunked = length is None
    if length is None:
        field_lines.append(_CHUNKED)
    else:
        field_lines.append(b"Content-Length: %d\r\n" % length)
    downstream.write(_header_section(downstream, response.status, field_lines))
    exchange.status = response.status
    while chunks := await response.read_chunks():
        downstream.slow_readers, downstream.caller = response.slow_readers, exchange.caller
        if transform is not None or chunked or len(chunks) > 2:
            # Two large chunks stay separate: a second write costs less than a copy. Others are
            # joined, and `chunks` is replaced so that they are not in memory twice.
            chunks = [b"".join(chunks)]
        for chunk in chunks:
            if transform is None:
                await _send_chunk(downstream, exchange, chunk, chunked=chunked)
            else:
                await _send_chunks(
                    downstream, exchange, feed_in_steps(transform, chunk), chunked=chunked
                )
    downstream.slow_readers = None
    if transform is not None:
        await _send_chunk(downstream, exchange, transform.finish(), chunked=chunked)
    if chunked:
        downstream.write(_LAST_CHUNK)


async def _send_chunks(
    downstream: DownstreamWriter, exchange: Exchange, chunks: Iterator[bytes], *, chunked: bool
) -> None:
    """Send chunks as they are produced; other tasks run between two of them."""
    for number, chunk in enumerate(chunks):
        if number:
            await asyncio.sleep(0)
        await _send_chunk(downstream, exchange, chunk, chunked=chunked)


async def _send_chunk(
    downstream: DownstreamWriter, exchange: Exchange, data: bytes, *, chunked: bool
) -> None:
    if not data:
        return
    downstream.write(b"%x\r\n%s\r\n" % (len(data), data) if chunked else data)
    exchange.response_bytes += len(data)
    if downstream.is_write_paused:
        await downstream.drain()


async def _send_collected_http10(
    downstream: DownstreamWriter,
    exchange: Exchange,
    response: UpstreamResponse,
    field_lines: list[bytes],
    transform: BodyTransform | None,
) -> None:
    """Send a response once it is complete; all such responses share one memory budget."""
    chunks: list[bytes] = []
    size = 0
    try:
        while data := await response.read():
            for chunk in iter((data,)) if transform is None else feed_in_steps(transform, data):
                if not downstream.buffer_budget.try_reserve(len(chunk)):
                    raise _too_many()
                chunks.append(chunk)
                size += len(chunk)
                if size > _MAX_HTTP10_BYTES:
                    raise _too_long()
                await asyncio.sleep(0)
        if transform is not None:
            chunks.append(transform.finish())
        _send_buffered(downstream, exchange, response.status, field_lines, chunks)
        await downstream.drain()
    finally:
        downstream.buffer_budget.release(size)


def _too_many() -> GatewayError:
    detail = "too many long answers in HTTP/1.0 at once"
    return GatewayError(errors.OVERLOADED, detail, hint="use HTTP/1.1", retry_after=1.0)


def _too_long() -> GatewayError:
    return GatewayError(
        errors.UPSTREAM_FAILED, "too long for HTTP/1.0", hint="use HTTP/1.1", close_connection=True
    )


def _header_section(
    downstream: DownstreamWriter, status: int, field_lines: list[bytes], body: Sequence[bytes] = ()
) -> bytes:
    """Return a response's head, followed by the body as far as it is given."""
    status_line = _STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status
    return b"".join(
        [
            status_line,
            *field_lines,
            downstream.extra_field_lines,
            downstream.connection_field(),
            b"\r\n",
            *body,
        ]
    )


async def write_local_response(
    downstream: DownstreamWriter, exchange: Exchange, response: LocalResponse
) -> ConnectionDisposition:
    """Send a local response that is not FHIR.

    Its fields take the place of `extra_field_lines`. Raises `CallerDisconnectedError`.
    """
    replaced = frozenset(name.lower().encode("ascii") for name, _ in response.all_headers)
    extra_lines = downstream.extra_field_lines.splitlines(keepends=True)
    downstream.extra_field_lines = b"".join(remove_fields(extra_lines, replaced))
    return await _write_complete(
        downstream, exchange, response.status, response.all_headers, response.body
    )


async def write_outcome(
    downstream: DownstreamWriter,
    exchange: Exchange,
    error: GatewayError,
    *,
    language: str,
    outcome_format: OutcomeFormat,
) -> ConnectionDisposition:
    """Send an error of the gateway, in FHIR or as a page. Raises `CallerDisconnectedError`."""
    exchange.reason = error.reason.code
    if error.close_connection:
        downstream.close_after_response()
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
        return await write_local_response(
            downstream, exchange, replace(page, headers=page.headers + headers)
        )
    body, content_type = write_resource(outcome, xml=outcome_format == "xml")
    headers = (
        ("Content-Type", content_type.decode("ascii")),
        ("Content-Language", language),
        ("Cache-Control", "no-store"),
        *headers,
    )
    return await _write_complete(downstream, exchange, error.status, headers, body)


async def _write_complete(
    downstream: DownstreamWriter,
    exchange: Exchange,
    status: int,
    headers: tuple[tuple[str, str], ...],
    body: bytes,
) -> ConnectionDisposition:
    field_lines = [
        b"Date: %s\r\n" % formatdate(usegmt=True).encode("ascii"),
        b"Content-Length: %d\r\n" % len(body),
        b"X-Request-Id: %s\r\n" % exchange.request_id.encode("ascii"),
    ]
    field_lines += (f"{name}: {value}\r\n".encode("latin-1") for name, value in headers)
    sent = b"" if downstream.is_head_request else body
    downstream.write(_header_section(downstream, status, field_lines, [sent]))
    exchange.status = status
    exchange.response_bytes = len(sent)
    # Errors are cheap to cause: without this wait a caller that reads no responses could fill the
    # memory.
    return await downstream.await_delivery()
