"""What `gateway.oauth.tokens` needs from others: a source of tokens, an observer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from gateway.oauth.store import StoreKey
from gateway.oauth.token_response import TokenResponse


class TokenSource(Protocol):
    """Where the tokens of one credential come from."""

    @property
    def store_key(self) -> StoreKey:
        """Tells these tokens from all others in the store; changes with the secret."""
        ...

    @property
    def uses_previous_secret(self) -> bool:
        """Whether the SSO refused the secret that is offered first, and took another."""
        ...

    async def request(self) -> TokenResponse:
        """Ask the SSO once; raises `TokenRequestError`."""
        ...


class TokenObserver(Protocol):
    """Told what happens to tokens; never shown one. `outcome` is `ok` or a `FailureKind`."""

    def on_token_requested(self, credential: str, outcome: str, seconds: float, /) -> None:
        """The SSO was asked and answered, or did not, after `seconds`."""
        ...

    def on_token_expiry(self, credential: str, timestamp: float, /) -> None:
        """The token in use expires at the Unix time `timestamp`; 0 when it was dropped."""
        ...

    def on_waiters_changed(self, credential: str, waiting: int, /) -> None:
        """So many requests wait for a token now."""
        ...

    def on_token_event(
        self, credential: str, outcome: str, detail: Mapping[str, str | float | None], /
    ) -> None:
        """For the audit trail: a token was fetched or could not be."""
        ...
