"""The interfaces that `gateway.oauth.tokens` depends on: a source of tokens and an observer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from gateway.oauth.store import StoreKey
from gateway.oauth.token_response import TokenResponse


class TokenSource(Protocol):
    """Requests the tokens of one credential."""

    @property
    def store_key(self) -> StoreKey:
        """The key of these tokens in the store; it changes with the client secret."""
        ...

    @property
    def uses_previous_secret(self) -> bool:
        """Whether the SSO refused the secret that is configured first and accepted another."""
        ...

    async def request(self) -> TokenResponse:
        """Request a new token from the SSO. Raises `TokenRequestError`."""
        ...


class TokenObserver(Protocol):
    """Receives the events of tokens, but no token. `outcome` is `ok` or a `FailureKind`."""

    def on_token_requested(self, credential: str, outcome: str, seconds: float, /) -> None:
        """Called when a token request succeeded or failed, after `seconds`."""
        ...

    def on_token_expiry(self, credential: str, timestamp: float, /) -> None:
        """Called with the Unix time at which the token in use expires, 0 when it was discarded."""
        ...

    def on_waiters_changed(self, credential: str, waiting: int, /) -> None:
        """Called with the number of requests that wait for a token now."""
        ...

    def on_token_event(
        self, credential: str, outcome: str, detail: Mapping[str, str | float | None], /
    ) -> None:
        """Called when a token was fetched or could not be fetched, for the audit trail."""
        ...
