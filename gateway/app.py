"""The composition root: the only place that constructs, opens, closes.

What is opened is closed in reverse order. The end is a written sequence: not ready, answer with
`Connection: close`, stop listening, let exchanges in flight finish, cancel the rest, flush.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp
from aiohttp import http_parser, web

from gateway import __version__, wiring
from gateway.admin.health import Readiness
from gateway.admin.server import build as build_admin
from gateway.config import Address, Settings
from gateway.exchange import Exchange
from gateway.oauth.grants import CredentialSource, EndpointSettings, TokenEndpoint
from gateway.oauth.pacing import TokenPolicy
from gateway.oauth.store import MemoryStore
from gateway.oauth.tokens import Tokens
from gateway.proxy.admission import Admission, Phase
from gateway.proxy.circuit import Circuit, CircuitState
from gateway.proxy.forward import Forwarder
from gateway.proxy.handler import Clocks, Collaborators, Handler
from gateway.proxy.listener import CallerServer
from gateway.proxy.pool import Origin, Timeouts, UpstreamPool
from gateway.proxy.retrying import RetryBudget, RetryPolicy
from gateway.proxy.upstream import Restraint, Upstream
from gateway.telemetry import logs
from gateway.telemetry.audit import Audit, AuditTrail, NullAudit
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.sink import StdoutSink, Writer

_log = logging.getLogger(__name__)

_BACKLOG: Final = 1024
_AUDIT_FLUSH: Final = 5.0
_DRAIN_POLL: Final = 0.05


class Gateway:
    """A gateway in this process: `start`, then `stop`."""

    def __init__(self, settings: Settings, *, audit_fd: int = 1) -> None:
        self._settings = settings
        self._audit_fd = audit_fd
        self._stack = contextlib.AsyncExitStack()
        self._hurry = asyncio.Event()
        self.metrics = Metrics()
        self.audit: AuditTrail = NullAudit()
        self.address = settings.listen.address
        self.admin_address = settings.admin.address

    async def start(self) -> None:
        """Open everything. Raises `StartError`, and leaves nothing open then."""
        _require_strict_parser()
        try:
            await self._open()
        except BaseException:
            await self._stack.aclose()
            raise
        self.audit.event("start", version=__version__)
        _log.info("serving %s for callers, %s for operators", self.address, self.admin_address)

    async def stop(self) -> None:
        """Drain and close, within `shutdown.delay` and `shutdown.drain_timeout`."""
        shutdown = self._settings.shutdown
        self._admission.phase = Phase.CLOSING
        await self._pause(shutdown.delay)
        self._listener.close()
        self._admission.phase = Phase.STOPPED
        deadline = time.monotonic() + shutdown.drain_timeout
        while self._admission.inflight and time.monotonic() < deadline:
            await self._pause(_DRAIN_POLL)
            if self._hurry.is_set():
                break
        if self._admission.inflight:
            _log.warning("%d requests cancelled at the end", self._admission.inflight)
        self.audit.event("stop", version=__version__)
        await self._stack.aclose()

    def hurry(self) -> None:
        """Do not wait any longer for requests in flight."""
        self._hurry.set()

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._hurry.wait()

    async def _open(self) -> None:
        settings = self._settings
        self.audit = self._open_audit()
        tokens = await self._open_tokens()
        pool = self._open_pool()
        circuit = Circuit(wiring.circuit_policy(settings), time.monotonic)
        self._admission = Admission(
            max_concurrent=settings.limits.max_concurrent_requests,
            audit_available=lambda: self.audit.available,
        )
        self._watch(pool, circuit)
        upstream = Upstream(
            pool,
            authority=wiring.authority(settings.platform.fhir_base_url),
            restraint=Restraint(
                RetryPolicy(settings.retries.max_attempts, settings.retries.backoff),
                RetryBudget(settings.retries.budget_ratio, time.monotonic),
                circuit,
            ),
            on_retry=self.metrics.retry,
        )
        handler = Handler(
            wiring.rules(settings),
            Collaborators(
                admission=self._admission,
                callers=wiring.callers(settings, time.monotonic),
                tokens=tokens,
                forwarder=Forwarder(upstream, tokens, self.metrics.retry),
                rewriting=wiring.rewriting(settings),
                account=self._account,
                clocks=Clocks(time.monotonic, time.time),
            ),
        )
        await self._open_admin(tokens, circuit)
        await self._open_listener(handler)

    def _open_audit(self) -> AuditTrail:
        if self._settings.audit.sink == "off":
            return NullAudit()
        writer = Writer(
            StdoutSink(self._audit_fd),
            on_failure=self._settings.audit.on_failure,
            on_records=self.metrics.audit_record,
        )
        audit = Audit(writer)
        self._stack.push_async_callback(self._close_audit, audit)
        return audit

    @staticmethod
    async def _close_audit(audit: Audit) -> None:
        lost = await audit.close(_AUDIT_FLUSH)
        if lost:
            _log.error("%d audit records could not be written", lost)

    async def _open_tokens(self) -> Tokens:
        settings = self._settings
        sso = settings.sso
        session = aiohttp.ClientSession(
            cookie_jar=aiohttp.DummyCookieJar(), trust_env=False, auto_decompress=True
        )
        self._stack.push_async_callback(session.close)
        endpoint = TokenEndpoint(
            session,
            EndpointSettings(
                token_url=sso.token_url,
                timeout=sso.timeout,
                default_lifetime=sso.default_token_lifetime,
                ssl=wiring.client_tls(sso.token_url, sso.ca_file, "sso.ca_file"),
            ),
        )
        sources = {
            name: CredentialSource(endpoint, wiring.client_credentials(settings, name))
            for name in wiring.credentials_in_use(settings)
        }
        self.metrics.declare(sources)
        tokens = Tokens(
            sources,
            MemoryStore(),
            _TokenTelemetry(self.metrics, self.audit),
            policy=TokenPolicy(wait_timeout=sso.timeout),
        )
        await tokens.start()
        self._stack.push_async_callback(tokens.close)
        return tokens

    def _open_pool(self) -> UpstreamPool:
        platform = self._settings.platform
        url = urlsplit(platform.fhir_base_url)
        tls = wiring.client_tls(platform.fhir_base_url, platform.ca_file, "platform.ca_file")
        pool = UpstreamPool(
            Origin(url.hostname or "", url.port or (80 if tls is None else 443), tls),
            timeouts=Timeouts(
                platform.connect_timeout, platform.response_timeout, platform.idle_timeout
            ),
            max_connections=platform.max_connections,
            clock=time.monotonic,
        )
        pool.open()
        self._stack.callback(pool.close)
        return pool

    def _watch(self, pool: UpstreamPool, circuit: Circuit) -> None:
        self.metrics.watch_circuit(lambda: circuit.state)
        self.metrics.watch_connections(pool.counts)
        self.metrics.watch_inflight(lambda: self._admission.inflight)

    async def _open_admin(self, tokens: Tokens, circuit: Circuit) -> None:
        readiness = Readiness(
            tokens=lambda: {name: state.valid for name, state in tokens.states().items()},
            circuit_open=lambda: circuit.state is CircuitState.OPEN,
            draining=self._admission.is_draining,
        )
        runner = web.AppRunner(
            build_admin(metrics=self.metrics, readiness=readiness),
            access_log=None,
            handle_signals=False,
        )
        await runner.setup()
        self._stack.push_async_callback(runner.cleanup)
        address = self._settings.admin.address
        site: web.BaseSite = (
            web.UnixSite(runner, address.path)
            if address.path is not None
            else web.TCPSite(runner, address.host, address.port)
        )
        with _explained("admin.address", address):
            await site.start()
        self.admin_address = _bound(address, runner.addresses)

    async def _open_listener(self, handler: Handler) -> None:
        loop = asyncio.get_running_loop()
        server = CallerServer(handler, wiring.listen_limits(self._settings))
        address = self._settings.listen.address
        with _explained("listen.address", address):
            if address.path is not None:
                self._listener = await loop.create_unix_server(
                    server, address.path, backlog=_BACKLOG
                )
            else:
                self._listener = await loop.create_server(
                    server, address.host, address.port, backlog=_BACKLOG
                )
        self.address = _bound(address, [s.getsockname() for s in self._listener.sockets])
        self._stack.push_async_callback(self._close_listener, server)

    async def _close_listener(self, server: CallerServer) -> None:
        self._listener.close()
        server.stop_sweep()
        server.pre_shutdown()
        await server.shutdown(0.2)

    def _account(self, exchange: Exchange) -> None:
        self.metrics.exchange(exchange)
        self.audit.exchange(exchange)


class _TokenTelemetry:
    """Tells metrics and audit what happens to tokens."""

    def __init__(self, metrics: Metrics, audit: AuditTrail) -> None:
        self.token_requested = metrics.token_requested
        self.token_expires = metrics.token_expires
        self.token_waiters = metrics.token_waiters
        self._audit = audit

    def token_event(
        self, credential: str, outcome: str, detail: Mapping[str, str | float | None]
    ) -> None:
        """For the audit trail: a token was fetched or could not be."""
        self._audit.event("token", credential=credential, outcome=outcome, **detail)


@contextlib.contextmanager
def _explained(key: str, address: Address) -> Any:
    try:
        yield
    except OSError as error:
        reason = os.strerror(error.errno).lower() if error.errno else str(error)
        raise wiring.StartError(f"{key}: cannot listen on {address}: {reason}") from None


def _bound(address: Address, names: list[Any]) -> Address:
    """The address that a listener really has, where port 0 was asked for."""
    if address.path is not None or address.port:
        return address
    return Address(host=address.host, port=int(names[0][1]))


def _require_strict_parser() -> None:
    """aiohttp's pure-Python parser is lenient where the C one is strict; it must never serve."""
    if http_parser.HttpRequestParser.__module__ != "aiohttp._http_parser":
        raise wiring.StartError(
            "aiohttp is installed without its C parser; install its binary wheel"
        )


def run(settings: Settings, config_path: Path | None = None) -> int:
    """Serve until SIGTERM or SIGINT. Raises `StartError`."""
    logs.configure(settings.log.level, settings.log.format)
    with asyncio.Runner(loop_factory=new_event_loop()) as runner:
        return runner.run(_serve(settings))


def new_event_loop() -> Any:
    """uvloop's factory where there is one, else None for asyncio's own."""
    try:
        import uvloop  # not on every platform
    except ImportError:
        return None
    return uvloop.new_event_loop


async def _serve(settings: Settings) -> int:
    gateway = Gateway(settings)
    stop = asyncio.Event()

    def signalled() -> None:
        if stop.is_set():
            gateway.hurry()
        stop.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, signalled)
    await gateway.start()
    await stop.wait()
    await gateway.stop()
    return 0
