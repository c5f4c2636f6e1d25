"""Sends a request to the platform and returns the response, with retries where they are safe.

An attempt is retried only where the platform cannot have acted: no connection could be made, or the
request is safe and nothing of a response was forwarded (RFC 9110 section 9.2.2). A timeout is never
followed by another attempt. Retries are limited by a budget, their share of the requests, so that a
failing platform does not get three times the load. While tracing is on, each attempt has a span,
which the platform gets as `traceparent`.

A 401 means that the platform rejected the token before it did anything (RFC 9110 section 15.5.2),
so that one retry with a new token is correct for every method. There is never a second one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from gateway import errors
from gateway.clock import backoff
from gateway.errors import GatewayError
from gateway.field_values import parse_retry_after
from gateway.http.client.body_completeness import is_complete
from gateway.http.client.response_head import (
    Framing,
    ResponseFields,
    ResponseHead,
    UpstreamConnectionError,
)
from gateway.http.client.upstream_connect import NOT_ACCEPTED
from gateway.http.client.upstream_response import UpstreamResponse
from gateway.http.headers import PSEUDONYM
from gateway.http.server.request_checks import METHODS
from gateway.pipeline.admission import TokenBucket
from gateway.pipeline.request_body import BufferedBody, CallerDisconnectedError, RequestBody

if TYPE_CHECKING:
    from gateway.config.outbound_settings import PlatformSettings, RetriesSettings
    from gateway.exchange import Exchange
    from gateway.health.platform_judgement import PlatformJudgement
    from gateway.http.client.upstream_connection import UpstreamConnection
    from gateway.http.client.upstream_pool import UpstreamPool
    from gateway.oauth.token_response import AccessToken
    from gateway.oauth.token_store import TokensInUse
    from gateway.telemetry.tracing import Tracing

# Retries a second that the budget grants in any case.
_MIN_RETRIES_PER_SECOND: Final = 3.0
# Retries that can accumulate in a quiet hour; more would let one bad minute double the load.
_MAX_BALANCE: Final = 100.0
# The longest pause before a retry, in seconds. A platform that asks for more gets no retry.
_MAX_RETRY_DELAY: Final = 2.0


class RetryBudget:
    """Lets a share (`ratio`) of the requests be retried, and always three a second."""

    def __init__(self, ratio: float, clock: Callable[[], float]) -> None:
        self._ratio = ratio
        self._balance = 0.0
        self._floor = TokenBucket(_MIN_RETRIES_PER_SECOND, None, clock)

    def deposit(self) -> None:
        """Add one request's share to the budget."""
        self._balance = min(_MAX_BALANCE, self._balance + self._ratio)

    def withdraw(self) -> bool:
        """Withdraw one retry; False when the budget is spent."""
        if self._balance >= 1:
            self._balance -= 1
            return True
        if self._floor.seconds_until_available():
            return False
        self._floor.take()
        return True


BODILESS_METHODS: Final = frozenset(("GET", "HEAD", "OPTIONS", "DELETE"))
"""Methods whose bodies are not forwarded.

FHIR gives them no meaning, and a platform that ignores such a body would parse it as a request.
"""

_MAX_BUFFERED_BYTES: Final = 16 * 1024 * 1024
_RETRYABLE_STATUSES: Final = frozenset((502, 503, 504))
# Statuses of requests that were not processed, and are sent again with another token or coding.
_UNPROCESSED_STATUSES: Final = frozenset((401, 415))
# Reasons of attempts that were sent and may have had an effect.
_UNCLEAR_REASONS: Final = (errors.UPSTREAM_FAILED, errors.UPSTREAM_TIMEOUT)
_CHUNKED: Final = b"Transfer-Encoding: chunked\r\n"
_VIA: Final = b"Via: 1.1 " + PSEUDONYM + b"\r\n"


@dataclass(slots=True)
class UpstreamRequest:
    """A request as the platform gets it, except for the token.

    * `target`: the origin form of the request target at the platform.
    * `field_lines`: the caller's field lines for the platform.
    * `is_retryable`: it may be retried after a failure that leaves the outcome unknown.
    * `is_final_recipient`: it must not be forwarded (Max-Forwards).
    * `allow_when_open`: it is sent also while the circuit is open.
    * `proves_token`: a response to it shows that the platform accepts the token.
    """

    method: str
    target: bytes
    field_lines: list[bytes]
    request_id: str
    body: RequestBody | BufferedBody | None
    is_retryable: bool
    is_final_recipient: bool = False
    allow_when_open: bool = False
    proves_token: bool = True


class TokenExpiredError(Exception):
    """The token expired while its request waited for a connection or before another attempt.

    Of that attempt nothing was sent.
    """


class Upstream:
    """The platform as the request path uses it.

    `uploads` limits streamed bodies, and `on_retry` is called with the cause of each retry.
    `tracing` makes the spans of attempts, None for none. The clocks are in seconds; `random`
    returns numbers below 1, which spread retries.
    """

    def __init__(
        self,
        *,
        pool: UpstreamPool,
        platform: PlatformSettings,
        retries: RetriesSettings,
        judgement: PlatformJudgement,
        uploads: AbstractAsyncContextManager[None],
        on_retry: Callable[[str], None],
        tracing: Tracing | None,
        monotonic: Callable[[], float],
        wall: Callable[[], float],
        random: Callable[[], float],
    ) -> None:
        self._pool = pool
        self._host = b"Host: " + platform.authority + b"\r\n"
        self._max_attempts = retries.max_attempts
        self._backoff = retries.backoff
        self._budget = RetryBudget(retries.budget_ratio, monotonic)
        self._judgement = judgement
        self._uploads = uploads
        self._on_retry = on_retry
        self._tracing = tracing
        self._monotonic = monotonic
        self._wall = wall
        self._random = random

    async def send(
        self, exchange: Exchange, outgoing: UpstreamRequest, token: AccessToken
    ) -> UpstreamResponse:
        """Send the request; return when the beginning of the response has arrived.

        Counts attempts on `exchange`, including those before a token was replaced. Raises
        `GatewayError` (upstream-*, circuit-open), `TokenExpiredError`, and what reading the
        caller's body raises.
        """
        # Once for each request, whatever it takes: what was sent must not be told to be held off.
        if not outgoing.allow_when_open and not exchange.attempts:
            self._judgement.admit(exchange)
        self._budget.deposit()
        # A request of the gateway itself has no method and no accounting.
        tracing = self._tracing if exchange.method else None
        new = False
        while True:
            try:
                if tracing is None:
                    response = await self._attempt(exchange, outgoing, token, new=new)
                else:
                    response = await self._traced_attempt(
                        tracing, exchange, outgoing, token, new=new
                    )
            except (UpstreamConnectionError, GatewayError) as failure:
                error, cause = _error_of_failure(failure, safe=outgoing.is_retryable)
                if error.reason in _UNCLEAR_REASONS:
                    exchange.delivery = "unclear"
                # If one reused connection broke, others probably did; a new connection gives a
                # clearer result.
                new = isinstance(failure, UpstreamConnectionError)
                if not error.is_retryable or not self._can_retry(exchange, outgoing):
                    try:
                        raise error from None
                    finally:
                        # Break the cycle of error, traceback and frame, which keeps the body.
                        del error
                delay = self._delay_after(exchange.attempts)
            else:
                _record_status(exchange, response.status)
                retry_delay = self._retry_delay(response, outgoing, exchange.attempts)
                if retry_delay is None or not self._can_retry(exchange, outgoing):
                    return response
                response.close()
                cause, delay = "status", retry_delay
            self._on_retry(cause)
            await asyncio.sleep(delay)

    def _can_retry(self, exchange: Exchange, outgoing: UpstreamRequest) -> bool:
        """Return whether attempts, body and budget allow a retry; withdraws it from the budget."""
        if exchange.attempts >= self._max_attempts or self._judgement.state:
            return False
        body = outgoing.body
        if body is not None:
            if not body.is_replayable:
                return False
            body.rewind()
        return self._budget.withdraw()

    def _retry_delay(
        self, response: UpstreamResponse, outgoing: UpstreamRequest, attempt: int
    ) -> float | None:
        """Return the seconds until the retry, None where the response is final."""
        if response.status not in _RETRYABLE_STATUSES or not outgoing.is_retryable:
            return None
        retry_after = parse_retry_after(response.field(b"retry-after"), self._wall())
        if retry_after is None:
            return self._delay_after(attempt)
        return retry_after if retry_after <= _MAX_RETRY_DELAY else None

    def _delay_after(self, attempt: int) -> float:
        """Return the seconds to wait after this attempt (first: 1): exponential, with jitter."""
        return backoff(attempt, self._backoff, _MAX_RETRY_DELAY, self._random)

    async def _traced_attempt(
        self,
        tracing: Tracing,
        exchange: Exchange,
        outgoing: UpstreamRequest,
        token: AccessToken,
        *,
        new: bool,
    ) -> UpstreamResponse:
        """Make one attempt, and its span."""
        attempt = tracing.start_attempt(exchange, self._monotonic())
        keeps_state = tracing.started_by_caller(exchange)
        lines = _with_trace_context(
            outgoing.field_lines, exchange.traceparent or "", keeps_state=keeps_state
        )
        try:
            response = await self._attempt(
                exchange, replace(outgoing, field_lines=lines), token, new=new
            )
        except BaseException as error:
            tracing.end_attempt(exchange, attempt, self._monotonic(), error=_error_type(error))
            raise
        tracing.end_attempt(exchange, attempt, self._monotonic(), status=response.status)
        return response

    async def _attempt(
        self, exchange: Exchange, outgoing: UpstreamRequest, token: AccessToken, *, new: bool
    ) -> UpstreamResponse:
        exchange.attempts += 1
        exchange.upstream_status = None
        connection: UpstreamConnection | None = None
        try:
            body = outgoing.body
            buffered = b"" if body is None else body.buffered()
            if body is not None and buffered is None:
                async with self._uploads:
                    connection = await self._pool.acquire(exchange.caller, force_new=new)
                    await self._stream(connection, outgoing, body, token)
            else:
                idle_connection = None if new else self._pool.try_acquire_idle(exchange.caller)
                connection = idle_connection or await self._pool.acquire(
                    exchange.caller, force_new=new
                )
                connection.start_exchange(
                    expect_body=outgoing.method != "HEAD", has_body=bool(buffered)
                )
                content = buffered or b""
                # Some servers answer 411 to a POST without a length (RFC 9110 section 8.6).
                is_bodiless = body is None and outgoing.method in BODILESS_METHODS
                framing = b"" if is_bodiless else b"Content-Length: %d\r\n" % len(content)
                message = self._header_section(outgoing, token, framing)
                message.append(content)
                connection.write_request(b"".join(message))
            while (head := connection.head()) is None:
                await connection.next_event()
            response = UpstreamResponse(head, connection, self._pool)
            if response.framing is Framing.CLOSE:
                await self._buffer_until_close(response)
            elif not response.take_complete_body():
                await response.prefetch()
        except BaseException:
            if connection is not None:
                connection.abort()
                self._pool.release(connection)
            raise
        return response

    async def _stream(
        self,
        connection: UpstreamConnection,
        outgoing: UpstreamRequest,
        body: RequestBody | BufferedBody,
        token: AccessToken,
    ) -> None:
        """Send a request with a streamed body."""
        expect_body = outgoing.method != "HEAD"
        connection.start_exchange(expect_body=expect_body, has_body=True, is_streamed=True)
        length = body.length
        framing = _CHUNKED if length is None else b"Content-Length: %d\r\n" % length
        head = self._header_section(outgoing, token, framing)
        connection.write(b"".join(head))
        # Raises if the connection failed before anything was sent: the body remains for another
        # connection.
        connection.head()
        await self._upload(connection, body, chunked=length is None)

    def _header_section(
        self, outgoing: UpstreamRequest, token: AccessToken, framing: bytes
    ) -> list[bytes]:
        """Return the request line and header section, with the body's framing, in parts.

        Raises `TokenExpiredError`.
        """
        if self._monotonic() >= token.usable_until:
            raise TokenExpiredError
        return [
            outgoing.method.encode("ascii"),
            b" ",
            outgoing.target,
            b" HTTP/1.1\r\n",
            self._host,
            *outgoing.field_lines,
            b"Authorization: ",
            token.authorization,
            b"\r\n",
            _VIA,
            b"X-Request-Id: ",
            outgoing.request_id.encode("ascii"),
            b"\r\n",
            framing,
            b"\r\n",
        ]

    async def _upload(
        self, connection: UpstreamConnection, body: RequestBody | BufferedBody, *, chunked: bool
    ) -> None:
        """Stream the body until it ends or the platform responds before its end."""
        pump = asyncio.get_running_loop().create_task(_pump(connection, body, chunked=chunked))
        head_task = asyncio.get_running_loop().create_task(connection.wait_for_head())
        failure: BaseException | None = None
        try:
            await asyncio.wait((pump, head_task), return_when=asyncio.FIRST_COMPLETED)
            if pump.done():
                pump.result()
        except BaseException as error:
            # Raised below and not from a `finally` that awaits: see `http.server.task_root`.
            failure = error
        for task in (pump, head_task):
            task.cancel()
        await asyncio.gather(pump, head_task, return_exceptions=True)
        if failure is None:
            return
        try:
            raise failure
        finally:
            # Break the cycle of error, traceback and frame.
            del failure, pump

    async def _buffer_until_close(self, response: UpstreamResponse) -> None:
        """Buffer a response framed only by the connection's end, and check that it is complete."""
        await response.prefetch(_MAX_BUFFERED_BYTES)
        if not response.is_complete or not await is_complete(
            response.content_type, response.content_coding, response.buffered_body
        ):
            raise UpstreamConnectionError("truncated", reused=False)


async def _pump(
    connection: UpstreamConnection, body: RequestBody | BufferedBody, *, chunked: bool
) -> None:
    while True:
        connection.suspend_deadline()
        data = await body.read_chunk()
        if not data:
            break
        connection.write(b"%x\r\n%s\r\n" % (len(data), data) if chunked else data)
        await connection.drain()
    connection.mark_body_sent()
    connection.write(b"0\r\n\r\n" if chunked else b"")


def _record_status(exchange: Exchange, status: int) -> None:
    exchange.upstream_status = status
    if status not in _UNPROCESSED_STATUSES:
        exchange.delivery = "unclear"
    elif exchange.delivery == "none":
        exchange.delivery = "refused"


def _error_of_failure(
    failure: UpstreamConnectionError | GatewayError, *, safe: bool
) -> tuple[GatewayError, str]:
    """Return the error of a failed attempt, and the cause under which a retry is counted."""
    if isinstance(failure, GatewayError):
        return failure, "connect"
    if failure.kind == "unsent":
        return connection_error(failure), "reused"
    cause = "reused" if failure.is_reused_connection and failure.kind == "closed" else "broken"
    return connection_error(failure, safe=safe), cause


# Diagnostics of a write that may have had its effect.
OUTCOME_UNKNOWN: Final = "outcome unknown"


def connection_error(
    failure: UpstreamConnectionError | GatewayError, *, safe: bool | None = None
) -> GatewayError:
    """Return the error for a connection that gave no complete, valid response.

    A `GatewayError`, for one that could not be had, is returned unchanged. `safe` is None where
    that is not known; a request that is not safe may have had its effect.
    """
    if isinstance(failure, GatewayError):
        return failure
    hint = OUTCOME_UNKNOWN if safe is False else ""
    if failure.kind == "timeout":
        return GatewayError(errors.UPSTREAM_TIMEOUT, _DETAILS[failure.kind], hint=hint)
    if failure.kind == "certificate":
        return GatewayError(errors.UPSTREAM_TLS, _DETAILS[failure.kind])
    if failure.kind == "unsent":
        # Equivalent to a connection that could not be made.
        return GatewayError(errors.UPSTREAM_UNREACHABLE, _DETAILS[failure.kind], is_retryable=True)
    return GatewayError(
        errors.UPSTREAM_FAILED, _DETAILS[failure.kind], hint=hint, is_retryable=bool(safe)
    )


_DETAILS: Final = {
    "unsent": "the platform spoke or ended on a kept connection before it was asked",
    "closed": "the platform closed the connection before it answered",
    "truncated": "the platform's answer ended before it was complete",
    "protocol": "the platform's answer is not valid HTTP",
    "timeout": "the platform did not answer in time",
    "certificate": f"no secure connection: the platform {NOT_ACCEPTED}",
}


_TRACE_FIELDS: Final = (b"traceparent:", b"tracestate:")
# A value of the attribute `error.type`, which operators may filter by.
_CALLER_GONE: Final = "CallerGone"


def _with_trace_context(
    field_lines: list[bytes], traceparent: str, *, keeps_state: bool
) -> list[bytes]:
    """Return the field lines with a new `traceparent` (W3C Trace Context section 4.3).

    `keeps_state`: the caller started the trace, and its `tracestate` remains. In a trace that
    begins here the `tracestate` belongs to no trace and is removed.
    """
    dropped = _TRACE_FIELDS[:1] if keeps_state else _TRACE_FIELDS
    placed = [line for line in field_lines if not line[:12].lower().startswith(dropped)]
    placed.append(b"traceparent: %s\r\n" % traceparent.encode("ascii"))
    return placed


def _error_type(error: BaseException) -> str:
    """Return the value of the attribute `error.type`, which is from a closed set."""
    if isinstance(error, GatewayError):
        return error.reason.code
    if isinstance(error, CallerDisconnectedError):
        return _CALLER_GONE
    return error.kind if isinstance(error, UpstreamConnectionError) else type(error).__name__


def _final_recipient_response() -> UpstreamResponse:
    """Return the response of the gateway as the final recipient of an OPTIONS request."""
    allow = ", ".join(sorted(METHODS)).encode("ascii")
    return UpstreamResponse(
        ResponseHead(204, ResponseFields.from_pairs([(b"Allow", allow)]), Framing.NONE, None)
    )


class TokenRetry:
    """Forwards with an access token, and once more with a new token after a 401."""

    def __init__(self, upstream: Upstream, on_retry: Callable[[str], None]) -> None:
        self._upstream = upstream
        self._on_retry = on_retry

    async def send(
        self, exchange: Exchange, outgoing: UpstreamRequest, tokens: TokensInUse, token: AccessToken
    ) -> UpstreamResponse:
        """Return the platform's response, which is never a 401. Raises `GatewayError`.

        `token` is the current one of `tokens`.
        """
        if outgoing.is_final_recipient:
            return _final_recipient_response()
        response, token = await self._send(exchange, outgoing, tokens, token)
        if response.status == 401:
            token = await self._replacement_token(response, outgoing, tokens, token)
            self._on_retry("token")
            response, token = await self._send(exchange, outgoing, tokens, token)
        if response.status == 401:
            response.close()
            tokens.on_fresh_token_rejected(token)
            raise _token_rejected_error("the platform refused a fresh token")
        if response.status < 500 and outgoing.proves_token:
            tokens.on_token_accepted(token)
        return response

    async def _send(
        self, exchange: Exchange, outgoing: UpstreamRequest, tokens: TokensInUse, token: AccessToken
    ) -> tuple[UpstreamResponse, AccessToken]:
        """Return the response and the token with which it was got."""
        while True:
            exchange.token_id = token.token_id
            try:
                return await self._upstream.send(exchange, outgoing, token), token
            except TokenExpiredError:
                token = await tokens.wait_for_token()

    async def _replacement_token(
        self,
        response: UpstreamResponse,
        outgoing: UpstreamRequest,
        tokens: TokensInUse,
        token: AccessToken,
    ) -> AccessToken:
        response.close()
        body = outgoing.body
        if body is not None:
            if not body.is_replayable:
                tokens.invalidate(token)
                detail = "the platform refused the token, and the body cannot be sent again"
                raise _token_rejected_error(detail, advice="body-gone")
            body.rewind()
        return await tokens.replace_rejected(token)


def _token_rejected_error(detail: str, advice: str = "") -> GatewayError:
    return GatewayError(errors.TOKEN_REJECTED, detail, upstream_status=401, advice_key=advice)
