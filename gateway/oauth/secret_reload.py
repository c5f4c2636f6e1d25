"""A token source that rereads its client secret when the SSO refuses it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from gateway.oauth.credential import CredentialSource
from gateway.oauth.grants import ClientCredentials
from gateway.oauth.store import StoreKey
from gateway.oauth.token_response import TokenRequestError, TokenResponse


class ReloadingTokenSource:
    """Requests the tokens of one credential.

    `identity` identifies the credential independently of its secret. `reread` reads the secret
    again; it is called in another thread and may raise any exception if the secret cannot be read.
    """

    def __init__(
        self,
        source: CredentialSource,
        *,
        identity: tuple[object, ...],
        reread: Callable[[], ClientCredentials],
    ) -> None:
        self.identity = identity
        self._source = source
        self._reload_secret = reread

    def take_over(self, predecessor: ReloadingTokenSource) -> None:
        """Take over which secret the SSO accepted last from an object of the same identity."""
        self._source.take_over(predecessor._source)

    @property
    def store_key(self) -> StoreKey:
        """The key of these tokens in the store; it changes with the client secret."""
        return self._source.store_key

    @property
    def uses_previous_secret(self) -> bool:
        """Whether the SSO refused the secret that is configured first and accepted another."""
        return self._source.uses_previous_secret

    async def request(self) -> TokenResponse:
        """Request a new token, a second time if the SSO refused and the secret has changed since.

        Raises `TokenRequestError`.
        """
        try:
            return await self._source.request()
        except TokenRequestError as error:
            if error.kind != "refused" or not await self._has_changed():
                raise
        return await self._source.request()

    async def _has_changed(self) -> bool:
        try:
            grant = await asyncio.to_thread(self._reload_secret)
        except Exception:
            # The refusal is reported. The next reload of the settings reports the unreadable
            # secret.
            return False
        return self._source.present(grant)
