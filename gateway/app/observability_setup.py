"""Opens the audit trail, the tracing and the alerts that the settings configure.

The gateway and the commands that write audit records open the audit trail here. Spans need the
extra `otel`.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
import ssl
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, Final

import aiohttp

from gateway import __version__, exchange
from gateway.alerts.notify_addresses import AlertAddress, parse_address
from gateway.app import tls_contexts
from gateway.audit.audit_event import AuditParties, audit_event, national_event
from gateway.audit.audit_trail import AuditTrail, NullAuditTrail, Translate, WriterAuditTrail
from gateway.audit.audit_writer import DescriptorSink, Sink, WriterThread
from gateway.audit.file_sink import FileSink
from gateway.audit.hash_chain import NotAnAuditFileError
from gateway.audit.repository_sink import (
    RepositoryClient,
    RepositorySink,
    RepositoryWriter,
)
from gateway.audit.syslog_sink import SyslogFormatter, SyslogSink
from gateway.errors import StartError
from gateway.i18n import Message, setting_problem, system_error
from gateway.secret import Secret
from gateway.telemetry.logs import get_logger

if TYPE_CHECKING:
    from gateway.config.settings import Settings
    from gateway.oauth.tokens import Tokens
    from gateway.telemetry.tracing import Tracing

_log = get_logger(__name__)

_SPAN_FLUSH: Final = 3.0


def open_tracing(
    settings: Settings, closing: contextlib.AsyncExitStack
) -> Callable[[Settings], Tracing] | None:
    """Return what makes the tracing of a revision, None without a collector. Raises `StartError`.

    Closing `closing` exports the remaining spans.
    """
    tracing = settings.tracing
    url = tracing.traces_url
    if url is None:
        return None
    # Imported here: the import takes time, and the library is an extra.
    from opentelemetry.trace import NoOpTracer

    from gateway.telemetry.otlp_export import SpanExport
    from gateway.telemetry.tracing import Tracing

    export = SpanExport(
        url,
        authorization=tracing.secret_ref().read(),
        ca_file=tracing.ca_file,
        sample_ratio=tracing.sample_ratio,
        service_name=tracing.service_name,
    )
    closing.push_async_callback(export.close, _SPAN_FLUSH)
    if isinstance(export.tracer, NoOpTracer):
        # OTEL_SDK_DISABLED: such a tracer has no ids that the platform could get.
        return None

    def tracing_of(settings: Settings) -> Tracing:
        return Tracing(
            export.tracer,
            is_tls=settings.listen.tls.cert_file is not None,
            platform_url=settings.platform.fhir_base_url,
            token_url=settings.sso.token_url,
        )

    return tracing_of


# Seconds for which a starting gateway waits for the audit file, and between two attempts.
_MAX_WAIT: Final = 5.0
_RETRY_INTERVAL: Final = 0.1


class AuditFileInUseError(StartError):
    """Another process writes to the audit file."""


def open_trail(
    settings: Settings,
    on_records: Callable[[str, int], None],
    *,
    stdout: int = 1,
    repository: RepositoryWriter | None = None,
) -> AuditTrail:
    """Return the audit trail; its `close` releases everything. Raises `StartError` without waiting.

    Without `repository`, AuditEvents are written after their records, even if the settings name a
    repository.
    """
    if settings.audit.sink == "off":
        return NullAuditTrail()
    writer = WriterThread(
        _sink(settings, stdout),
        on_failure=settings.audit.on_failure,
        on_records=on_records,
    )
    return WriterAuditTrail(writer, translate=_translation(settings), resources=repository)


async def open_trail_when_free(
    open_trail: Callable[[], AuditTrail],
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
) -> AuditTrail:
    """Return what `open_trail` opens, retried while a command has the file open.

    Raises `StartError`, for example where another gateway still has the file open after 5 seconds.
    """
    until = clock() + _MAX_WAIT
    waits = False
    while True:
        try:
            return open_trail()
        except AuditFileInUseError as error:
            if clock() >= until:
                raise
            if not waits:
                _log.info("%s; waiting for its end", error)
            waits = True
        await sleep(_RETRY_INTERVAL)


def start_event_fields() -> dict[str, object]:
    """Return the fields of the audit event `start`.

    `compiled`: the request path runs as machine code (deploy/build_hook.py).
    """
    return {"version": __version__, "compiled": not (exchange.__file__ or "").endswith(".py")}


class CredentialBearer:
    """Authorizes requests to the repository with the token of a credential.

    Its methods are called in the event loop's thread.
    """

    def __init__(self, tokens: Callable[[], Tokens | None]) -> None:
        self._tokens = tokens

    async def authorization(self) -> bytes:
        """Return the Authorization field (`Bearer`).

        Raises LookupError while there are no tokens.
        """
        tokens = self._tokens()
        if tokens is None:
            raise LookupError
        return (await tokens.wait_for_token()).authorization

    def on_unauthorized(self, authorization: bytes) -> None:
        """Replace the rejected token, as often as the limits on requests to the SSO permit."""
        tokens = self._tokens()
        token = None if tokens is None else tokens.current()
        if tokens is not None and token is not None and token.authorization == authorization:
            tokens.invalidate(token)


def repository_writer(
    settings: Settings,
    on_records: Callable[[str, int], None],
    session: aiohttp.ClientSession,  # noqa: TID251 - received, not made
    tokens: Callable[[str], Tokens | None],
) -> RepositoryWriter | None:
    """Return the writer of AuditEvents to a repository, None where the settings name none.

    `session` outlives the writer. `tokens` returns the tokens of a credential, None before there
    are any. Raises `StartError`.
    """
    audit = settings.audit
    if audit.sink == "off" or audit.fhir_endpoint is None or not audit.fhir_audit_events:
        return None
    name = audit.fhir_credential
    bearer = None if name is None else CredentialBearer(functools.partial(tokens, name))
    client = RepositoryClient(
        session,
        audit.fhir_endpoint,
        tls=tls_contexts.client_tls(audit.fhir_endpoint, audit.fhir_ca_file, "audit.fhir_ca_file"),
        authorization=None if bearer is None else bearer.authorization,
        on_unauthorized=None if bearer is None else bearer.on_unauthorized,
    )
    sink = RepositorySink(audit.fhir_endpoint, client, on_records)
    return RepositoryWriter(sink, on_failure=audit.on_failure)


def _sink(settings: Settings, stdout: int) -> Sink:
    match settings.audit.sink:
        case "file":
            return _file(settings)
        case "syslog":
            return _syslog(settings)
    return DescriptorSink(stdout)


def _file(settings: Settings) -> Sink:
    audit = settings.audit
    if audit.path is None:
        raise StartError(setting_problem("audit.path", Message("is missing")))
    sink = FileSink(audit.path, audit)
    try:
        sink.open()
    except NotAnAuditFileError:
        trouble = Message("is not an audit file of this gateway; move it away, or set another path")
    except BlockingIOError:
        sink.close()
        why = Message("{path}: another gateway writes there", path=audit.path)
        raise AuditFileInUseError(setting_problem("audit.path", why)) from None
    except OSError as error:
        why = system_error(error, Message(type(error).__name__.lower()))
        trouble = Message("cannot be written: {why}", why=why)
    else:
        return sink
    sink.close()
    why = Message("{path}: {why}", path=audit.path, why=trouble)
    raise StartError(setting_problem("audit.path", why))


def _syslog(settings: Settings) -> Sink:
    url = settings.audit.syslog_url or ""
    tls: Callable[[], ssl.SSLContext] | None = None
    if url.startswith("tls:"):
        tls = functools.partial(tls_contexts.syslog_tls, settings)
        tls()  # reports an unusable CA or certificate at the start
    return SyslogSink(url=url, tls=tls, formatter=SyslogFormatter())


def _translation(settings: Settings) -> Translate | None:
    if not settings.audit.fhir_audit_events:
        return None
    parties = AuditParties(
        instance=socket.gethostname(),
        platform_url=settings.platform.fhir_base_url,
        sso_url=settings.sso.token_url,
    )
    national = settings.audit.fhir_profile == "uz-core"
    return functools.partial(national_event if national else audit_event, parties=parties)


def parse_addresses(settings: Settings) -> tuple[AlertAddress, ...]:
    """Return all alert addresses. Raises `StartError`.

    The first call takes most of a second, because it imports the notification library.
    """
    return tuple(parse_address(name, url) for name, url in configured_addresses(settings))


def configured_addresses(settings: Settings) -> Iterator[tuple[Message, Secret]]:
    """Yield the addresses with their names, read from the settings or files.

    Raises `StartError`.
    """
    for source in settings.alerts.address_refs():
        text = source.read()
        if text is None:
            continue
        if source.file is None:
            yield Message(source.key), Secret(text.reveal().strip())
            continue
        for number, line in enumerate(text.reveal().splitlines(), 1):
            if line.strip() and not line.lstrip().startswith("#"):
                name = Message("{key}_file line {number}", key=source.key, number=number)
                yield name, Secret(line.strip())
