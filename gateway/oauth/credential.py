"""The tokens of one credential, whose secret may be giving way to another."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import Final

from gateway.oauth.grants import ClientCredentials, TokenEndpoint
from gateway.oauth.store import StoreKey
from gateway.oauth.token_response import TokenRequestError, TokenResponse
from gateway.telemetry.logs import get_logger

_log = get_logger(__name__)


class CredentialSource:
    """The tokens of one `credential`: a grant and where to present it.

    A client may have several secrets while one gives way to the next. The one that the SSO took
    last is tried first; one that it refuses gives way to the next, and one that is no longer
    offered is let go once another was taken.
    """

    def __init__(
        self, endpoint: TokenEndpoint, grant: ClientCredentials, credential: str = ""
    ) -> None:
        self._endpoint = endpoint
        self._credential = credential
        self._grants_by_fingerprint = _with_others(grant)
        self._candidates = tuple(self._grants_by_fingerprint.values())

    @property
    def grant(self) -> ClientCredentials:
        """What is presented first, now."""
        return self._candidates[0]

    @property
    def store_key(self) -> StoreKey:
        """Names issuer, client, secret and what is asked for, so that no token is mistaken."""
        grant = self.grant
        facts = [
            self._endpoint.token_url,
            grant.client_id,
            grant.fingerprint,
            grant.scope,
            sorted(grant.extra_params.items()),
        ]
        return StoreKey(hashlib.sha256(json.dumps(facts).encode()).hexdigest(), grant.material)

    @property
    def uses_previous_secret(self) -> bool:
        """Whether the SSO refused the secret that is offered first, and took another."""
        return self.grant.fingerprint != next(iter(self._grants_by_fingerprint))

    def present(self, grant: ClientCredentials) -> bool:
        """Present other secrets, those known so far having been refused; False if all are known."""
        offered = _with_others(grant)
        if offered.keys() <= {candidate.fingerprint for candidate in self._candidates}:
            return False
        self._grants_by_fingerprint, self._candidates = offered, tuple(offered.values())
        return True

    def take_over(self, before: CredentialSource) -> None:
        """Take over what another object for the same client knows.

        Of secrets that are offered here as there, the one that the SSO took last stays the first.
        New ones are tried first, and that one is kept until one that is offered was taken.
        """
        proved = before.grant
        if (
            self._grants_by_fingerprint.keys() <= before._grants_by_fingerprint.keys()
            and proved.fingerprint in self._grants_by_fingerprint
        ):
            self._prefer(proved.fingerprint)
        elif proved.fingerprint not in self._grants_by_fingerprint:
            self._candidates = (*self._candidates, proved)

    async def request(self) -> TokenResponse:
        """Ask for a new token; raises `TokenRequestError`, that of the first secret."""
        refusals: list[TokenRequestError] = []
        # The SSO may change over between two attempts: of several, the first gets a second one.
        again = self._candidates[:1] if len(self._candidates) > 1 else ()
        for candidate in (*self._candidates, *again):
            try:
                response = await self._endpoint.request(candidate)
            except TokenRequestError as error:
                refusals.append(error)
                if not _may_be_wrong_secret(error):
                    break
                continue
            self._accept(candidate)
            return replace(response, refusals=tuple(refusals))
        raise refusals[0]

    def _accept(self, candidate: ClientCredentials) -> None:
        if candidate.fingerprint in self._grants_by_fingerprint:
            is_spare = candidate.fingerprint != next(iter(self._grants_by_fingerprint))
            if is_spare and not self.uses_previous_secret:
                _log.warning(
                    "client %s: the SSO refused the first secret; another one stays in use",
                    candidate.client_id,
                    credential=self._credential,
                )
            self._prefer(candidate.fingerprint)
        elif candidate is not self._candidates[0]:
            _log.warning(
                "client %s: the SSO refused the changed secret; the one before stays in use",
                candidate.client_id,
                credential=self._credential,
            )
            self._candidates = (candidate, *self._grants_by_fingerprint.values())

    def _prefer(self, fingerprint: str) -> None:
        first = self._grants_by_fingerprint[fingerprint]
        self._candidates = tuple({fingerprint: first, **self._grants_by_fingerprint}.values())


def _with_others(grant: ClientCredentials) -> dict[str, ClientCredentials]:
    return {each.fingerprint: each for each in (grant, *grant.alternatives)}


def _may_be_wrong_secret(error: TokenRequestError) -> bool:
    """Whether another secret could help; servers disagree on the code for a wrong one."""
    return error.kind == "refused" and error.oauth_error not in _UNRELATED_ERROR_CODES


_UNRELATED_ERROR_CODES: Final = frozenset({"invalid_scope", "unsupported_grant_type"})
