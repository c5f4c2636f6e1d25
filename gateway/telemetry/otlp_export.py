"""Spans of finished exchanges, and their export by OTLP/HTTP in a separate thread (extra `otel`).

Imported only if `tracing.otlp_endpoint` is set. One SERVER span stands for the caller's request.
Its children are CLIENT spans: one for each wait for a token, and one for each attempt of the
upstream request. Names and attributes follow the semantic conventions for HTTP, except attributes
that could identify patients: no `url.path`, `url.full`, `url.query`, `client.address` or
`user_agent.original`. Interaction and resource type replace them.

An unreachable collector costs spans, never requests: the queue is limited, and spans that do not
fit are dropped. A failure is logged when it begins, then every minute, and when it is over. When
the gateway stops, losses that were not logged yet are logged.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from random import getrandbits
from typing import TYPE_CHECKING, Final

import requests
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)

from gateway import __version__
from gateway.telemetry.logs import get_logger

if TYPE_CHECKING:
    from gateway.config.operations_settings import TracingSettings
    from gateway.exchange import Exchange
    from gateway.secret import Secret
    from gateway.telemetry.tracing import Trace, TraceContext, TracePeers, UpstreamAttempt

Attributes = dict[str, str | int]

_METHODS: Final = frozenset(
    ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE")
)
# Reasons of requests that failed because there was no token.
_TOKEN_REASONS: Final = frozenset(("token-refused", "sso-unavailable"))
_UNAUTHORIZED: Final = 401


class _PresetIdGenerator(IdGenerator):
    """Returns ids that were set before, since the platform has already received them."""

    def __init__(self) -> None:
        self.trace_id = 0
        self.span_id = 0

    def generate_trace_id(self) -> int:
        """Return the id of the next trace (IdGenerator)."""
        return self.trace_id

    def generate_span_id(self) -> int:
        """Return the id of the next span (IdGenerator)."""
        return self.span_id


class SpanFactory:
    """Makes spans and passes them to a processor. All methods are called in the loop's thread."""

    def __init__(self, processor: SpanProcessor, resource: Mapping[str, str]) -> None:
        self._ids = _PresetIdGenerator()
        self._provider = TracerProvider(
            # The sampling decision was made when the trace began.
            sampler=ALWAYS_ON,
            resource=Resource(dict(resource)),
            shutdown_on_exit=False,
            id_generator=self._ids,
            span_limits=SpanLimits(),
        )
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("gateway", __version__)

    def shutdown(self) -> None:
        """Export the remaining spans, blocking."""
        self._provider.shutdown()

    def record(self, exchange: Exchange, trace: Trace, peers: TracePeers) -> None:
        """Make the spans of a finished exchange."""
        exchange_spans = _ExchangeSpans(exchange, trace, peers)
        above = None if trace.parent is None else _remote(trace.parent)
        self._emit(trace.context, above, exchange_spans.server_span())
        within = _local(trace.context)
        for span_data in exchange_spans.token_wait_spans():
            self._emit(None, within, span_data)
        for number, attempt in enumerate(trace.attempts):
            self._emit(attempt.context, within, exchange_spans.attempt_span(number, attempt))

    def _emit(
        self, context: TraceContext | None, above: SpanContext | None, span_data: _SpanData
    ) -> None:
        drawn = getrandbits(64)  # nosec B311 - identifies a span, no secret
        self._ids.span_id = drawn if context is None else int(context.span_id, 16)
        self._ids.trace_id = 0 if context is None else int(context.trace_id, 16)
        # Without a parent an empty context, because the ambient current context is unrelated.
        parent = Context() if above is None else _child_context(above)
        span = self._tracer.start_span(
            span_data.name,
            context=parent,
            kind=span_data.kind,
            attributes=span_data.attributes,
            start_time=span_data.started_at,
        )
        if span_data.failed:
            span.set_status(Status(StatusCode.ERROR))
        span.end(span_data.ended_at)


@dataclass(frozen=True, slots=True)
class _SpanData:
    """The data of a span to make; times are nanoseconds since 1970."""

    name: str
    kind: SpanKind
    attributes: Attributes
    started_at: int
    ended_at: int
    failed: bool = False


class _ExchangeSpans:
    """Converts an exchange to the data of its spans."""

    def __init__(self, exchange: Exchange, trace: Trace, peers: TracePeers) -> None:
        self._exchange = exchange
        self._trace = trace
        self._peers = peers
        known = exchange.method in _METHODS
        self._method = exchange.method if known else "_OTHER"
        self._verb = exchange.method if known else "HTTP"
        self._end = exchange.started_monotonic + exchange.duration

    def server_span(self) -> _SpanData:
        """Return the span of the caller's request."""
        exchange = self._exchange
        attributes: Attributes = {
            "http.request.method": self._method,
            "url.scheme": self._peers.scheme,
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
        # By the conventions a 4xx response is not an error of the server.
        failed = exchange.status >= 500 or (exchange.is_aborted and bool(exchange.reason))
        if failed:
            attributes["error.type"] = exchange.reason or str(exchange.status)
        name = " ".join(filter(None, (self._verb, exchange.interaction, exchange.resource)))
        return _SpanData(
            name,
            SpanKind.SERVER,
            attributes,
            *self._times(exchange.started_monotonic, self._end),
            failed,
        )

    def token_wait_spans(self) -> Iterator[_SpanData]:
        """Yield the spans of waiting for a token, also after a 401."""
        refused = self._exchange.reason in _TOKEN_REASONS
        if (wait := self._exchange.token_wait) is not None:
            yield self._token_wait(*wait, failed=refused and not self._trace.attempts)
        attempts = self._trace.attempts
        for attempt, following in zip_longest(attempts, attempts[1:]):
            if attempt.status == _UNAUTHORIZED and attempt.ended_at is not None:
                if following is not None:
                    yield self._token_wait(attempt.ended_at, following.started_at, failed=False)
                elif refused:
                    yield self._token_wait(attempt.ended_at, self._end, failed=True)

    def attempt_span(self, number: int, attempt: UpstreamAttempt) -> _SpanData:
        """Return the span of one attempt of the upstream request."""
        attributes = self._client("dhp-platform", self._peers.platform)
        attributes["http.request.method"] = self._method
        if number:
            attributes["http.request.resend_count"] = number
        if attempt.status is not None:
            attributes["http.response.status_code"] = attempt.status
        failed = attempt.status is None or attempt.status >= 400
        if failed:
            attributes["error.type"] = attempt.error or str(attempt.status)
        ended = self._end if attempt.ended_at is None else attempt.ended_at
        times = self._times(attempt.started_at, ended)
        return _SpanData(self._verb, SpanKind.CLIENT, attributes, *times, failed)

    def _token_wait(self, started_at: float, ended_at: float, *, failed: bool) -> _SpanData:
        attributes = self._client("dhp-sso", self._peers.sso)
        if failed:
            attributes["error.type"] = self._exchange.reason
        times = self._times(started_at, ended_at)
        return _SpanData("token", SpanKind.CLIENT, attributes, *times, failed)

    @staticmethod
    def _client(service: str, server: tuple[str, int]) -> Attributes:
        return {"peer.service": service, "server.address": server[0], "server.port": server[1]}

    def _times(self, started_at: float, ended_at: float) -> tuple[int, int]:
        """Convert monotonic seconds to nanoseconds since 1970."""
        zero = self._exchange.started_at - self._exchange.started_monotonic
        return round((zero + started_at) * 1e9), round((zero + ended_at) * 1e9)


def _remote(context: TraceContext) -> SpanContext:
    return _span_context(context, is_remote=True)


def _local(context: TraceContext) -> SpanContext:
    return _span_context(context, is_remote=False)


def _span_context(context: TraceContext, *, is_remote: bool) -> SpanContext:
    return SpanContext(
        int(context.trace_id, 16),
        int(context.span_id, 16),
        is_remote=is_remote,
        trace_flags=TraceFlags(context.flags),
    )


def _child_context(above: SpanContext) -> Context:
    return set_span_in_context(NonRecordingSpan(above), Context())


_log = get_logger("gateway.tracing")

_EXPORT_TIMEOUT: Final = 5.0
_MAX_QUEUE: Final = 8192
_BATCH_SIZE: Final = 512
_DELAY_MS: Final = 1000.0
_REMIND_AFTER: Final = 60.0
_FAILING_CLOSE_TIMEOUT: Final = 0.5
_CLOSE_POLL: Final = 0.01


class SpanExport:
    """Makes spans and exports them until `close`.

    `authorization` is the value of the field of that name, None for none.
    """

    def __init__(self, settings: TracingSettings, authorization: Secret | None) -> None:
        self._exporter = _ReportingExporter(_otlp(settings, authorization))
        self._spans = SpanFactory(
            _CountingProcessor(self._exporter), _resource(settings.service_name)
        )
        self.record = self._spans.record

    async def close(self, timeout: float) -> None:
        """Export the remaining spans for at most `timeout` seconds.

        While exports fail, the limit is at most `_FAILING_CLOSE_TIMEOUT` seconds.
        """
        # A daemon, because the library may wait longer than `timeout`.
        ending = threading.Thread(target=self._spans.shutdown, name="tracing-end", daemon=True)
        ending.start()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(
                min(timeout, _FAILING_CLOSE_TIMEOUT) if self._exporter.is_failing else timeout
            ):
                while ending.is_alive():  # noqa: ASYNC110 - a thread has no event to await
                    await asyncio.sleep(_CLOSE_POLL)
        self._exporter.abandon()


class _ReportingExporter(SpanExporter):
    """Wraps an exporter.

    Rate-limits its failure messages and logs them without the library's text.
    """

    def __init__(self, exporter: SpanExporter, clock: Callable[[], float] = time.monotonic) -> None:
        self._exporter = exporter
        self._clock = clock
        # Spans are exported in one thread and abandoned in another.
        self._lock = threading.Lock()
        self._waiting = 0
        self._lost = 0
        self._reported = 0
        self._remind_at: float | None = None
        self._is_abandoned = False

    def add_pending(self) -> None:
        """Count a span that will be exported or lost."""
        with self._lock:
            self._waiting += 1

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Export spans (SpanExporter). Called in the processor's thread only."""
        if self._is_abandoned:
            return SpanExportResult.FAILURE
        try:
            result = self._exporter.export(spans)
        except Exception:  # any exception of the library; its text may hold anything
            result = SpanExportResult.FAILURE
        with self._lock:
            # Spans abandoned meanwhile are already counted as lost.
            if not self._is_abandoned:
                self._waiting -= len(spans)
                if result is SpanExportResult.SUCCESS:
                    self._succeeded()
                else:
                    self._failed(len(spans))
        return result

    @property
    def is_failing(self) -> bool:
        """Whether the last export failed."""
        return self._remind_at is not None

    def abandon(self) -> None:
        """Stop exporting and log what is lost. May be called in any thread, and repeatedly."""
        with self._lock:
            if self._is_abandoned:
                return
            self._is_abandoned = True
            self._lost += self._waiting
            if self._lost > self._reported:
                self._report_loss()
        self._exporter.shutdown()

    def shutdown(self) -> None:
        """Call `abandon` (SpanExporter)."""
        self.abandon()

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        """Return True: nothing is queued here (SpanExporter)."""
        return True

    def _failed(self, spans: int) -> None:
        self._lost += spans
        now = self._clock()
        if self._remind_at is None or now >= self._remind_at:
            self._report_loss()
            self._remind_at = now + _REMIND_AFTER

    def _report_loss(self) -> None:
        _log.warning("spans cannot be exported; requests are not affected", lost=self._lost)
        self._reported = self._lost

    def _succeeded(self) -> None:
        if self._remind_at is not None:
            _log.info("spans can be exported again", lost=self._lost)
            self._remind_at, self._lost, self._reported = None, 0, 0


class _CountingProcessor(BatchSpanProcessor):
    """Reports each ended span to the exporter, which thus counts those that the queue drops."""

    def __init__(self, exporter: _ReportingExporter) -> None:
        super().__init__(
            exporter,
            max_queue_size=_MAX_QUEUE,
            schedule_delay_millis=_DELAY_MS,
            max_export_batch_size=_BATCH_SIZE,
            export_timeout_millis=_EXPORT_TIMEOUT * 1000,
        )
        self._reporting_exporter = exporter

    def on_end(self, span: ReadableSpan) -> None:
        """Count the span as pending, and queue it (SpanProcessor)."""
        self._reporting_exporter.add_pending()
        super().on_end(span)


def _otlp(settings: TracingSettings, authorization: Secret | None) -> OTLPSpanExporter:
    # A separate session, without proxies and passwords from the environment.
    session = requests.Session()
    session.trust_env = False
    headers = {}
    if authorization is not None:
        headers["Authorization"] = authorization.reveal()
    return OTLPSpanExporter(
        endpoint=settings.traces_url,
        # Without a file, the library would use its own list of root certificates, not the system's.
        certificate_file=str(settings.ca_file or ssl.get_default_verify_paths().cafile or "")
        or None,
        headers=headers,
        timeout=_EXPORT_TIMEOUT,
        compression=Compression.Gzip,
        session=session,
    )


def _resource(service_name: str) -> Mapping[str, str]:
    host = socket.gethostname()
    return {
        "service.name": service_name,
        "service.version": __version__,
        # Replicas on one machine are distinguished by their process id.
        "service.instance.id": f"{host}:{os.getpid()}",
        "host.name": host,
        "telemetry.sdk.name": "opentelemetry",
        "telemetry.sdk.language": "python",
    }
