"""Export of spans to a collector by OTLP/HTTP, in a separate thread (extra `otel`).

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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import requests
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from gateway import __version__
from gateway.secret import Secret
from gateway.telemetry.logs import get_logger
from gateway.telemetry.tracing_spans import SpanFactory

_log = get_logger("gateway.tracing")

_TIMEOUT: Final = 5.0
_MAX_QUEUE: Final = 8192
_BATCH: Final = 512
_DELAY_MS: Final = 1000.0
_REMIND_AFTER: Final = 60.0
_FAILING_CLOSE_TIMEOUT: Final = 0.5
_POLL: Final = 0.01


@dataclass(frozen=True, slots=True)
class CollectorSettings:
    """The OTLP collector: its complete URL, and the CA file that verifies its certificate.

    `authorization` is the value of the field of that name.
    """

    url: str
    service_name: str
    ca_file: Path | None = None
    authorization: Secret | None = None


class SpanExport:
    """Makes spans and exports them until `close`."""

    def __init__(self, collector: CollectorSettings) -> None:
        self._exporter = _ReportingExporter(_otlp(collector))
        self._spans = SpanFactory(
            _CountingProcessor(self._exporter), _resource(collector.service_name)
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
                    await asyncio.sleep(_POLL)
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
            max_export_batch_size=_BATCH,
            export_timeout_millis=_TIMEOUT * 1000,
        )
        self._reporting_exporter = exporter

    def on_end(self, span: ReadableSpan) -> None:
        """Count the span as pending, and queue it (SpanProcessor)."""
        self._reporting_exporter.add_pending()
        super().on_end(span)


def _otlp(collector: CollectorSettings) -> OTLPSpanExporter:
    # A separate session, without proxies and passwords from the environment.
    session = requests.Session()
    session.trust_env = False
    headers = {}
    if collector.authorization is not None:
        headers["Authorization"] = collector.authorization.reveal()
    return OTLPSpanExporter(
        endpoint=collector.url,
        # Without a file, the library would use its own list of root certificates, not the system's.
        certificate_file=str(collector.ca_file or ssl.get_default_verify_paths().cafile or "")
        or None,
        headers=headers,
        timeout=_TIMEOUT,
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
