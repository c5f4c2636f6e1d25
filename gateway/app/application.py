"""The composition root: constructs, opens, reloads and closes everything.

What is opened is closed in reverse order. The shutdown has a fixed order: report not ready, respond
with `Connection: close`, stop listening, let exchanges in flight finish, cancel the rest, flush.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

import aiohttp
from aiohttp.web_runner import SockSite

from gateway import __version__
from gateway.admin.admin_listener import OperatorRunner
from gateway.admin.admin_server import build_application
from gateway.admin.operators import Operators
from gateway.admin.status_facts import StatusReporter
from gateway.alerts.alert_service import AlertMonitor
from gateway.app import (
    identity_setup,
    listening_sockets,
    observability_setup,
    preflight,
    reloader,
    shared_stores,
    tls_contexts,
)
from gateway.app.observability_setup import open_tracing
from gateway.app.revision import Core, CoreSwitch
from gateway.audit.audit_trail import AuditTrail, NullAuditTrail
from gateway.clock import TimeSource
from gateway.config.settings import Settings
from gateway.errors import StartError
from gateway.health.evidence import ANSWERS, FAULTS
from gateway.health.health import Health, usability
from gateway.health.platform_judgement import PlatformJudgement
from gateway.health.recent_requests import RecentRequests
from gateway.http.server.listener import Acceptor, CallerServer
from gateway.http.server.request_parser import require_strict_parser
from gateway.i18n import Message
from gateway.oauth.token_endpoint import TokenRequestQueue
from gateway.oauth.token_store import tokens_at_hand
from gateway.oauth.tokens import Tokens
from gateway.pipeline.admission import LifecyclePhase
from gateway.pipeline.body_worker import SerialExecutor
from gateway.pipeline.permissions import PermissionCheck
from gateway.telemetry.logs import get_logger
from gateway.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from gateway.app.outbox_service import OutboxService


@asynccontextmanager
async def background_task(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run a coroutine concurrently with the block and cancel it at the block's end."""
    task = asyncio.get_running_loop().create_task(work)
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


_log = get_logger(__name__)

_AUDIT_FLUSH: Final = 5.0
_DRAIN_POLL: Final = 0.02
_ABORT_TIMEOUT: Final = 2.0


class Gateway:
    """A gateway in this process. Call `start`, then `reload` at any time, then `stop`."""

    def __init__(
        self, settings: Settings, *, audit_fd: int = 1, times: TimeSource | None = None
    ) -> None:
        self.settings = settings
        self._times = times = times or TimeSource()
        self._audit_fd = audit_fd
        self._stack = contextlib.AsyncExitStack()
        self._drain_skipped = asyncio.Event()
        self._stopping = False
        self.outbox: OutboxService | None = None
        self._cores_if_open: CoreSwitch | None = None
        self._reloads = asyncio.Lock()
        self.metrics = Metrics(wall_clock=times.wall_clock)
        self._operators = Operators(())
        self._expiries: dict[str, float] = {}
        self._token_requests = TokenRequestQueue(settings.sso.max_requests, times)
        self.health = Health(
            platform=lambda: self._cores.current.judgement,
            tokens=lambda: self._cores.current.token_states(),
            credentials_in_use=lambda: identity_setup.credentials_in_use(
                self._cores.current.settings
            ),
            is_audit_available=lambda: self.audit.is_available,
            is_draining=lambda: self._stopping,
            outbox=lambda: None if self.outbox is None else self.outbox.report(),
            recent_requests=RecentRequests(times.clock, times.wall_clock),
        )
        self._alerts = AlertMonitor(
            health=self.health,
            audit_dropped=self.metrics.dropped_audit_records,
            certificates=lambda: self._expiries,
            count=self.metrics.count_messages,
        )
        self.audit: AuditTrail = NullAuditTrail()
        self.address = settings.listen.address
        self.admin_address = settings.admin.address

    async def start(self) -> None:
        """Open everything. Raises `StartError` and then leaves nothing open."""
        require_strict_parser()
        await asyncio.to_thread(preflight.require_usable, self.settings)
        try:
            await self._open()
        except BaseException:
            await self._stack.aclose()
            raise
        self.audit.record_event("start", **observability_setup.start_event_fields())
        listen, platform = self.settings.listen, self.settings.platform.fhir_base_url
        _log.info("%s%s leads to %s; serving", self.address, listen.base_path, platform)

    async def reload(self, settings: Settings) -> None:
        """Serve new requests with other settings; requests in flight keep theirs.

        Raises `StartError` where that is impossible; then nothing has changed.
        """
        async with self._reloads:
            if self._stopping:
                raise StartError(Message("the gateway is shutting down"))
            reloader.require_reloadable(self.settings, settings)
            await asyncio.to_thread(preflight.require_usable, settings, reloader.FIXED_KEYS)
            tls = await asyncio.to_thread(tls_contexts.listen_tls, settings)
            # What is known of another platform does not apply to this one.
            is_same_platform = self.settings.platform == settings.platform
            judgement = (
                self._cores.current.judgement
                if is_same_platform
                else self._judge_platform(settings)
            )
            make_core = functools.partial(self._make_core, settings, judgement=judgement)
            core = await asyncio.to_thread(make_core)
            expiries = await asyncio.to_thread(tls_contexts.certificate_expiries, settings)
            operators = await asyncio.to_thread(identity_setup.operators, settings)
            addresses = await asyncio.to_thread(observability_setup.parse_addresses, settings)
            self._token_requests.max_requests = settings.sso.max_requests
            self._cores.replace(core)
            self._expiries = expiries
            self._operators.replace(operators)
            self._acceptor.tls = tls
            self._acceptor.max_connections = identity_setup.max_caller_connections(settings)
            self._server.limits = settings.limits
            self.settings = settings
            self._alerts.configure(settings, addresses)

    def record_reload(self, problems: int) -> None:
        """Count and record a reload, which has failed if there are problems."""
        outcome = "failed" if problems else "ok"
        self.metrics.count_reload(outcome)
        self._alerts.on_reload(outcome)
        self.audit.record_event("reload", outcome=outcome, problems=problems)

    async def stop(self) -> None:
        """Drain and close, within `shutdown.delay` and `shutdown.drain_timeout`."""
        self._stopping = True
        shutdown = self.settings.shutdown
        self._cores.set_phase(LifecyclePhase.CLOSING)
        await self._pause(shutdown.delay)
        self._listening.stop_accepting()
        self._acceptor.close()
        self._cores.set_phase(LifecyclePhase.STOPPED)
        await asyncio.gather(
            self._drain(shutdown.drain_timeout), self._drain_outbox(shutdown.drain_timeout)
        )
        await self._abort_exchanges()
        self.audit.record_event("stop", version=__version__)
        await self._stack.aclose()

    def skip_drain(self) -> None:
        """Stop waiting for requests in flight."""
        self._drain_skipped.set()

    async def _drain(self, timeout: float) -> None:
        """Wait until no caller waits for a response any more, at most `timeout` seconds."""
        deadline = self._times.clock() + timeout
        while self._times.clock() < deadline and not self._drain_skipped.is_set():
            if not (
                self._acceptor.pending_handshakes
                or self._cores.inflight
                or self._server.unfinished_count
            ):
                return
            await self._pause(_DRAIN_POLL)

    async def _drain_outbox(self, timeout: float) -> None:
        if self.outbox is None:
            return
        draining = asyncio.get_running_loop().create_task(self.outbox.delivery.drain(timeout))
        hurried = asyncio.get_running_loop().create_task(self._drain_skipped.wait())
        await asyncio.wait((draining, hurried), return_when=asyncio.FIRST_COMPLETED)
        hurried.cancel()
        if not draining.done():
            await self.outbox.delivery.drain(0.0)
        await draining

    async def _abort_exchanges(self) -> None:
        """Cancel the exchanges that are left; each is accounted for as aborted."""
        if self._cores.inflight:
            _log.warning("%d requests cut off at shutdown", self._cores.inflight)
        await self._acceptor.abort()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_ABORT_TIMEOUT):
                await self._server.abort_exchanges()

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._drain_skipped.wait()

    async def _open(self) -> None:
        session = aiohttp.ClientSession(
            cookie_jar=aiohttp.DummyCookieJar(), trust_env=False, auto_decompress=True
        )
        self._stack.push_async_callback(session.close)
        addresses = await asyncio.to_thread(observability_setup.parse_addresses, self.settings)
        self.audit = await self._open_audit(session)
        store = shared_stores.open_token_store(self.settings, self._stack)
        session_store = shared_stores.open_session_store(
            self.settings, self._stack, self._times.clock
        )
        executor = SerialExecutor()
        self._stack.callback(executor.close)
        self._make_core = functools.partial(
            Core,
            times=self._times,
            session=session,
            at_hand=tokens_at_hand(self._times.clock),
            token_requests=self._token_requests,
            store=store,
            metrics=self.metrics,
            audit=self.audit,
            session_store=session_store,
            exchange_listeners=(self.health.recent_requests.record_exchange,),
            permissions=PermissionCheck(serial_executor=executor),
            tracing=open_tracing(self.settings, self._stack),
            outbox=await self._open_outbox(),
        )
        tls = tls_contexts.listen_tls(self.settings)
        self._expiries = tls_contexts.certificate_expiries(self.settings)
        core = self._make_core(self.settings, judgement=self._judge_platform(self.settings))
        self._cores = self._cores_if_open = CoreSwitch(core)
        self._stack.push_async_callback(self._cores.close)
        # Bound before the core starts: a gateway that cannot start must not request a token.
        await self._bind()
        core.start()
        if self.outbox is not None:
            self._stack.push_async_callback(self.outbox.stop)
            await self.outbox.start()
        self._start_monitor()
        await self._stack.enter_async_context(background_task(self.health.run()))
        await self._open_admin()
        self._stack.push_async_callback(self._alerts.close)
        self._alerts.configure(self.settings, addresses)
        await self._stack.enter_async_context(background_task(self._alerts.run()))
        self._open_listener(tls)

    async def _open_outbox(self) -> OutboxService | None:
        settings = self.settings.outbox
        if not settings.enabled:
            return None
        # Imported here: the import takes time and memory, and the outbox is optional.
        from gateway.app.outbox_service import OutboxService
        from gateway.outbox.open_outbox import open_outbox_store

        key = shared_stores.outbox_key(settings)
        store = await self._stack.enter_async_context(
            open_outbox_store(settings, key, self._times.wall_clock, delivers=True)
        )
        self.outbox = OutboxService(
            store=store,
            times=self._times,
            acquire_sender=lambda: self._cores.acquire_entry_sender(),
            probe=lambda: self._cores.current.judgement.probe_if_due(for_delivery=True),
            metrics=self.metrics,
            audit=self.audit,
        )
        return self.outbox

    async def _bind(self) -> None:
        settings = self.settings
        self._listening, self._admin_listening = await listening_sockets.listen(
            {"listen.address": settings.listen.address, "admin.address": settings.admin.address},
            shared_ports={"listen.address"} if settings.listen.reuse_port else (),
        )
        for listening in (self._listening, self._admin_listening):
            self._stack.callback(listening.remove_path)
            self._stack.callback(listening.close)

    async def _open_audit(self, session: aiohttp.ClientSession) -> AuditTrail:
        opening = functools.partial(
            observability_setup.open_trail,
            self.settings,
            self.metrics.count_audit_records,
            stdout=self._audit_fd,
            repository=observability_setup.repository_writer(
                self.settings, self.metrics.count_audit_records, session, self._tokens
            ),
        )
        audit = await observability_setup.open_trail_when_free(opening)
        self._stack.push_async_callback(self._close_audit, audit)
        return audit

    def _judge_platform(self, settings: Settings) -> PlatformJudgement:
        """Return a new judgement of the platform that the settings name."""
        return PlatformJudgement(
            circuit=settings.circuit_breaker,
            probe=lambda: self._cores.probe_platform(),
            interval=lambda: self.settings.admin.probe_interval,
            on_response=self._on_platform_response,
            count_probe=self.metrics.count_probe,
            clock=self._times.clock,
        )

    def _on_platform_response(self) -> None:
        self._cores.current.statement.on_platform_response()
        if self.outbox is not None:
            self.outbox.delivery.on_platform_response()

    def _tokens(self, credential: str) -> Tokens | None:
        cores = self._cores_if_open
        return None if cores is None else cores.current.tokens.get(credential)

    @staticmethod
    async def _close_audit(audit: AuditTrail) -> None:
        lost = await audit.close(_AUDIT_FLUSH)
        if lost:
            _log.error("%d audit records could not be written", lost)

    def _start_monitor(self) -> None:
        self.metrics.observe_circuit(lambda: self._cores.current.judgement.state)
        self.metrics.observe_connections(self._cores.connections)
        self.metrics.observe_inflight(lambda: self._cores.inflight)
        self.metrics.certificate_expiries = lambda: self._expiries
        self.metrics.usability = lambda: usability(self.health.components())
        self.metrics.declare_probe_signals((ANSWERS, *FAULTS))

    async def _open_admin(self) -> None:
        self._operators.replace(identity_setup.operators(self.settings))
        self.status = StatusReporter(
            settings=lambda: self.settings,
            health=self.health,
            connections=self._cores.connections,
            inflight=lambda: self._cores.inflight,
            audit_dropped=self.metrics.dropped_audit_records,
            unforwarded_fields=self.metrics.unforwarded_fields,
        )
        application = build_application(
            metrics=self.metrics,
            health=self.health,
            public_keys=lambda: identity_setup.public_keys(self.settings),
            status=self.status,
            outbox=None if self.outbox is None else self.outbox.admin_api,
            operators=self._operators,
            reveal=self.settings.outbox.reveal,
        )
        listening = self._admin_listening
        self.admin_address = listening.address
        runner = OperatorRunner(application, listening.address)
        await runner.setup()
        self._stack.push_async_callback(runner.cleanup)
        for listening_socket in listening.sockets:
            await SockSite(runner, listening_socket).start()

    def _open_listener(self, tls: Any) -> None:
        self.address = self._listening.address
        self._server = CallerServer(self._cores.dispatcher, self.settings.limits)
        # No request is in flight any more when it is closed.
        self._stack.push_async_callback(self._server.shutdown, 0.1)
        self._acceptor = Acceptor(
            self._listening.sockets,
            self._server,
            max_connections=identity_setup.max_caller_connections(self.settings),
            tls=tls,
            clock=self._times.clock,
        )
        self._listening.open()
        self._acceptor.open()
