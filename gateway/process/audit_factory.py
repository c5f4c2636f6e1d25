"""Opens the audit trail that the settings configure, for the gateway and for commands."""

from __future__ import annotations

import asyncio
import functools
import socket
import ssl
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, cast
from urllib.parse import urlsplit

import aiohttp

from gateway import __version__, exchange
from gateway.audit.audit_event import AuditParties, audit_event
from gateway.audit.audit_profile import national_event
from gateway.audit.chain_end import NotAnAuditFileError
from gateway.audit.fhir_repository import RepositorySink, RepositoryWriter
from gateway.audit.fhir_repository_http import RepositoryClient
from gateway.audit.file import FileSink, FileSinkSettings
from gateway.audit.sink import DescriptorSink, Sink
from gateway.audit.syslog import SyslogDestination, SyslogFormatter, SyslogSink, Transport
from gateway.audit.trail import AuditTrail, NullAuditTrail, Translate, WriterAuditTrail
from gateway.audit.writer import WriterThread
from gateway.config import Settings
from gateway.i18n import Message, setting_problem, system_error
from gateway.oauth.tokens import TokenManager
from gateway.process import certificates
from gateway.process.factories import StartError
from gateway.telemetry.logs import get_logger

_log = get_logger(__name__)

# Seconds for which a starting gateway waits for the audit file, and between two attempts.
_MAX_WAIT: Final = 5.0
_RETRY_INTERVAL: Final = 0.1


class AuditFileInUseError(StartError):
    """Another process writes to the audit file."""


@dataclass(frozen=True, slots=True)
class RepositoryAccess:
    """How AuditEvents reach their repository.

    `session` outlives the trail. `tokens` returns the `TokenManager` in use, None before there is
    one.
    """

    session: aiohttp.ClientSession  # noqa: TID251 - received, not made
    tokens: Callable[[], TokenManager | None]


def open_trail(
    settings: Settings,
    on_records: Callable[[str, int], None],
    *,
    stdout: int = 1,
    repository: RepositoryAccess | None = None,
) -> AuditTrail:
    """Return the audit trail; its `close` releases everything. Raises `StartError` without waiting.

    Without `repository`, AuditEvents are written after their records, even if the settings name a
    repository.
    """
    if settings.audit.sink == "off":
        return NullAuditTrail()
    resources = None if repository is None else _repository(settings, on_records, repository)
    writer = WriterThread(
        _sink(settings, stdout),
        on_failure=settings.audit.on_failure,
        on_records=on_records,
    )
    return WriterAuditTrail(writer, translate=_translation(settings), resources=resources)


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


def _repository(
    settings: Settings, on_records: Callable[[str, int], None], delivery: RepositoryAccess
) -> WriterThread | None:
    audit = settings.audit
    if audit.fhir_endpoint is None or not audit.fhir_audit_events:
        return None
    name = audit.fhir_credential
    post = RepositoryClient(
        delivery.session,
        audit.fhir_endpoint,
        tls=certificates.audit_repository_tls(settings),
        bearer=None if name is None else _CredentialBearer(name, delivery.tokens),
    )
    sink = RepositorySink(audit.fhir_endpoint, post, on_records)
    return RepositoryWriter(sink, on_failure=audit.on_failure)


class _CredentialBearer:
    """Authorizes requests to the AuditEvent repository with the token of a credential."""

    def __init__(self, credential: str, tokens: Callable[[], TokenManager | None]) -> None:
        self._credential = credential
        self._tokens = tokens

    async def authorization(self) -> bytes:
        """Return the Authorization field (`Bearer`).

        Raises LookupError while there are no tokens.
        """
        tokens = self._tokens()
        if tokens is None:
            raise LookupError
        return (await tokens.wait_for_token(self._credential)).authorization

    def on_unauthorized(self, authorization: bytes) -> None:
        """Replace the rejected token, as often as the limits on requests to the SSO permit."""
        tokens = self._tokens()
        token = None if tokens is None else tokens.current(self._credential)
        if tokens is not None and token is not None and token.authorization == authorization:
            tokens.invalidate(self._credential, token)


def _sink(settings: Settings, stdout: int) -> Sink:
    match settings.audit.sink:
        case "file":
            return _file(settings)
        case "syslog":
            return SyslogSink(_server(settings), SyslogFormatter())
    return DescriptorSink(stdout)


def _file(settings: Settings) -> Sink:
    audit = settings.audit
    if audit.path is None:
        raise StartError(setting_problem("audit.path", Message("is missing")))
    sink = FileSink(audit.path, FileSinkSettings(audit.rotate_bytes, audit.fsync))
    try:
        sink.open()
    except NotAnAuditFileError:
        trouble = Message("is no audit file of this gateway; move it away, or give another path")
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


def _server(settings: Settings) -> SyslogDestination:
    url = urlsplit(settings.audit.syslog_url or "")
    tls: Callable[[], ssl.SSLContext] | None = None
    if url.scheme == "tls":
        tls = functools.partial(certificates.syslog_tls, settings)
        tls()  # reports an unusable CA or certificate at the start
    transport = cast(Transport, url.scheme)
    return SyslogDestination(transport, url.hostname or "", url.port or 0, tls)


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
