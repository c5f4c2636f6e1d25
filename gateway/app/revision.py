"""The objects made of one version of the settings, and their replacement by the next version.

A `Core` holds everything that depends on settings that may change: tokens, the connections to the
platform, the request path. Listeners, metrics, audit and the token store outlive it.
`gateway.app.request_dispatch` dispatches every request to the newest core. An exchange stays with
the core in which it began; a core is closed after its last exchange.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Final

import aiohttp

from gateway.app import identity_setup, tls_contexts
from gateway.app.request_dispatch import ActiveUses, CoreDispatcher, RequestRoute
from gateway.audit.audit_trail import AuditTrail
from gateway.clock import TimeSource
from gateway.config.settings import Settings
from gateway.exchange import Exchange
from gateway.health.health import TokenState
from gateway.health.platform_judgement import PlatformJudgement
from gateway.http.client.upstream_pool import UpstreamPool
from gateway.http.headers import request_fields
from gateway.http.slow_readers import SlowReaders
from gateway.login.session_store import SessionStore
from gateway.oauth.credential import Credential
from gateway.oauth.token_endpoint import TokenEndpoint, TokenRequestQueue
from gateway.oauth.token_store import TokensAtHand
from gateway.oauth.tokens import Tokens, make_tokens
from gateway.pipeline.admission import Admission, LifecyclePhase, UploadLimiter
from gateway.pipeline.guards import ConditionGuard, SearchGuard
from gateway.pipeline.handler import ExchangeAccounting, Handler
from gateway.pipeline.link_translation import LinkTranslatorFactory, platform_links
from gateway.pipeline.permissions import PermissionCheck
from gateway.pipeline.platform_client import (
    CapabilityCache,
    PlatformClient,
    PlatformProbe,
)
from gateway.pipeline.request_composer import RequestComposer
from gateway.pipeline.unidentified_limit import UnidentifiedLimiter
from gateway.pipeline.upstream import TokenRetry, Upstream
from gateway.telemetry.metrics import CONNECTION_STATES, Metrics

if TYPE_CHECKING:
    import ssl

    from gateway.app.login_setup import LoginParts
    from gateway.app.outbox_service import OutboxService
    from gateway.oauth.redis_token_store import RedisTokenStore
    from gateway.outbox.platform_sender import EntrySender
    from gateway.telemetry.tracing import Tracing


# Credentials with which the gateway sends one request of its own, at most.
_MAX_CANDIDATES: Final = 20


class Core:
    """The objects made of one version of the settings; the constructor opens nothing but files.

    All parameters but `settings` outlive it. Raises `StartError` where a secret or certificate
    cannot be read.
    """

    entry_sender: EntrySender  # set only where there is an outbox

    def __init__(
        self,
        settings: Settings,
        *,
        times: TimeSource,
        session: aiohttp.ClientSession,
        at_hand: TokensAtHand,
        token_requests: TokenRequestQueue,
        store: RedisTokenStore | None,
        metrics: Metrics,
        audit: AuditTrail,
        session_store: SessionStore,
        judgement: PlatformJudgement,
        exchange_listeners: tuple[Callable[[Exchange], None], ...],
        tracing: Callable[[Settings], Tracing] | None,
        outbox: OutboxService | None,
        permissions: PermissionCheck,
    ) -> None:
        self.settings, self._times = settings, times
        self._metrics = metrics
        self._audit = audit
        self.judgement = judgement
        self._exchange_listeners = (*exchange_listeners, judgement.record_exchange)
        self._tracing = None if tracing is None else tracing(settings)
        self._outbox = outbox
        self._permissions = permissions
        platform_tls = tls_contexts.platform_tls(settings)
        self.tokens = make_tokens(
            _credentials(settings, times, session, platform_tls),
            at_hand=at_hand,
            store=store,
            metrics=metrics,
            audit=audit,
            sso=settings.sso,
            times=times,
            queue=token_requests,
        )
        self.pool = _upstream_pool(settings, platform_tls, times.clock)
        limits = settings.limits
        self.admission = Admission(max_concurrent=limits.max_concurrent_requests, audit=audit)
        self._callers = identity_setup.caller_registry(settings, self.tokens, times.clock)
        self._unidentified_limiter = UnidentifiedLimiter(
            self._callers, limits.unidentified_rate, times.clock, signs_in=settings.login.enabled
        )
        self._login = _login_parts(settings, times, session, token_requests, session_store, audit)
        handler = self._handler()
        routed = (handler, self._callers, self._unidentified_limiter)
        front = handler if self._login is None else self._login.routes(*routed)
        self.route = RequestRoute(front, ActiveUses(), settings.listen.public_url)

    def _handler(self) -> Handler:
        settings = self.settings
        upstream = self._upstream()
        forwarder = TokenRetry(upstream, self._metrics.count_retry)
        client = PlatformClient(forwarder, settings.platform.base_path)
        links = platform_links(settings.platform, settings.rewrite)
        self.statement = statement = CapabilityCache(
            client, self._candidates, self._times.clock, links
        )
        # Retries of the gateway's own probes are no caller's, so that they are not counted.
        own_client = PlatformClient(TokenRetry(upstream, lambda cause: None), client.platform_path)
        self.probe = PlatformProbe(own_client, self._candidates)
        fhir, on_ignored = settings.fhir, self._metrics.count_ignored_parameters
        guard = None if fhir.search_guard == "off" else SearchGuard(fhir, statement, on_ignored)
        condition_guard = None if fhir.condition_guard == "off" else ConditionGuard(fhir, statement)
        if self._outbox is not None:
            # Queued writes are sent with the callers' tokens, never with a user's.
            self.entry_sender = self._outbox.entry_sender(
                settings, client, self.tokens, statement, condition_guard, self.judgement
            )
        requests = self._request_forwarder(forwarder, client, guard)
        return Handler(
            listen=settings.listen,
            limits=settings.limits,
            fhir=fhir,
            fields=request_fields(*settings.platform.forwarded_fields),
            admission=self.admission,
            callers=self._callers,
            permissions=self._permissions,
            unidentified_limiter=self._unidentified_limiter,
            forwarder=requests,
            link_translators=self._link_translators(),
            search_guard=guard,
            condition_guard=condition_guard,
            account=self._account(),
            write_queue=(
                None if self._outbox is None else self._outbox.write_queue(settings, requests)
            ),
            monotonic=self._times.clock,
            wall=self._times.wall_clock,
        )

    def _request_forwarder(
        self,
        forwarder: TokenRetry,
        client: PlatformClient,
        guard: SearchGuard | None,
    ) -> RequestComposer:
        settings = self.settings
        return RequestComposer(
            client.platform_path,
            limits=settings.limits,
            clock=self._times.clock,
            guard=guard,
            client=client if settings.fhir.auto_if_match else None,
            forwarder=forwarder,
            permissions=self._permissions,
        )

    def _link_translators(self) -> LinkTranslatorFactory:
        return LinkTranslatorFactory(
            listen=self.settings.listen,
            platform=self.settings.platform,
            rewrite=self.settings.rewrite,
            on_links=self._metrics.record_links,
        )

    def _account(self) -> Callable[[Exchange], None]:
        account = ExchangeAccounting(
            self._metrics.record_exchange, self._audit.record_exchange, self._exchange_listeners
        ).account
        return account if self._tracing is None else self._tracing.wrap_account(account)

    def _upstream(self) -> Upstream:
        settings = self.settings
        return Upstream(
            pool=self.pool,
            platform=settings.platform,
            retries=settings.retries,
            judgement=self.judgement,
            uploads=UploadLimiter(
                settings.platform.max_connections // 2, settings.platform.connect_timeout
            ),
            on_retry=self._metrics.count_retry,
            tracing=self._tracing,
            monotonic=self._times.clock,
            wall=self._times.wall_clock,
            random=self._times.random,
        )

    def start(self, before: Core | None = None) -> None:
        """Start to fetch tokens; reuse those of the core `before` that are still valid."""
        self.pool.open()
        self._metrics.declare_credentials(self.tokens)
        for name, tokens in self.tokens.items():
            tokens.start(None if before is None else before.tokens.get(name))
        if before is not None:
            self.admission.phase = before.admission.phase
            self.judgement.circuit = self.settings.circuit_breaker
            if before.settings.platform.fhir_base_url == self.settings.platform.fhir_base_url:
                self.statement.take_over(before.statement)

    def _candidates(self) -> list[Tokens]:
        """Return the tokens of callers' credentials, for what the gateway asks for itself.

        The one that served a request last comes first, those that the platform refuses last. Where
        none has a token, one is returned. Of many, others are asked each time, so that a few whose
        clients are refused do not stand for all.
        """
        in_use = [self.tokens[name] for name in identity_setup.credentials_in_use(self.settings)]
        last = self.judgement.good_with
        ready = [tokens for tokens in in_use if tokens.current() is not None]
        if len(ready) > _MAX_CANDIDATES:
            ready.sort(key=lambda _: self._times.random())
        ready.sort(key=lambda tokens: (tokens.name != last, tokens.state().is_rejected))
        return ready[:_MAX_CANDIDATES] or in_use[:1]

    def token_states(self) -> dict[str, TokenState]:
        """Return the token state of every credential."""
        return {name: tokens.state() for name, tokens in self.tokens.items()}

    async def retire(self) -> None:
        """Close after the last exchange; no new one may begin in this core."""
        for tokens in self.tokens.values():
            tokens.stop_renewing()
        self.pool.drain()
        await self.route.active_uses.wait_idle()
        if self._login is not None:
            await self._login.renewals.finish()
        await self.close()

    async def close(self) -> None:
        """Close at once; exchanges in flight fail."""
        await self.statement.close()
        if self._login is not None:
            await self._login.renewals.close()
        for tokens in self.tokens.values():
            await tokens.close()
        self.pool.close()


class CoreSwitch:
    """The core in use, and the replaced cores that still have exchanges in flight."""

    def __init__(self, first: Core) -> None:
        self.current = first
        self.dispatcher = CoreDispatcher(first.route)
        self._retiring: dict[asyncio.Task[None], Core] = {}

    @property
    def inflight(self) -> int:
        """The number of exchanges in flight in all cores."""
        return sum(core.admission.inflight for core in self._all())

    def connections(self) -> Mapping[str, int]:
        """Return the number of connections to the platform of all cores, by state."""
        total = Counter(dict.fromkeys(CONNECTION_STATES, 0))
        for core in self._all():
            total.update(core.pool.connection_counts())
        return total

    def acquire_entry_sender(self) -> tuple[EntrySender, Callable[[], None]]:
        """Return the current sender of queued writes and a function that releases it.

        The core of the sender is not closed before the function is called.
        """
        core, uses = self.current, self.current.route.active_uses
        uses.enter()
        return core.entry_sender, uses.leave

    async def probe_platform(self) -> tuple[str, str] | None:
        """Return what the platform's metadata shows, and the credential used; None if nothing."""
        core, uses = self.current, self.current.route.active_uses
        uses.enter()
        try:
            return await core.probe.probe()
        finally:
            uses.leave()

    def set_phase(self, phase: LifecyclePhase) -> None:
        """Set the lifecycle phase of every core."""
        for core in self._all():
            core.admission.phase = phase

    def replace(self, successor: Core) -> None:
        """Let new requests go to `successor`; exchanges in flight stay in their core."""
        before = self.current
        successor.start(before)
        self.current = successor
        self.dispatcher.route = successor.route
        task = asyncio.get_running_loop().create_task(before.retire())
        self._retiring[task] = before
        task.add_done_callback(self._retiring.pop)

    async def close(self) -> None:
        """Close all cores; exchanges in flight fail."""
        retiring = tuple(self._retiring.items())
        for task, _ in retiring:
            task.cancel()
        await asyncio.gather(*(task for task, _ in retiring), return_exceptions=True)
        for core in (self.current, *(core for _, core in retiring)):
            await core.close()

    def _all(self) -> tuple[Core, ...]:
        return (self.current, *self._retiring.values())


def _upstream_pool(
    settings: Settings, tls: ssl.SSLContext | None, clock: Callable[[], float]
) -> UpstreamPool:
    return UpstreamPool(
        identity_setup.upstream_origin(settings, tls),
        settings=settings.platform,
        clock=clock,
        # Whether callers compete for connections; all signed-in users count as one caller.
        shared=len(settings.callers) + settings.login.enabled > 1,
        readers=SlowReaders(settings.limits.min_body_rate, clock),
    )


def _credentials(
    settings: Settings,
    times: TimeSource,
    session: aiohttp.ClientSession,
    platform_tls: ssl.SSLContext | None,
) -> dict[str, Credential]:
    endpoint = TokenEndpoint(
        session=session,
        sso=settings.sso,
        tls=tls_contexts.sso_tls(settings, platform_tls),
        clock=times.clock,
        wall_clock=times.wall_clock,
    )
    names = dict.fromkeys(identity_setup.credentials_in_use(settings))
    if settings.audit.fhir_credential is not None:
        names[settings.audit.fhir_credential] = None
    return {
        name: Credential(
            endpoint=endpoint,
            settings=settings.credentials[name],
            name=name,
            platform=settings.platform.fhir_base_url,
            authenticators=identity_setup.credential_authenticators(settings, name),
            reread=partial(identity_setup.credential_authenticators, settings, name),
        )
        for name in names
    }


def _login_parts(
    settings: Settings,
    times: TimeSource,
    session: aiohttp.ClientSession,
    token_requests: TokenRequestQueue,
    session_store: SessionStore,
    audit: AuditTrail,
) -> LoginParts | None:
    if not settings.login.enabled:
        return None
    # Imported here: the import takes time, and the login is optional.
    from gateway.app.login_setup import LoginParts

    return LoginParts(
        settings=settings,
        times=times,
        session=session,
        token_requests=token_requests,
        session_store=session_store,
        audit=audit,
    )
