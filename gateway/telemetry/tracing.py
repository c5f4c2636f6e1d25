"""The spans of an exchange, made with OpenTelemetry's API while the exchange goes on.

Imported only if `tracing.otlp_endpoint` is set, because it needs the extra `otel`. One SERVER span
stands for the caller's request. Its children are CLIENT spans: one for each wait for a token, and
one for each attempt of the upstream request. A token request has no span: it serves many requests
and outlives them. Names and attributes follow the semantic conventions
for HTTP, except attributes that could identify patients: no `url.path`, `url.full`, `url.query`,
`client.address` or `user_agent.original`. Interaction and resource type replace them. All values
come from closed sets: interaction, resource, status, reason, the caller's configured name.

The position of a request in a distributed trace follows W3C Trace Context, level 2:
https://www.w3.org/TR/trace-context-2/ section 4. `gateway.telemetry.otlp_export` makes the tracer,
which decides what is sampled.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from opentelemetry.context import Context
from opentelemetry.trace import (
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    StatusCode,
    TraceFlags,
    Tracer,
    set_span_in_context,
)

from gateway.exchange import Exchange
from gateway.field_values import DEFAULT_PORTS, TraceContext, parse_traceparent
from gateway.telemetry.logs import get_logger

Account = Callable[["Exchange"], None]
Attributes = dict[str, str | int]

_log = get_logger("gateway.tracing")

_METHODS: Final = frozenset(
    ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE")
)
# Reasons of requests that failed because there was no token.
_TOKEN_REASONS: Final = frozenset(("token-refused", "sso-unavailable"))
_UNAUTHORIZED: Final = 401


@dataclass(slots=True)
class UpstreamAttempt:
    """One attempt of an upstream request, which began at `started_at` (monotonic seconds)."""

    span: Span
    started_at: float


@dataclass(slots=True)
class Trace:
    """The trace of one exchange.

    * `parent` is the caller's span, `span` that of the gateway.
    * `attempts` is the number of ended attempts.
    * `refused_at`: when the platform refused the token of the last one; None where it did not.
    """

    parent: TraceContext | None
    span: Span
    attempts: int = 0
    refused_at: float | None = None


class Tracing:
    """Makes the spans of exchanges under one version of the settings.

    `is_tls`: callers reach the gateway over TLS.
    """

    def __init__(self, tracer: Tracer, *, is_tls: bool, platform_url: str, token_url: str) -> None:
        self._tracer = tracer
        self._scheme = "https" if is_tls else "http"
        self._platform = _client("dhp-platform", platform_url)
        self._sso = _client("dhp-sso", token_url)

    def start_attempt(self, exchange: Exchange, now: float) -> UpstreamAttempt:
        """Start an attempt. The platform is to get `exchange.traceparent`."""
        trace = self._trace_of(exchange)
        if not trace.span.is_recording():
            # Not sampled: the span of the request stands for its attempts, and costs nothing more.
            return UpstreamAttempt(trace.span, now)
        verb, method = _verb_and_method(exchange)
        attributes = {**self._platform, "http.request.method": method}
        if trace.attempts:
            attributes["http.request.resend_count"] = trace.attempts
        span = self._start_client_span(exchange, trace, verb, attributes, now)
        exchange.traceparent = _traceparent(span, trace.parent)
        return UpstreamAttempt(span, now)

    def end_attempt(
        self,
        exchange: Exchange,
        attempt: UpstreamAttempt,
        now: float,
        *,
        status: int | None = None,
        error: str | None = None,
    ) -> None:
        """End an attempt with the response's `status`, or with a value of `error.type`."""
        trace = self._trace_of(exchange)
        if trace.refused_at is not None:
            self._add_token_wait(exchange, trace, trace.refused_at, attempt.started_at)
        trace.attempts += 1
        trace.refused_at = now if status == _UNAUTHORIZED else None
        if status is not None:
            attempt.span.set_attribute("http.response.status_code", status)
        if status is None or status >= 400:
            attempt.span.set_attribute("error.type", error or str(status))
            attempt.span.set_status(StatusCode.ERROR)
        attempt.span.end(_nanoseconds(exchange, now))

    def started_by_caller(self, exchange: Exchange) -> bool:
        """Return whether the trace was started by the caller, so that `tracestate` is forwarded."""
        return self._trace_of(exchange).parent is not None

    def wrap_account(self, account: Account) -> Account:
        """Return a function that ends the spans of an exchange and then calls `account`."""

        def end(exchange: Exchange) -> None:
            try:
                # Audit and metrics name the trace too, also without an upstream request.
                self._end(exchange, self._trace_of(exchange))
            except Exception as error:
                # A bug must not fail the response. The text of the exception could quote data.
                _log.error("no spans could be made", error=type(error).__name__)
            account(exchange)

        return end

    def _trace_of(self, exchange: Exchange) -> Trace:
        """Return the trace of an exchange; the first call begins it."""
        trace = exchange.trace
        if isinstance(trace, Trace):
            return trace
        parent = parse_traceparent(exchange.traceparent)
        span = self._tracer.start_span(
            _verb_and_method(exchange)[0],
            # Without a parent an empty context, because the ambient current context is unrelated.
            context=Context() if parent is None else _remote(parent),
            kind=SpanKind.SERVER,
            start_time=_nanoseconds(exchange, exchange.started_monotonic),
        )
        trace = exchange.trace = Trace(parent, span)
        exchange.traceparent = _traceparent(span, parent)
        return trace

    def _end(self, exchange: Exchange, trace: Trace) -> None:
        span, ended_at = trace.span, exchange.started_monotonic + exchange.duration
        if not span.is_recording():
            return
        is_refused = exchange.reason in _TOKEN_REASONS
        if exchange.token_wait is not None:
            failed = is_refused and not trace.attempts
            self._add_token_wait(exchange, trace, *exchange.token_wait, failed=failed)
        if trace.refused_at is not None and is_refused:
            self._add_token_wait(exchange, trace, trace.refused_at, ended_at, failed=True)
        verb, method = _verb_and_method(exchange)
        span.update_name(" ".join(filter(None, (verb, exchange.interaction, exchange.resource))))
        span.set_attributes(self._server_attributes(exchange, method))
        # By the conventions a 4xx response is not an error of the server.
        if exchange.status >= 500 or (exchange.is_aborted and exchange.reason):
            span.set_attribute("error.type", exchange.reason or str(exchange.status))
            span.set_status(StatusCode.ERROR)
        span.end(_nanoseconds(exchange, ended_at))

    def _server_attributes(self, exchange: Exchange, method: str) -> Attributes:
        attributes: Attributes = {
            "http.request.method": method,
            "url.scheme": self._scheme,
            "http.request.body.size": exchange.request_bytes,
            "http.response.body.size": exchange.response_bytes,
            "dhp_gateway.caller": exchange.caller,
            "dhp_gateway.interaction": exchange.interaction,
            "dhp_gateway.resource": exchange.resource,
            "dhp_gateway.outcome": exchange.outcome,
            "dhp_gateway.attempts": exchange.attempts,
        }
        if exchange.status:
            attributes["http.response.status_code"] = exchange.status
        if exchange.reason:
            attributes["dhp_gateway.reason"] = exchange.reason
        return attributes

    def _add_token_wait(
        self,
        exchange: Exchange,
        trace: Trace,
        started_at: float,
        ended_at: float,
        *,
        failed: bool = False,
    ) -> None:
        span = self._start_client_span(exchange, trace, "token", self._sso, started_at)
        if failed:
            span.set_attribute("error.type", exchange.reason)
            span.set_status(StatusCode.ERROR)
        span.end(_nanoseconds(exchange, ended_at))

    def _start_client_span(
        self, exchange: Exchange, trace: Trace, name: str, attributes: Attributes, now: float
    ) -> Span:
        return self._tracer.start_span(
            name,
            context=set_span_in_context(trace.span, Context()),
            kind=SpanKind.CLIENT,
            attributes=attributes,
            start_time=_nanoseconds(exchange, now),
        )


def _verb_and_method(exchange: Exchange) -> tuple[str, str]:
    """Return the method as names of spans have it, and as the attribute has it."""
    known = exchange.method in _METHODS
    return (exchange.method, exchange.method) if known else ("HTTP", "_OTHER")


def _client(service: str, url: str) -> Attributes:
    """Return the attributes of a request to the server of this URL."""
    parts = urlsplit(url)
    return {
        "peer.service": service,
        "server.address": parts.hostname or "",
        "server.port": parts.port or DEFAULT_PORTS[parts.scheme],
    }


def _remote(parent: TraceContext) -> Context:
    span_context = SpanContext(
        int(parent.trace_id, 16),
        int(parent.span_id, 16),
        is_remote=True,
        trace_flags=TraceFlags(parent.flags),
    )
    return set_span_in_context(NonRecordingSpan(span_context), Context())


def _traceparent(span: Span, parent: TraceContext | None) -> str:
    """Return the field that names a span as the parent.

    Whether the trace id is random is passed on as the caller said it.
    """
    context = span.get_span_context()
    flags = context.trace_flags & TraceFlags.SAMPLED
    if parent is not None:
        flags |= parent.flags & ~TraceFlags.SAMPLED
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{flags:02x}"


def _nanoseconds(exchange: Exchange, moment: float) -> int:
    """Convert monotonic seconds to nanoseconds since 1970."""
    return round((exchange.started_at - exchange.started_monotonic + moment) * 1e9)
