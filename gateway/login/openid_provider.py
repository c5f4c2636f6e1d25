"""Discovers the metadata of the SSO as an OpenID provider, and validates its ID tokens.

The national SSO documents neither, so that everything in this module is optional. Follows OpenID
Connect Discovery 1.0 section 4, OpenID Connect Core 1.0 section 3.1.3.7, RFC 8414 and RFC 9207.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import aiohttp
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from gateway.oauth.token_endpoint import NO_TIMEOUT, read_response
from gateway.oauth.token_response import parse_object, unverified_claims
from gateway.telemetry.logs import get_logger

if TYPE_CHECKING:
    from aiohttp import ClientSession  # noqa: TID251 - received, not made

    from gateway.config.outbound_settings import SsoSettings

_log = get_logger(__name__)

DISCOVERY_PATH: Final = "/.well-known/openid-configuration"
_ENDPOINT_URL: Final = re.compile(r"https?://[\x21-\x7e]{1,2000}")
# Only algorithms with a public key: "none" proves nothing, and neither do those with a shared
# secret, because keys are taken from a public document.
_SIGNATURE_ALGORITHMS: Final = [
    "RS256",
    "RS384",
    "RS512",
    "PS256",
    "PS384",
    "PS512",
    "ES256",
    "ES384",
    "ES512",
    "EdDSA",
    "Ed25519",
]
# Seconds by which the clocks of SSO and gateway may differ.
LEEWAY: Final = 60.0
# Seconds for which the metadata, or its absence, is cached.
_CACHE_SECONDS: Final = 3600.0
_NEGATIVE_CACHE_SECONDS: Final = 60.0
# Minimum seconds between two requests for the keys, after a success and after a failure. They also
# apply when a token is signed with an unknown key.
_KEYS_INTERVAL: Final = 5.0
_KEYS_FAILURE_INTERVAL: Final = 1.0
# Seconds. Discovery is optional, so that it must not delay a sign-in for long.
_DISCOVERY_TIMEOUT: Final = 3.0


class IdTokenError(Exception):
    """The ID token is invalid; the text is the name of the claim or another fixed word."""


@dataclass(frozen=True, slots=True)
class ProviderMetadata:
    """The members of the provider's metadata document that are used.

    A URL is None if the document has none or an unusable one. `sends_issuer`: the authorization
    response contains `iss` (RFC 9207).
    """

    issuer: str
    authorization_endpoint: str | None
    jwks_uri: str | None
    end_session_endpoint: str | None
    revocation_endpoint: str | None
    sends_issuer: bool


class OpenIdProvider:
    """Requests and caches the SSO's metadata and keys, and validates its JWTs.

    The metadata is looked for below `sso.authorize_url` and at its origin. `tls` None means the
    default root certificates. This object does not close `session`. `clock` is monotonic,
    `wall_clock` returns Unix time.
    """

    def __init__(
        self,
        *,
        session: ClientSession,
        sso: SsoSettings,
        tls: ssl.SSLContext | None,
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
    ) -> None:
        self._session = session
        self._authorize_url = sso.authorize_url or ""
        self._timeout = min(sso.timeout, _DISCOVERY_TIMEOUT)
        self._proxy_url = sso.proxy_url
        self._tls = tls
        self._clock = clock
        self._wall_clock = wall_clock
        self._metadata: ProviderMetadata | None = None
        self._discover_from = 0.0
        self._keys: KeySet | None = None
        self._fetch_keys_from = 0.0
        self._lock = asyncio.Lock()
        self._keys_lock = asyncio.Lock()

    async def metadata(self) -> ProviderMetadata | None:
        """Return the SSO's metadata, None if there is none.

        Metadata that was found once remains in use when a later request fails.
        """
        async with self._lock:
            if self._clock() >= self._discover_from:
                discovered = await self._discover()
                self._metadata = discovered or self._metadata
                self._discover_from = self._clock() + (
                    _NEGATIVE_CACHE_SECONDS if discovered is None else _CACHE_SECONDS
                )
        return self._metadata

    async def id_token_claims(
        self, id_token: str, client_id: str, nonce: str | None
    ) -> dict[str, Any]:
        """Return the validated claims of an ID token that the token endpoint returned.

        Raises `IdTokenError`. Without metadata, or if it names no keys, the signature is not
        checked: the connection to the token endpoint replaces it (OpenID Connect Core section
        3.1.3.7, item 6).
        """
        metadata = await self.metadata()
        claims = await self._decode(id_token, metadata)
        self._check(claims, client_id, nonce)
        if metadata is not None and claims.get("iss") != metadata.issuer:
            raise IdTokenError("iss")
        return claims

    async def verified_claims(self, token: str) -> dict[str, Any]:
        """Return the claims of a JWT signed with one of the SSO's keys, without checking them.

        Raises `IdTokenError`, also if the SSO has no keys.
        """
        metadata = await self.metadata()
        if metadata is None or metadata.jwks_uri is None:
            raise IdTokenError("keys")
        for attempt in (1, 2):
            keys = await self._key_set(metadata.jwks_uri, renew=attempt == 2)
            if keys is None:
                raise IdTokenError("keys")
            try:
                return dict(jwt.decode(token, keys, algorithms=_SIGNATURE_ALGORITHMS).claims)
            except (JoseError, ValueError):
                continue  # the token's key may be newer than the cached ones
        raise IdTokenError("signature")

    def _check(self, claims: Mapping[str, Any], client_id: str, nonce: str | None) -> None:
        audience = claims.get("aud")
        audiences = audience if isinstance(audience, list) else [audience]
        if client_id not in audiences:
            raise IdTokenError("aud")
        if len(audiences) > 1 and claims.get("azp") != client_id:
            raise IdTokenError("azp")
        expires = claims.get("exp")
        if not isinstance(expires, int | float) or expires < self._wall_clock() - LEEWAY:
            raise IdTokenError("exp")
        if claims.get("nonce") != nonce:
            raise IdTokenError("nonce")

    async def _decode(self, id_token: str, metadata: ProviderMetadata | None) -> dict[str, Any]:
        if metadata is None or metadata.jwks_uri is None:
            return _unsigned(id_token)
        return await self.verified_claims(id_token)

    async def _key_set(self, jwks_uri: str, *, renew: bool) -> KeySet | None:
        # The minimum interval prevents tokens with unknown keys from causing a request each.
        async with self._keys_lock:
            if (self._keys is None or renew) and self._clock() >= self._fetch_keys_from:
                document = await self._get(jwks_uri)
                self._fetch_keys_from = self._clock() + (
                    _KEYS_INTERVAL if document else _KEYS_FAILURE_INTERVAL
                )
                try:
                    self._keys = KeySet.import_key_set(document) if document else self._keys  # type: ignore[arg-type]
                except (JoseError, ValueError, KeyError, TypeError):
                    _log.warning("the SSO's keys cannot be read")
        return self._keys

    async def discovery_documents(self) -> AsyncIterator[tuple[str, dict[str, Any]]]:
        """Yield every metadata document that is found, with the issuer that it must name."""
        parts = urlsplit(self._authorize_url)
        origin = f"{parts.scheme}://{parts.netloc}"
        for base in dict.fromkeys((self._authorize_url.rstrip("/"), origin)):
            document = await self._get(base + DISCOVERY_PATH)
            if document is not None:
                yield base, document

    async def _discover(self) -> ProviderMetadata | None:
        async for base, document in self.discovery_documents():
            if is_issuer_of(base, document):
                return _metadata(document, urlsplit(base).scheme)
        return None

    async def _get(self, url: str) -> dict[str, Any] | None:
        """Return the JSON object at `url`, or None on any failure. No redirect is followed."""
        try:
            async with (
                asyncio.timeout(self._timeout),
                self._session.get(
                    url,
                    headers={"Accept": "application/json", "Accept-Encoding": "identity"},
                    allow_redirects=False,
                    ssl=self._tls or True,
                    proxy=self._proxy_url,
                    timeout=NO_TIMEOUT,
                ) as response,
            ):
                http_response = await read_response(response)
        except (OSError, TimeoutError, aiohttp.ClientError, ValueError):
            return None
        if http_response.status != 200 or http_response.body is None:
            return None
        return parse_object(http_response.body)


def is_issuer_of(issuer: str, document: Mapping[str, Any]) -> bool:
    """Return whether the document names this issuer (OpenID Connect Discovery section 4.3)."""
    return str(document.get("issuer", "")).rstrip("/") == issuer


def _metadata(document: Mapping[str, Any], scheme: str) -> ProviderMetadata:
    def url(name: str) -> str | None:
        value = document.get(name)
        if not isinstance(value, str) or not _ENDPOINT_URL.fullmatch(value):
            return None
        # A document that was received over https must not name an http URL.
        return value if value.startswith(("https://", f"{scheme}://")) else None

    issuer = str(document["issuer"])
    return ProviderMetadata(
        issuer=issuer,
        authorization_endpoint=url("authorization_endpoint"),
        jwks_uri=url("jwks_uri"),
        end_session_endpoint=url("end_session_endpoint"),
        # This endpoint receives refresh tokens, so that it must be on the issuer's host.
        revocation_endpoint=_within(issuer, url("revocation_endpoint")),
        sends_issuer=document.get("authorization_response_iss_parameter_supported") is True,
    )


def _within(issuer: str, url: str | None) -> str | None:
    if url is None or urlsplit(url)[:2] != urlsplit(issuer)[:2]:
        return None
    return url


def _unsigned(id_token: str) -> dict[str, Any]:
    claims = unverified_claims(id_token)
    if not claims:
        raise IdTokenError("form")
    return claims
