"""The trace of an exchange: collected during the exchange, converted to spans at its end.

Used only if `tracing.otlp_endpoint` is set. On the request path an attempt costs a few fields and
one header field. The position of a request in a distributed trace follows W3C Trace Context, level
2: https://www.w3.org/TR/trace-context-2/ sections 3.2 (`traceparent`) and 4 (how to process it).

`gateway.telemetry.otlp_export` makes spans from the finished `Exchange`. Their content comes from
closed sets: interaction, resource, status, reason, the caller's configured name. It is never a
path, query, id or address.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from gateway.exchange import Exchange
from gateway.telemetry.logs import get_logger

# Later versions may append data to the flags; their first four parts are parsed as version 00.
_TRACEPARENT: Final = re.compile(
    r"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?"
)
SAMPLED: Final = 0x01
# The flags that are passed on: sampled, and random trace id.
_KNOWN: Final = 0x03


@dataclass(frozen=True, slots=True)
class TraceContext:
    """A span's position in a trace; ids in lower-case hexadecimal."""

    trace_id: str
    span_id: str
    flags: int

    @property
    def is_sampled(self) -> bool:
        """Whether the sampled flag is set: the caller may have recorded this trace."""
        return bool(self.flags & SAMPLED)

    def __str__(self) -> str:
        return f"00-{self.trace_id}-{self.span_id}-{self.flags:02x}"


def parse_traceparent(traceparent: str | None) -> TraceContext | None:
    """Return the context of a `traceparent`; None if there is none or it is invalid."""
    match = None if traceparent is None else _TRACEPARENT.fullmatch(traceparent)
    if match is None or (match[1] == "00" and match[5] is not None):
        return None
    return TraceContext(match[2], match[3], int(match[4], 16) & _KNOWN)


_log = get_logger("gateway.tracing")


@dataclass(frozen=True, slots=True)
class TracePeers:
    """The servers behind the gateway, as host and port. `scheme` is that of the downstream side."""

    platform: tuple[str, int]
    sso: tuple[str, int]
    scheme: str = "http"


@dataclass(slots=True)
class UpstreamAttempt:
    """One attempt of an upstream request. Times are monotonic seconds.

    `error` is a value of a closed set. `status` is None if there was no response.
    """

    context: TraceContext
    started_at: float
    ended_at: float | None = None
    status: int | None = None
    error: str | None = None


@dataclass(slots=True)
class Trace:
    """The trace of one exchange. `parent` is the caller's span, `context` that of the gateway."""

    parent: TraceContext | None
    context: TraceContext
    attempts: list[UpstreamAttempt] = field(default_factory=list)


RecordTrace = Callable[[Exchange, Trace, TracePeers], None]
Account = Callable[[Exchange], None]


class Tracing:
    """Collects traces, and passes sampled ones to `record` when their exchange has ended.

    `sample_ratio` (0 to 1) applies to requests without a `traceparent`; for all others their
    sampled flag decides.
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
        """Start an attempt. Its context is sent to the platform."""
        trace = self._trace_of(exchange)
        attempt = UpstreamAttempt(self._child(trace.context), now)
        trace.attempts.append(attempt)
        exchange.traceparent = str(attempt.context)
        return attempt

    def discard_attempt(self, exchange: Exchange, attempt: UpstreamAttempt) -> None:
        """Remove an attempt that did not send a request."""
        trace = self._trace_of(exchange)
        trace.attempts.remove(attempt)
        exchange.traceparent = str(trace.attempts[-1].context if trace.attempts else trace.context)

    def started_by_caller(self, exchange: Exchange) -> bool:
        """Return whether the trace was started by the caller, so that `tracestate` is forwarded."""
        return self._trace_of(exchange).parent is not None

    def wrap_account(self, peers: TracePeers, account: Account) -> Account:
        """Return a function that makes the spans of an exchange and then calls `account`."""

        def end(exchange: Exchange) -> None:
            self._end(exchange, peers)
            account(exchange)

        return end

    def _end(self, exchange: Exchange, peers: TracePeers) -> None:
        trace = self._trace_of(exchange)
        if not trace.attempts:
            # Audit and metrics name the trace too, also without an upstream request.
            exchange.traceparent = str(trace.context)
        if not trace.context.is_sampled:
            return
        try:
            self._record(exchange, trace, peers)
        except Exception as error:
            # A bug must not fail the response. The text of the exception could quote data.
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


# The part of a trace id that decides about sampling, as in OpenTelemetry's TraceIdRatioBased
# sampler.
_RANGE: Final = 2**64
