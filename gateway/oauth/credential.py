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
from typing import TYPE_CHECKING

from gateway.oauth.client_authentication import ClientAuthenticator
from gateway.oauth.grants import client_credentials_form
from gateway.oauth.token_endpoint import TokenEndpoint
from gateway.oauth.token_response import TokenRequestError, TokenResponse
from gateway.oauth.token_store import StoreKey
from gateway.telemetry.logs import get_logger

if TYPE_CHECKING:
    from gateway.config.outbound_settings import CredentialSettings

_log = get_logger(__name__)


class Credential:
    """A client with its secrets or keys, which requests tokens with the client credentials grant.

    `name` is that of the credential in the settings. A client may have several secrets or keys
    while one replaces another, and each of them two forms: its `authenticators`, the newest first.
    Each is a candidate. The candidate that the SSO accepted last is tried first, then those of its
    form. If the SSO refuses a candidate, the next one is tried. A secret that is no longer
    configured is dropped once the SSO accepted another.

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
        self._configured = tuple(authenticators)
        self._candidates = self._configured
        # How many requests have been sent.
        self.request_count = 0

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
        return self._candidates[0].fingerprint != self._configured[0].fingerprint

    def present(self, authenticators: Iterable[ClientAuthenticator]) -> bool:
        """Replace the candidates, all of which were refused.

        Return False, without a change, if all `authenticators` are candidates already.
        """
        configured = tuple(authenticators)
        if _fingerprints(configured) <= _fingerprints(self._candidates):
            return False
        self._configured = configured
        self._candidates = _sorted(configured, is_second_form=self._candidates[0].is_second_form)
        return True

    def take_over(self, predecessor: Credential) -> None:
        """Take over which secret the SSO accepted last from an object of the same identity.

        If the accepted secret is still configured and this object has no secret that `predecessor`
        has not, it becomes the first candidate; new secrets are tried before it. If it is no longer
        configured, it becomes the last candidate, until the SSO accepts a configured one.
        """
        accepted, configured = predecessor._candidates[0], _fingerprints(self._configured)
        is_new = not configured <= _fingerprints(predecessor._configured)
        is_configured = accepted.fingerprint in configured
        first = "" if is_new else accepted.fingerprint
        self._candidates = _sorted(self._configured, first, is_second_form=accepted.is_second_form)
        if not is_configured:
            self._candidates += (accepted,)

    async def request(self) -> TokenResponse:
        """Request a new token, a second time if the SSO refused and the secret has changed since.

        Raises the `TokenRequestError` of the first candidate.
        """
        try:
            return await self._try_candidates()
        except TokenRequestError as error:
            if not error.may_be_wrong_client or not await self._has_changed():
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
        # The SSO may activate the new secret between two attempts. Of two secrets, the first is
        # therefore tried a second time, unless each has two forms: an SSO may lock a client after
        # few refusals.
        has_forms = any(candidate.is_second_form for candidate in self._candidates)
        again = self._candidates[:1] if len(self._candidates) > 1 and not has_forms else ()
        for candidate in (*self._candidates, *again):
            self.request_count += 1
            try:
                response = await self._endpoint.request(candidate.authenticate, self._form)
            except TokenRequestError as error:
                refusals.append(error)
                if not error.may_be_wrong_client:
                    break
            else:
                self._accept(candidate)
                return replace(response, refusals=tuple(refusals))
        raise refusals[0]

    def _accept(self, candidate: ClientAuthenticator) -> None:
        before = self._candidates[0]
        if candidate.is_second_form and not before.is_second_form:
            what = (
                "client id and secret in the header only as they are"
                if candidate.public_key is None
                else "assertions only with sso.issuer as their audience"
            )
            _log.info(
                "client %s: the SSO accepts %s",
                self._settings.client_id,
                what,
                credential=self.name,
            )
        if candidate.fingerprint in _fingerprints(self._configured):
            is_alternative = candidate.fingerprint != self._configured[0].fingerprint
            if is_alternative and not self.uses_previous_secret:
                _log.warning(
                    "client %s: the SSO refused the first secret; another one stays in use",
                    self._settings.client_id,
                    credential=self.name,
                )
            self._candidates = _sorted(
                self._configured, candidate.fingerprint, is_second_form=candidate.is_second_form
            )
        elif candidate is not before:
            _log.warning(
                "client %s: the SSO refused the changed secret; the one before stays in use",
                self._settings.client_id,
                credential=self.name,
            )
            self._candidates = (candidate, *self._configured)


def _fingerprints(authenticators: Iterable[ClientAuthenticator]) -> set[str]:
    return {each.fingerprint for each in authenticators}


def _sorted(
    configured: Iterable[ClientAuthenticator], first: str = "", *, is_second_form: bool
) -> tuple[ClientAuthenticator, ...]:
    """Return the candidates of one form before those of the other, in the configured order.

    The secret with the fingerprint `first` is the first of each form.
    """
    return tuple(
        sorted(
            configured,
            key=lambda each: (each.is_second_form != is_second_form, each.fingerprint != first),
        )
    )
