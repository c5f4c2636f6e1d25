"""Opens the tracing that the settings ask for; spans need the extra `otel`."""

from __future__ import annotations

import contextlib
import importlib
from typing import Final
from urllib.parse import urlsplit

from gateway.config import SecretReadError, Settings
from gateway.phrases import Phrase, exception_phrase, setting_problem
from gateway.process import certificates
from gateway.process.factories import StartError
from gateway.secret import Secret
from gateway.telemetry.tracing import TracePeers, Tracing

_FLUSH: Final = 3.0
_PATH: Final = "/v1/traces"


def open_tracing(settings: Settings, closing: contextlib.AsyncExitStack) -> Tracing | None:
    """Tracing, None without a collector; `closing` exports what is left. Raises `StartError`."""
    tracing = settings.tracing
    if tracing.otlp_endpoint is None:
        return None
    require_tracing(settings)
    from gateway.telemetry.tracing_export import CollectorSettings, SpanExport

    if tracing.ca_file is not None:
        # What cannot be used is better known now.
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
    """Raises `StartError` where there is a collector, and not what tells it."""
    if settings.tracing.otlp_endpoint is None:
        return
    try:
        # Takes time to import, and few need it.
        importlib.import_module("gateway.telemetry.tracing_export")
    except ImportError:
        why = Phrase("needs the extra `otel`: pip install 'dhp-gateway[otel]'")
        raise StartError(setting_problem("tracing.otlp_endpoint", why)) from None


def trace_peers(settings: Settings) -> TracePeers:
    """The servers behind the gateway, as spans name them."""
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
        raise StartError(exception_phrase(error)) from None


def _server(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
