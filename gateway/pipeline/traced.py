"""`Upstream` with a span for each attempt; used only while tracing is on."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Final

from gateway.errors import GatewayError
from gateway.exchange import Exchange
from gateway.http.client.framing import UpstreamConnectionError
from gateway.http.client.pool import UpstreamPool
from gateway.http.client.response import UpstreamResponse
from gateway.pipeline.request_body import CallerDisconnectedError
from gateway.pipeline.upstream import RetryControls, Upstream, UpstreamRequest
from gateway.telemetry.tracing import Tracing

_FIELDS: Final = (b"traceparent:", b"tracestate:")
# A value of the attribute `error.type`, which operators may filter by.
_CALLER_GONE: Final = "CallerGone"


class TracedUpstream(Upstream):
    """An `Upstream` that sends the span of each attempt to the platform as `traceparent`."""

    def __init__(
        self,
        tracing: Tracing,
        pool: UpstreamPool,
        *,
        authority: bytes,
        retry_controls: RetryControls,
        uploads: AbstractAsyncContextManager[None],
        on_retry: Callable[[str], None],
    ) -> None:
        super().__init__(
            pool,
            authority=authority,
            retry_controls=retry_controls,
            uploads=uploads,
            on_retry=on_retry,
        )
        self._tracing = tracing

    async def _attempt(
        self, exchange: Exchange, outgoing: UpstreamRequest, authorization: bytes, *, new: bool
    ) -> UpstreamResponse:
        if not exchange.method:
            # A request of the gateway itself, for which there is no accounting.
            return await super()._attempt(exchange, outgoing, authorization, new=new)
        before = exchange.attempts
        attempt = self._tracing.start_attempt(exchange, time.monotonic())
        keeps_state = self._tracing.started_by_caller(exchange)
        outgoing = replace(
            outgoing,
            field_lines=_with_trace_context(
                outgoing.field_lines, str(attempt.context), keeps_state=keeps_state
            ),
        )
        try:
            response = await super()._attempt(exchange, outgoing, authorization, new=new)
        except BaseException as error:
            attempt.ended_at, attempt.error = time.monotonic(), _error_type(error)
            if exchange.attempts == before:
                # No attempt was made: the circuit was open.
                self._tracing.discard_attempt(exchange, attempt)
            raise
        attempt.ended_at, attempt.status = time.monotonic(), response.status
        return response


def _with_trace_context(
    field_lines: list[bytes], traceparent: str, *, keeps_state: bool
) -> list[bytes]:
    """Return the field lines with a new `traceparent` (W3C Trace Context section 4.3).

    `keeps_state`: the caller started the trace, and its `tracestate` remains. In a trace that
    begins here the `tracestate` belongs to no trace and is removed.
    """
    dropped = _FIELDS[:1] if keeps_state else _FIELDS
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
