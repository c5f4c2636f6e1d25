"""The tracer, and the export of its spans by OTLP/HTTP in a separate thread (extra `otel`).

Imported only if `tracing.otlp_endpoint` is set. Of requests without a `traceparent`,
`tracing.sample_ratio` are sampled; for all others their sampled flag decides.

An unreachable collector costs spans, never requests: the queue is limited, and spans that do not
fit are dropped. A failure is logged when it begins, then every minute, and when it is over. When
the gateway stops, losses that were not logged yet are logged.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

import requests
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult
from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio

from gateway import __version__
from gateway.secret import Secret
from gateway.telemetry.logs import get_logger

if TYPE_CHECKING:
    from pathlib import Path

_log = get_logger("gateway.tracing")

_EXPORT_TIMEOUT: Final = 5.0
_MAX_QUEUE: Final = 8192
_BATCH_SIZE: Final = 512
_DELAY_MS: Final = 1000.0
_REMIND_AFTER: Final = 60.0
_FAILING_CLOSE_TIMEOUT: Final = 0.5


class SpanExport:
    """Exports the spans that `tracer` makes until `close`.

    `authorization` is the value of the field of that name, None for none.
    """

    def __init__(
        self,
        url: str,
        *,
        authorization: Secret | None,
        ca_file: Path | None,
        sample_ratio: float,
        service_name: str,
    ) -> None:
        self._exporter = _ReportingExporter(url, authorization, ca_file)
        self._provider = TracerProvider(
            sampler=ParentBasedTraceIdRatio(sample_ratio),
            resource=_resource(service_name),
            shutdown_on_exit=False,
        )
        self._provider.add_span_processor(_CountingProcessor(self._exporter))
        self.tracer = self._provider.get_tracer("gateway", __version__)

    async def close(self, timeout: float) -> None:
        """Export the remaining spans for at most `timeout` seconds.

        While exports fail, the limit is at most `_FAILING_CLOSE_TIMEOUT` seconds.
        """
        # A daemon, because the library may wait longer than `timeout`.
        ending = threading.Thread(target=self._provider.shutdown, name="tracing-end", daemon=True)
        ending.start()
        if self._exporter.is_failing:
            timeout = min(timeout, _FAILING_CLOSE_TIMEOUT)
        await asyncio.to_thread(ending.join, timeout)
        self._exporter.shutdown()


class _ReportingExporter(OTLPSpanExporter):
    """Counts the spans that are lost, and logs that at most once a minute.

    The library's own messages, whose texts may hold anything, are silenced.
    """

    def __init__(
        self,
        url: str,
        authorization: Secret | None,
        ca_file: Path | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        # A separate session, without proxies and passwords from the environment.
        session = requests.Session()
        session.trust_env = False
        # Without a file, the library would use its own list of root certificates, not the system's.
        certificates = ca_file or ssl.get_default_verify_paths().cafile
        super().__init__(
            endpoint=url,
            certificate_file=str(certificates or "") or None,
            headers={} if authorization is None else {"Authorization": authorization.reveal()},
            timeout=_EXPORT_TIMEOUT,
            compression=Compression.Gzip,
            session=session,
        )
        # Spans are exported in one thread, counted in another, and abandoned in a third.
        self._lock = threading.Lock()
        self._waiting = 0
        self._lost = 0
        self._reported = 0
        self._remind_at: float | None = None
        self._clock = clock
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
            result = super().export(spans)
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

    def shutdown(self) -> None:
        """Stop exporting and log what is lost (SpanExporter). May be called repeatedly."""
        with self._lock:
            if self._is_abandoned:
                return
            self._is_abandoned = True
            self._lost += self._waiting
            if self._lost > self._reported:
                self._report_loss()
        super().shutdown()  # type: ignore[no-untyped-call]

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
        self._reporting_exporter.add_pending()
        super().on_end(span)


def _resource(service_name: str) -> Resource:
    host = socket.gethostname()
    return Resource(
        {
            "service.name": service_name,
            "service.version": __version__,
            # Replicas on one machine are distinguished by their process id.
            "service.instance.id": f"{host}:{os.getpid()}",
            "host.name": host,
            "telemetry.sdk.name": "opentelemetry",
            "telemetry.sdk.language": "python",
        }
    )
