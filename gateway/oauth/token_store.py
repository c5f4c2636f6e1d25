"""Where access tokens are: in this process, and in a store that replicas share.

`gateway.oauth.tokens` has the tokens in use at hand, where they also outlive a reload of the
settings. It reads the shared store, if there is one, before it requests a token from the SSO. Such
a store saves token requests, because one replica requests the token for all. `StoreBreaker` is the
time limit and circuit breaker around any shared store, also that of the sessions.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Final, ParamSpec, Protocol, TypeAlias, TypeVar

from cachetools import TLRUCache

from gateway.errors import SSO_UNAVAILABLE, GatewayError
from gateway.oauth.token_failures import explain_store_error
from gateway.oauth.token_response import AccessToken
from gateway.secret import Secret
from gateway.telemetry.logs import get_logger

_log = get_logger(__name__)
_P = ParamSpec("_P")
_T = TypeVar("_T")

_MAX_TOKENS: Final = 4096
# Seconds that an access to a shared store may take, and for which it is not used after a failure.
_STORE_TIMEOUT: Final = 0.25
_FIRST_STORE_PAUSE: Final = 0.5
_MAX_STORE_PAUSE: Final = 10.0


@dataclass(frozen=True, slots=True)
class StoreKey:
    """The key of tokens or sessions in a store.

    `name` is a digest that identifies the entry without revealing anything of it. For tokens it
    covers issuer, platform, client, request and secret. `material` is the secret from which a store
    outside of this process derives its encryption key.
    """

    name: str
    material: Secret


class TokensInUse(Protocol):
    """Where the tokens of a request come from: those of a credential, or of a signed-in user.

    It stands here because `gateway.oauth.tokens` is compiled.
    """

    @property
    def name(self) -> str:
        """The name in metrics and audit."""

    def current(self) -> AccessToken | None:
        """Return the token to use now, or None if `wait_for_token` must be awaited."""

    async def wait_for_token(self) -> AccessToken:
        """Return the token to use now, waiting for one if necessary. Raises `GatewayError`."""

    async def replace_rejected(self, rejected: AccessToken) -> AccessToken:
        """Return another token than `rejected`, to which the platform responded with 401."""

    def invalidate(self, token: AccessToken) -> None:
        """Called when the platform rejected `token` and the request is not retryable."""

    def on_fresh_token_rejected(self, token: AccessToken) -> None:
        """Called when the platform rejected a fresh token too."""

    def on_token_accepted(self, token: AccessToken) -> None:
        """Called when the platform has accepted the token."""


class TokenLease(Protocol):
    """The exclusive right to request the tokens of one key; one replica holds it at a time."""

    async def release(self) -> None:
        """Release the lease, so that another replica can acquire it."""


class _NullLease:
    async def release(self) -> None:
        """Do nothing: without the store, no replica excludes another."""


NULL_LEASE: Final[TokenLease] = _NullLease()


TokensAtHand: TypeAlias = "TLRUCache[str, AccessToken]"


def tokens_at_hand(clock: Callable[[], float]) -> TokensAtHand:
    """Return the place of the tokens that this process uses, by the names of their `StoreKey`s.

    There are at most 4096. Each entry lives as long as its token is usable by `clock`, the
    monotonic clock of the tokens' times. The place outlives a version of the settings.
    """
    return TLRUCache(_MAX_TOKENS, lambda _key, token, _now: token.usable_until, timer=clock)


class StoreBreaker:
    """A time limit and a circuit breaker around the accesses to a store that processes share.

    `store` is its name in errors. Each access takes at most `timeout` seconds. After a failure the
    store is not used for 0.5 s, doubled with each further failure up to `max_pause` seconds.
    `on_failure`, which gets the cause and what to do, and `on_recovery` are called once each.
    """

    def __init__(
        self,
        store: str,
        clock: Callable[[], float],
        *,
        timeout: float,
        max_pause: float,
        on_failure: Callable[[str, str], None],
        on_recovery: Callable[[], None],
    ) -> None:
        self._store = store
        self._clock = clock
        self._timeout = timeout
        self._max_pause = max_pause
        self._on_failure = on_failure
        self._on_recovery = on_recovery
        self._pause = 0.0
        self._disabled_until = 0.0

    async def call(
        self, access: Callable[_P, Awaitable[_T]], *args: _P.args, **more: _P.kwargs
    ) -> _T:
        """Return the result of an access. Raises `GatewayError` sso-unavailable if it fails.

        During the pause after a failure it fails at once.
        """
        if self._pause and self._clock() < self._disabled_until:
            raise self._unavailable()
        return await self.attempt(access, *args, **more)

    async def attempt(
        self, access: Callable[_P, Awaitable[_T]], *args: _P.args, **more: _P.kwargs
    ) -> _T:
        """Do as `call`, also during the pause after a failure."""
        try:
            async with asyncio.timeout(self._timeout):
                result = await access(*args, **more)
        except Exception as error:  # depends on the library that the store uses
            self._failed(error)
            raise self._unavailable() from None
        if self._pause:
            self._pause = 0.0
            self._on_recovery()
        return result

    async def call_or(
        self, default: _T, access: Callable[_P, Awaitable[_T]], *args: _P.args, **more: _P.kwargs
    ) -> _T:
        """Do as `call`, but return `default` if the access fails."""
        try:
            return await self.call(access, *args, **more)
        except GatewayError:
            return default

    async def release(self, lease: TokenLease) -> None:
        """Release the lease, also during a pause, so that its renewal task ends.

        A failure is no error: the lease expires.
        """
        # `NULL_LEASE` does not use the store: its release is no sign of a recovery.
        if lease is not NULL_LEASE:
            with contextlib.suppress(GatewayError):
                await self.attempt(lease.release)

    def _failed(self, error: Exception) -> None:
        if not self._pause:
            guidance = explain_store_error(error)
            self._on_failure(f"{guidance.meaning} ({type(error).__name__})", guidance.remedy)
        self._pause = min(max(2 * self._pause, _FIRST_STORE_PAUSE), self._max_pause)
        self._disabled_until = self._clock() + self._pause

    def _unavailable(self) -> GatewayError:
        return GatewayError(
            SSO_UNAVAILABLE,
            f"the {self._store} cannot be reached",
            hint=f"{self._store}: away",
            retry_after=1.0,
        )


def token_store_breaker(
    clock: Callable[[], float], timeout: float = _STORE_TIMEOUT
) -> StoreBreaker:
    """Return the breaker around a store of tokens. While it fails, each replica is on its own."""
    return StoreBreaker(
        "token store",
        clock,
        timeout=timeout,
        max_pause=_MAX_STORE_PAUSE,
        on_failure=partial(
            _log.warning, "token store: %s; tokens are not shared until it is back; to do: %s"
        ),
        on_recovery=partial(_log.info, "token store: back; tokens are shared again"),
    )
