"""Requests the tokens of one credential, also while its client secret is being replaced.

The client secret is read again when the SSO refuses it. `gateway.oauth.tokens` decides when to
request one; this module only selects the secret.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from gateway.oauth.grants import client_credentials_form
from gateway.oauth.token_response import TokenRequestError
from gateway.oauth.token_store import StoreKey
from gateway.telemetry.logs import get_logger

if TYPE_CHECKING:
    from gateway.config.outbound_settings import CredentialSettings
    from gateway.oauth.client_authentication import ClientAuthenticator
    from gateway.oauth.token_endpoint import TokenEndpoint
    from gateway.oauth.token_response import TokenResponse

_log = get_logger(__name__)


class Credential:
    """A client with its secrets or keys, which requests tokens with the client credentials grant.

    `name` is that of the credential in the settings. A client may have several secrets or keys
    while one replaces another: its `authenticators`, the newest first. Each is a candidate. The
    candidate that the SSO accepted last is tried first. If the SSO refuses a candidate, the next
    one is tried. A secret that is no longer configured is dropped once the SSO accepted another.

    `platform` is the base URL of the platform that gets the tokens. `reread` reads the secret
    again; it is called in another thread and may raise any exception if the secret cannot be read.
    None where the secret cannot change.
    """

    def __init__(
        self,
        *,
        endpoint: TokenEndpoint,
        settings: CredentialSettings,
        name: str,
        platform: str,
        authenticators: Iterable[ClientAuthenticator],
        reread: Callable[[], Iterable[ClientAuthenticator]] | None = None,
    ) -> None:
        # What the tokens are for, whatever the secret. The platform is part of it: a token must
        # never be sent to another platform.
        self.identity = (
            endpoint.token_url,
            platform,
            settings.client_id,
            settings.scope,
            tuple(sorted(settings.extra_params.items())),
        )
        self._endpoint = endpoint
        self._settings = settings
        self.name = name
        self._reread = reread
        self._form = client_credentials_form(settings)
        self._configured = _index_by_fingerprint(authenticators)
        self._candidates = tuple(self._configured.values())

    @property
    def store_key(self) -> StoreKey:
        """The key of the tokens: a digest of issuer, platform, client, request and secret.

        Tokens that differ in one of these are never confused.
        """
        first = self._candidates[0]
        facts = [*self.identity, first.fingerprint]
        return StoreKey(hashlib.sha256(json.dumps(facts).encode()).hexdigest(), first.material)

    @property
    def uses_previous_secret(self) -> bool:
        """Whether the SSO refused the secret that is configured first and accepted another."""
        return self._candidates[0].fingerprint != next(iter(self._configured))

    def present(self, authenticators: Iterable[ClientAuthenticator]) -> bool:
        """Replace the candidates, all of which were refused.

        Return False, without a change, if all `authenticators` are candidates already.
        """
        configured = _index_by_fingerprint(authenticators)
        if configured.keys() <= {candidate.fingerprint for candidate in self._candidates}:
            return False
        self._configured, self._candidates = configured, tuple(configured.values())
        return True

    def take_over(self, predecessor: Credential) -> None:
        """Take over which secret the SSO accepted last from an object of the same identity.

        If the accepted secret is still configured and this object has no secret that `predecessor`
        has not, it becomes the first candidate; new secrets are tried before it. If it is no longer
        configured, it becomes the last candidate, until the SSO accepts a configured one.
        """
        accepted = predecessor._candidates[0]
        if (
            self._configured.keys() <= predecessor._configured.keys()
            and accepted.fingerprint in self._configured
        ):
            self._prefer(accepted.fingerprint)
        elif accepted.fingerprint not in self._configured:
            self._candidates = (*self._candidates, accepted)

    async def request(self) -> TokenResponse:
        """Request a new token, a second time if the SSO refused and the secret has changed since.

        Raises the `TokenRequestError` of the first candidate.
        """
        try:
            return await self._try_candidates()
        except TokenRequestError as error:
            if error.kind != "refused" or not await self._has_changed():
                raise
        return await self._try_candidates()

    async def _has_changed(self) -> bool:
        if self._reread is None:
            return False
        try:
            authenticators = await asyncio.to_thread(self._reread)
        except Exception:
            # The refusal is reported. The next reload of the settings reports the unreadable
            # secret.
            return False
        return self.present(authenticators)

    async def _try_candidates(self) -> TokenResponse:
        refusals: list[TokenRequestError] = []
        # The SSO may activate the new secret between two attempts. Where there are several
        # candidates, the first is therefore tried a second time.
        again = self._candidates[:1] if len(self._candidates) > 1 else ()
        for candidate in (*self._candidates, *again):
            try:
                response = await self._endpoint.request(candidate.authenticate, self._form)
            except TokenRequestError as error:
                refusals.append(error)
                if not _may_be_wrong_secret(error):
                    break
                continue
            self._accept(candidate)
            return replace(response, refusals=tuple(refusals))
        raise refusals[0]

    def _accept(self, candidate: ClientAuthenticator) -> None:
        if candidate.fingerprint in self._configured:
            is_alternative = candidate.fingerprint != next(iter(self._configured))
            if is_alternative and not self.uses_previous_secret:
                _log.warning(
                    "client %s: the SSO refused the first secret; another one stays in use",
                    self._settings.client_id,
                    credential=self.name,
                )
            self._prefer(candidate.fingerprint)
        elif candidate is not self._candidates[0]:
            _log.warning(
                "client %s: the SSO refused the changed secret; the one before stays in use",
                self._settings.client_id,
                credential=self.name,
            )
            self._candidates = (candidate, *self._configured.values())

    def _prefer(self, fingerprint: str) -> None:
        first = self._configured[fingerprint]
        self._candidates = tuple({fingerprint: first, **self._configured}.values())


def _index_by_fingerprint(
    authenticators: Iterable[ClientAuthenticator],
) -> dict[str, ClientAuthenticator]:
    return {each.fingerprint: each for each in authenticators}


def _may_be_wrong_secret(error: TokenRequestError) -> bool:
    """Return whether another secret could be accepted.

    Servers use different error codes for a wrong secret, so only unrelated codes are excluded.
    """
    return error.kind == "refused" and error.oauth_error not in _UNRELATED_ERROR_CODES


_UNRELATED_ERROR_CODES: Final = frozenset({"invalid_scope", "unsupported_grant_type"})
