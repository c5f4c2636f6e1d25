"""An SSO and a shared store for many replicas, of which a test determines every step."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from urllib.parse import parse_qsl

from gateway.config.outbound_settings import CredentialSettings
from gateway.oauth.client_authentication import (
    ClientAuthentication,
    ClientAuthenticator,
    parse_client_secrets,
)
from gateway.oauth.credential import Credential
from gateway.oauth.token_response import AccessToken, TokenRequestError, TokenResponse
from gateway.oauth.token_store import StoreKey, TokenLease
from gateway.secret import Secret
from tests.doubles.clock import FakeClock

LEASE = 3.0
PATIENCE = 5.0


def _client(key: StoreKey) -> str:
    """Return the client of a key, which `FileSource` puts before the name."""
    return key.name.partition(":")[0]


@dataclass
class Pending:
    """A token request without a response."""

    replica: str
    client: str
    secret: str
    answer: asyncio.Future[TokenResponse]


@dataclass
class Held:
    """A lease; `ends` is set once the replica that holds it has died."""

    replica: str
    ends: float | None = None


class SharedStore:
    """The store that the replicas share; `away` makes every access fail."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.away = False
        self.tokens: dict[str, AccessToken] = {}
        self.leases: dict[str, Held] = {}

    def holder(self, key: StoreKey) -> str | None:
        """Return the replica that holds the lease of a key now, None without one."""
        held = self.leases.get(key.name)
        if held is None or (held.ends is not None and self.clock() >= held.ends):
            return None
        return held.replica

    def turn_of(self, replica: str, client: str) -> bool:
        """Return whether a replica holds a lease for a client, whatever its secret."""
        return any(
            held.replica == replica and name.startswith(f"{client}:")
            for name, held in self.leases.items()
        )

    def orphan(self, replica: str) -> None:
        """Let the leases of a killed replica expire, because it no longer renews them."""
        for held in self.leases.values():
            if held.replica == replica:
                held.ends = self.clock() + LEASE


class StoreOfOne:
    """The shared store as one replica sees it."""

    def __init__(self, shared: SharedStore, replica: str) -> None:
        self.shared = shared
        self.replica = replica
        self.killed = False
        self.failed = False
        # By client: when the present wait for another replica began, and the latest denied attempt.
        self.denied: dict[str, tuple[float, float]] = {}

    def _reach(self) -> None:
        self.failed = self.shared.away or self.killed
        if self.failed:
            raise ConnectionError

    async def get(self, key: StoreKey) -> AccessToken | None:
        """Return the token that another replica may have put, None without a valid one."""
        self._reach()
        kept = self.shared.tokens.get(key.name)
        return kept if kept is not None and self.shared.clock() < kept.expires_at else None

    async def put(self, key: StoreKey, token: AccessToken) -> None:
        self._reach()
        self.shared.tokens[key.name] = token

    async def delete(self, key: StoreKey, token: AccessToken) -> None:
        self._reach()
        if self.shared.tokens.get(key.name) == token:
            del self.shared.tokens[key.name]

    async def acquire_lease(self, key: StoreKey) -> TokenLease | None:
        """Return the lease, or None and note the time while another replica holds it."""
        self._reach()
        if self.shared.holder(key) not in (None, self.replica):
            now = self.shared.clock()
            first, last = self.denied.get(_client(key), (now, now))
            self.denied[_client(key)] = (first if now - last < 0.2 else now, now)
            return None
        assert self.shared.holder(key) is None, "claimed twice by one replica"
        self.shared.leases[key.name] = Held(self.replica)
        return _LeaseOfOne(self, key)


class _LeaseOfOne:
    def __init__(self, store: StoreOfOne, key: StoreKey) -> None:
        self._store = store
        self._key = key

    async def release(self) -> None:
        """Release the lease.

        When the store is away, the lease only ends, because it is not renewed.
        """
        held = self._store.shared.leases.get(self._key.name)
        if held is None or held.replica != self._store.replica:
            return
        if self._store.killed or self._store.shared.away:
            held.ends = self._store.shared.clock() + LEASE
        self._store._reach()
        del self._store.shared.leases[self._key.name]


@dataclass
class PendingSso:
    """Holds every request until the test responds to it; `takes` are the secrets that it accepts.

    `violations` are broken invariants; an exception raised at that time would be a failed fetch.
    """

    clock: FakeClock
    takes: set[str] = field(default_factory=lambda: {"s0"})
    pending: list[Pending] = field(default_factory=list)
    stores: dict[str, StoreOfOne] = field(default_factory=dict)
    violations: list[str] = field(default_factory=list)

    def begin(self, replica: str, client: str) -> None:
        """Note the start of a fetch, of one or several requests.

        Record a violation without a lease.
        """
        store = self.stores[replica]
        first, last = store.denied.pop(client, (self.clock(), 0.0))
        waited = last - first >= PATIENCE - 0.1 and self.clock() - last < 0.2
        if not (store.shared.turn_of(replica, client) or store.failed or waited):
            self.violations.append("asked out of turn")

    async def ask(self, replica: str, client: str, secret: str) -> TokenResponse:
        """Wait for the response to a request.

        Record a violation if the client has another one pending.
        """
        if any((each.replica, each.client) == (replica, client) for each in self.pending):
            self.violations.append("two token requests of one replica at once")
        one = Pending(replica, client, secret, asyncio.get_running_loop().create_future())
        self.pending.append(one)
        try:
            return await one.answer
        finally:
            self.pending.remove(one)


@dataclass
class EndpointOfOne:
    """The SSO as one replica sees it, in place of a `TokenEndpoint`."""

    sso: PendingSso
    replica: str
    token_url: str = "https://sso.test/token"

    async def request(self, authenticate: ClientAuthentication, form: str) -> TokenResponse:
        sent = dict(parse_qsl(authenticate(self.token_url, {}, form)))
        return await self.sso.ask(self.replica, sent["client_id"], sent["client_secret"])


def secrets(client: str, text: str) -> tuple[ClientAuthenticator, ...]:
    return parse_client_secrets(client, Secret(text), in_header=False)


class FileSource(Credential):
    """A source that reads its file again when the SSO refuses, without another thread."""

    def __init__(self, endpoint: EndpointOfOne, client: str, file: dict[str, str]) -> None:
        super().__init__(
            endpoint=endpoint,  # type: ignore[arg-type] # a double
            settings=CredentialSettings(client_id=client),
            platform="https://platform.test/r5",
            name=client,
            authenticators=secrets(client, file["text"]),
        )
        self.client = client
        self.file = file
        self.begin = lambda: endpoint.sso.begin(endpoint.replica, client)

    @property
    def store_key(self) -> StoreKey:
        """Return the store key with the client's name before it, for the checks."""
        key = super().store_key
        return StoreKey(f"{self.client}:{key.name}", key.material)

    async def request(self) -> TokenResponse:
        self.begin()
        try:
            return await super().request()
        except TokenRequestError as error:
            if error.kind != "refused" or not self.present(secrets(self.client, self.file["text"])):
                raise
        return await super().request()
