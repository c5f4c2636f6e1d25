"""Brings spans to a collector by OTLP/HTTP, in a thread of their own (extra `otel`).

A collector that is away costs spans, never requests: what waits is bounded, and is dropped where
there is no room. It is told once when it begins, then every minute, and when it is over; at the end
of the gateway, where something was lost that was not told yet.
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
_MOMENT: Final = 0.5
_POLL: Final = 0.01


@dataclass(frozen=True, slots=True)
class CollectorSettings:
    """Where spans go: a URL that gets them as they are, and how its server proves who it is.

    `authorization` is the value of the field of that name.
    """

    url: str
    service_name: str
    ca_file: Path | None = None
    authorization: Secret | None = None


class SpanExport:
    """Makes spans and exports them; `close` ends it."""

    def __init__(self, collector: CollectorSettings) -> None:
        self._exporter = _ReportingExporter(_otlp(collector))
        self._spans = SpanFactory(
            _CountingProcessor(self._exporter), _resource(collector.service_name)
        )
        self.record = self._spans.record

    async def close(self, timeout: float) -> None:
        """Export what is left, for at most `timeout` seconds; a moment where it fails anyway."""
        # A daemon: the library may wait longer than we do.
        ending = threading.Thread(target=self._spans.shutdown, name="tracing-end", daemon=True)
        ending.start()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(
                min(timeout, _MOMENT) if self._exporter.is_failing else timeout
            ):
                while ending.is_alive():  # noqa: ASYNC110 - a thread has no event to await
                    await asyncio.sleep(_POLL)
        self._exporter.abandon()


class _ReportingExporter(SpanExporter):
    """Another exporter, with its failures told rarely and in words of our own."""

    def __init__(self, exporter: SpanExporter, clock: Callable[[], float] = time.monotonic) -> None:
        self._exporter = exporter
        self._clock = clock
        # Spans are exported in one thread and given up in another.
        self._lock = threading.Lock()
        self._waiting = 0
        self._lost = 0
        self._reported = 0
        self._remind_at: float | None = None
        self._is_abandoned = False

    def add_pending(self) -> None:
        """One span more will be exported, or is lost."""
        with self._lock:
            self._waiting += 1

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Export; called in the processor's thread only."""
        if self._is_abandoned:
            return SpanExportResult.FAILURE
        try:
            result = self._exporter.export(spans)
        except Exception:  # whatever the library raises, its text may hold anything
            result = SpanExportResult.FAILURE
        with self._lock:
            # What was given up meanwhile is counted as lost already.
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
        """Export nothing more, and tell what is lost; in any thread, any number of times."""
        with self._lock:
            if self._is_abandoned:
                return
            self._is_abandoned = True
            self._lost += self._waiting
            if self._lost > self._reported:
                self._report_loss()
        self._exporter.shutdown()

    def shutdown(self) -> None:
        """See `abandon`."""
        self.abandon()

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        """Nothing waits here."""
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
    """Tells the exporter of each span that it will get, or lose where there is no room."""

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
        """A span waits from now on."""
        self._reporting_exporter.add_pending()
        super().on_end(span)


def _otlp(collector: CollectorSettings) -> OTLPSpanExporter:
    # Of its own, without proxies and passwords of the environment.
    session = requests.Session()
    session.trust_env = False
    headers = {}
    if collector.authorization is not None:
        headers["Authorization"] = collector.authorization.reveal()
    return OTLPSpanExporter(
        endpoint=collector.url,
        # Without one the library would trust a list of its own instead of the system's.
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
        # Workers are told apart by their process.
        "service.instance.id": f"{host}:{os.getpid()}",
        "host.name": host,
        "telemetry.sdk.name": "opentelemetry",
        "telemetry.sdk.language": "python",
    }
