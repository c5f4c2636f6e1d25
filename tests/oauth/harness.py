"""A credential's `Tokens` with an SSO double, a clock of the test and a recording observer."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from gateway.clock import TimeSource
from gateway.config.outbound_settings import CredentialSettings, SsoSettings
from gateway.health.health import TokenState
from gateway.oauth.client_authentication import ClientAuthenticator, parse_client_secrets
from gateway.oauth.credential import Credential
from gateway.oauth.token_endpoint import TokenEndpoint, TokenRequestQueue
from gateway.oauth.token_response import AccessToken
from gateway.oauth.token_store import (
    NULL_LEASE,
    StoreKey,
    TokenLease,
    TokensAtHand,
    tokens_at_hand,
)
from gateway.oauth.tokens import Tokens, make_tokens
from gateway.secret import Secret
from tests.doubles.clock import FakeClock, run_pending_tasks
from tests.doubles.sso import Sso

SECRET = "planted-secret"
Detail = Mapping[str, object]


@dataclass
class RecordingObserver:
    """Records what it is notified of, in the place of metrics and audit."""

    requested: list[tuple[str, str, float]] = field(default_factory=list)
    expiries: list[tuple[str, float]] = field(default_factory=list)
    waiters: list[tuple[str, int]] = field(default_factory=list)
    events: list[tuple[str, str, Detail]] = field(default_factory=list)

    def on_token_requested(self, credential: str, outcome: str, seconds: float, /) -> None:
        self.requested.append((credential, outcome, seconds))

    def on_token_expiry(self, credential: str, timestamp: float, /) -> None:
        self.expiries.append((credential, timestamp))

    def on_waiters_changed(self, credential: str, waiting: int, /) -> None:
        self.waiters.append((credential, waiting))

    def record_event(self, name: str, /, credential: str, outcome: str, **detail: object) -> None:
        assert name == "token"
        self.events.append((credential, outcome, detail))

    @property
    def outcomes(self) -> list[str]:
        return [outcome for _, outcome, _ in self.requested]


class SharedTokens:
    """A store that replicas share, in this process."""

    def __init__(self) -> None:
        self.tokens: dict[str, AccessToken] = {}

    async def get(self, key: StoreKey) -> AccessToken | None:
        return self.tokens.get(key.name)

    async def put(self, key: StoreKey, token: AccessToken) -> None:
        self.tokens[key.name] = token

    async def delete(self, key: StoreKey, token: AccessToken) -> None:
        if self.tokens.get(key.name) == token:
            del self.tokens[key.name]

    async def acquire_lease(self, key: StoreKey) -> TokenLease | None:
        """Return a lease, which is always free."""
        return NULL_LEASE


class BreakableStore(SharedTokens):
    """A store that can fail or hang."""

    def __init__(self) -> None:
        super().__init__()
        self.broken = False
        self.hangs = False
        self.asked = 0

    async def _trouble(self) -> None:
        self.asked += 1
        if self.hangs:
            await asyncio.Event().wait()
        if self.broken:
            raise ConnectionError("planted text")

    async def get(self, key: StoreKey) -> AccessToken | None:
        await self._trouble()
        return await super().get(key)

    async def put(self, key: StoreKey, token: AccessToken) -> None:
        await self._trouble()
        await super().put(key, token)

    async def delete(self, key: StoreKey, token: AccessToken) -> None:
        await self._trouble()
        await super().delete(key, token)

    async def acquire_lease(self, key: StoreKey) -> TokenLease | None:
        await self._trouble()
        return await super().acquire_lease(key)


def tokens_of(
    credentials: Mapping[str, Any],
    *,
    clock: FakeClock,
    observer: RecordingObserver,
    at_hand: TokensAtHand | None = None,
    store: Any = None,
    sso: SsoSettings | None = None,
    queue: TokenRequestQueue | None = None,
    seed: int = 17,
) -> dict[str, Tokens]:
    """Return tokens whose time is that of the clock; the jitter is the same in every run."""
    sso = sso or SsoSettings(token_url="https://sso.test/token")
    times = TimeSource(
        clock,
        clock.wall,
        clock.call_later,
        random.Random(seed).random,  # noqa: S311 - no secret
    )
    return make_tokens(
        credentials,
        at_hand=tokens_at_hand(clock) if at_hand is None else at_hand,
        store=store,
        metrics=observer,  # type: ignore[arg-type] # a double
        audit=observer,  # type: ignore[arg-type] # a double
        sso=sso,
        times=times,
        queue=queue or TokenRequestQueue(sso.max_requests, times),
    )


def credential_of(
    endpoint: TokenEndpoint,
    authenticators: tuple[ClientAuthenticator, ...],
    *,
    client: str = "id",
    name: str = "default",
    platform: str = "https://platform.test/r5",
    reread: Callable[[], tuple[ClientAuthenticator, ...]] | None = None,
    **settings: Any,
) -> Credential:
    """Return a credential of the client; `settings` are more of its settings."""
    return Credential(
        endpoint=endpoint,
        settings=CredentialSettings(client_id=client, **settings),
        platform=platform,
        name=name,
        authenticators=authenticators,
        reread=reread,
    )


class Setup:
    """The environment of a test of `Tokens`; the credential is `default`.

    `timeout` limits how long requests wait for a token, not the token requests themselves.
    """

    def __init__(
        self, sso: Sso, session: aiohttp.ClientSession, clock: FakeClock, timeout: float
    ) -> None:
        self.sso = sso
        self.clock = clock
        self.observer = RecordingObserver()
        self.at_hand = tokens_at_hand(clock)
        self.session = session
        self.settings = SsoSettings(token_url=sso.token_url, timeout=timeout)
        self.endpoint = TokenEndpoint(
            session=session,
            sso=SsoSettings(token_url=sso.token_url),
            clock=clock,
            wall_clock=clock.wall,
        )
        # It outlives the tokens, as in the gateway.
        self.queue = TokenRequestQueue(self.settings.max_requests, TimeSource(clock))
        self.tokens = self.made()["default"]

    def made(
        self, *names: str, store: SharedTokens | None = None, client: str = "id"
    ) -> dict[str, Tokens]:
        """Return other tokens of the same SSO, of a credential of each name."""
        return tokens_of(
            {name: self.source(name=name, client=client) for name in names or ("default",)},
            clock=self.clock,
            observer=self.observer,
            at_hand=self.at_hand,
            store=store,
            sso=self.settings,
            queue=self.queue,
        )

    def source(
        self, endpoint: TokenEndpoint | None = None, name: str = "default", client: str = "id"
    ) -> Credential:
        secrets = parse_client_secrets(client, Secret(SECRET), in_header=False)
        return credential_of(endpoint or self.endpoint, secrets, client=client, name=name)

    async def obtain(self) -> AccessToken:
        return await self.tokens.wait_for_token()

    @property
    def current(self) -> str | None:
        """Return the token that a request would get without waiting, None without one."""
        token = self.tokens.current()
        return token.reveal() if token is not None else None

    @property
    def state(self) -> TokenState:
        return self.tokens.state()

    async def settled(self) -> None:
        await run_pending_tasks()
        while self.state.is_fetching:  # noqa: ASYNC110 - the end of a fetch sets no event
            await asyncio.sleep(0.001)

    async def pass_time(self, seconds: float, step: float = 0.05) -> None:
        """Move the clock in small steps. Each token request ends in the step it began in."""
        end = self.clock.now + seconds
        while self.clock.now < end:
            await self.clock.advance(min(step, end - self.clock.now))
            await self.settled()


@asynccontextmanager
async def make_setup(timeout: float = 10.0) -> AsyncIterator[Setup]:
    """Yield an SSO, a session and tokens, and close them at the end."""
    jar = aiohttp.DummyCookieJar()
    async with Sso() as sso, aiohttp.ClientSession(cookie_jar=jar, trust_env=False) as session:
        made = Setup(sso, session, FakeClock(), timeout)
        yield made
        sso.release()
        await made.tokens.close()
