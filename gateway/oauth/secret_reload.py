"""A credential whose secret is read again when the SSO refuses it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from gateway.oauth.credential import CredentialSource
from gateway.oauth.grants import ClientCredentials
from gateway.oauth.store import StoreKey
from gateway.oauth.token_response import TokenRequestError, TokenResponse


class ReloadingTokenSource:
    """The tokens of one credential.

    `identity` tells whose tokens these are, whatever the secret; `reread` reads the secret again,
    in another thread, and raises any exception when it cannot be read.
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

    def take_over(self, before: ReloadingTokenSource) -> None:
        """Take over what another object of the same identity knows of its secrets."""
        self._source.take_over(before._source)

    @property
    def store_key(self) -> StoreKey:
        """Tells these tokens from all others in the store; changes with the secret."""
        return self._source.store_key

    @property
    def uses_previous_secret(self) -> bool:
        """Whether the SSO refused the secret that is offered first, and took another."""
        return self._source.uses_previous_secret

    async def request(self) -> TokenResponse:
        """Ask for a new token, a second time if the secret has changed since.

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
            # What was refused stands; that the secret cannot be read is told by the next reload.
            return False
        return self._source.present(grant)
