"""Opens the tracing that the settings configure; spans need the extra `otel`."""

from __future__ import annotations

import contextlib
import importlib
from typing import Final
from urllib.parse import urlsplit

from gateway.config import SecretReadError, Settings
from gateway.i18n import Message, exception_message, setting_problem
from gateway.process import certificates
from gateway.process.factories import StartError
from gateway.secret import Secret
from gateway.telemetry.tracing import TracePeers, Tracing

_FLUSH: Final = 3.0
_PATH: Final = "/v1/traces"


def open_tracing(settings: Settings, closing: contextlib.AsyncExitStack) -> Tracing | None:
    """Return the tracing, None without a collector. Raises `StartError`.

    Closing `closing` exports the remaining spans.
    """
    tracing = settings.tracing
    if tracing.otlp_endpoint is None:
        return None
    require_tracing(settings)
    from gateway.telemetry.tracing_export import CollectorSettings, SpanExport

    if tracing.ca_file is not None:
        # Called only so that an unusable CA is reported at the start.
        certificates.client_tls(tracing.otlp_endpoint, tracing.ca_file, "tracing.ca_file")
    export = SpanExport(
        CollectorSettings(
            url=_endpoint(tracing.otlp_endpoint),
            service_name=tracing.service_name,
            ca_file=tracing.ca_file,
            authorization=_authorization(settings),
        )
    )
    closing.push_async_callback(export.close, _FLUSH)
    return Tracing(export.record, sample_ratio=tracing.sample_ratio)


def require_tracing(settings: Settings) -> None:
    """Raise `StartError` where a collector is configured and the extra `otel` is missing."""
    if settings.tracing.otlp_endpoint is None:
        return
    try:
        # Imported here: the import takes time, and tracing is optional.
        importlib.import_module("gateway.telemetry.tracing_export")
    except ImportError:
        why = Message("needs the extra `otel`: pip install 'dhp-gateway[otel]'")
        raise StartError(setting_problem("tracing.otlp_endpoint", why)) from None


def trace_peers(settings: Settings) -> TracePeers:
    """Return the servers behind the gateway, as spans name them."""
    return TracePeers(
        platform=_server(settings.platform.fhir_base_url),
        sso=_server(settings.sso.token_url),
        scheme="http" if settings.listen.tls.cert_file is None else "https",
    )


def _endpoint(url: str) -> str:
    return url if url.endswith(_PATH) else url + _PATH


def _authorization(settings: Settings) -> Secret | None:
    try:
        return settings.tracing.secret_source().read()
    except SecretReadError as error:
        raise StartError(exception_message(error)) from None


def _server(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
