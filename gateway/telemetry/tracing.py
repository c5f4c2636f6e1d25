"""The trace of an exchange: noted while it goes on, made into spans when it is over.

Only while `tracing.otlp_endpoint` is set. On the request's path an attempt costs a few fields and
one header line; spans are made of the finished `Exchange` by whoever `record` is
(`gateway.telemetry.tracing_spans`). What a span tells comes from closed sets: interaction,
resource, status, reason, the caller's configured name. Never a path, a query, an id or an address.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from gateway.exchange import Exchange
from gateway.telemetry.logs import get_logger
from gateway.telemetry.trace_context import SAMPLED, TraceContext, parse_traceparent

_log = get_logger("gateway.tracing")


@dataclass(frozen=True, slots=True)
class TracePeers:
    """The servers behind the gateway, as host and port; `scheme` is that of the callers' side."""

    platform: tuple[str, int]
    sso: tuple[str, int]
    scheme: str = "http"


@dataclass(slots=True)
class UpstreamAttempt:
    """One time that the platform was asked; monotonic seconds. `error` is a word of a closed set.

    `status` is None where there was no answer.
    """

    context: TraceContext
    started_at: float
    ended_at: float | None = None
    status: int | None = None
    error: str | None = None


@dataclass(slots=True)
class Trace:
    """What is noted of one exchange. `parent` is the caller's span, `context` the gateway's own."""

    parent: TraceContext | None
    context: TraceContext
    attempts: list[UpstreamAttempt] = field(default_factory=list)


RecordTrace = Callable[[Exchange, Trace, TracePeers], None]
Account = Callable[[Exchange], None]


class Tracing:
    """Notes traces, and gives those that are sampled to `record` when their exchange is over.

    `sample_ratio` (0 to 1) decides about requests that bring no `traceparent`; of all others their
    sampled flag does.
    """

    def __init__(
        self,
        record: RecordTrace,
        *,
        sample_ratio: float = 1.0,
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._record = record
        self._bound = round(sample_ratio * _RANGE)
        self._random = random

    def start_attempt(self, exchange: Exchange, now: float) -> UpstreamAttempt:
        """The platform is asked now; its context is what the platform gets to know."""
        trace = self._trace_of(exchange)
        attempt = UpstreamAttempt(self._child(trace.context), now)
        trace.attempts.append(attempt)
        exchange.traceparent = str(attempt.context)
        return attempt

    def discard_attempt(self, exchange: Exchange, attempt: UpstreamAttempt) -> None:
        """The platform was not asked after all."""
        trace = self._trace_of(exchange)
        trace.attempts.remove(attempt)
        exchange.traceparent = str(trace.attempts[-1].context if trace.attempts else trace.context)

    def started_by_caller(self, exchange: Exchange) -> bool:
        """Whether the trace is the caller's own, so that its `tracestate` goes on."""
        return self._trace_of(exchange).parent is not None

    def wrap_account(self, peers: TracePeers, account: Account) -> Account:
        """`account`, with the spans made before."""

        def end(exchange: Exchange) -> None:
            self._end(exchange, peers)
            account(exchange)

        return end

    def _end(self, exchange: Exchange, peers: TracePeers) -> None:
        trace = self._trace_of(exchange)
        if not trace.attempts:
            # Audit and metrics tell of the trace too, also where the platform was never asked.
            exchange.traceparent = str(trace.context)
        if not trace.context.is_sampled:
            return
        try:
            self._record(exchange, trace, peers)
        except Exception as error:
            # A bug must not cost the answer. The message could quote something.
            _log.error("no spans could be made", error=type(error).__name__)

    def _trace_of(self, exchange: Exchange) -> Trace:
        trace = exchange.trace
        if isinstance(trace, Trace):
            return trace
        parent = parse_traceparent(exchange.traceparent)
        context = self._new() if parent is None else self._child(parent)
        trace = exchange.trace = Trace(parent, context)
        return trace

    def _new(self) -> TraceContext:
        trace_id = self._random(16).hex()
        sampled = int(trace_id[16:], 16) < self._bound
        return TraceContext(trace_id, self._random(8).hex(), SAMPLED if sampled else 0)

    def _child(self, parent: TraceContext) -> TraceContext:
        return TraceContext(parent.trace_id, self._random(8).hex(), parent.flags)


# The part of a trace's id by which is decided, as in OpenTelemetry's TraceIdRatioBased sampler.
_RANGE: Final = 2**64
