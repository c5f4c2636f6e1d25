"""What an SSO that is an OpenID provider says of itself, and the ID tokens that it signs.

The national SSO documents neither; everything here is tolerated when absent. (OpenID Connect
Discovery 1.0 section 4, OpenID Connect Core 1.0 section 3.1.3.7, RFC 8414, RFC 9207.)
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from gateway.oauth.token_answer import read_response
from gateway.oauth.token_response import parse_object, unverified_claims
from gateway.telemetry.logs import get_logger

_log = get_logger(__name__)

_WELL_KNOWN: Final = "/.well-known/openid-configuration"
_URL: Final = re.compile(r"https?://[\x21-\x7e]{1,2000}")
# Signatures by a public key only: "none" and those with a shared secret prove nothing here.
_ALGORITHMS: Final = [
    *("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    *("ES256", "ES384", "ES512", "EdDSA", "Ed25519"),
]
_LEEWAY: Final = 60
# Seconds for which what was found, or was not, is believed.
_CACHE_SECONDS: Final = 3600.0
_NEGATIVE_CACHE_SECONDS: Final = 60.0
# Seconds before the keys may be asked for again, be it that somebody's token had an unknown one.
_KEYS_AGAIN: Final = 5.0
_NO_KEYS: Final = 1.0
# Nobody waits longer for what may not exist.
_DISCOVERY_TIMEOUT: Final = 3.0
_NO_TIMEOUT: Final = aiohttp.ClientTimeout(total=None, connect=None, sock_connect=None)


class IdTokenError(Exception):
    """The ID token must not be believed; the text is a fixed word."""


@dataclass(frozen=True, slots=True)
class ProviderMetadata:
    """What of the provider's document is used."""

    issuer: str
    authorization_endpoint: str | None
    jwks_uri: str | None
    end_session_endpoint: str | None
    revocation_endpoint: str | None
    sends_issuer: bool


@dataclass(frozen=True, slots=True)
class ProviderSettings:
    """Where to look; `timeout` is in seconds, `ssl` None means the default roots."""

    authorize_url: str
    timeout: float
    ssl: ssl.SSLContext | None = None
    proxy_url: str | None = None


class OpenIdProvider:
    """Looks up what the SSO says of itself; the session is not closed here.

    `clock` is monotonic, `wall_clock` gives Unix time.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,  # noqa: TID251 - received, not made
        settings: ProviderSettings,
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
    ) -> None:
        self._session = session
        self._settings = settings
        self._clock = clock
        self._wall_clock = wall_clock
        self._metadata: ProviderMetadata | None = None
        self._look_again = 0.0
        self._keys: KeySet | None = None
        self._fetch_keys_from = 0.0
        self._lock = asyncio.Lock()
        self._keys_lock = asyncio.Lock()

    async def metadata(self) -> ProviderMetadata | None:
        """The SSO's document, None where there is none; what was found once stays known."""
        async with self._lock:
            if self._clock() >= self._look_again:
                found = await self._discover()
                self._metadata = found or self._metadata
                self._look_again = self._clock() + (
                    _NEGATIVE_CACHE_SECONDS if found is None else _CACHE_SECONDS
                )
        return self._metadata

    async def id_token_claims(
        self, id_token: str, client_id: str, nonce: str | None
    ) -> dict[str, Any]:
        """The claims of an ID token that came from the token endpoint itself.

        Raises `IdTokenError`. Where the keys cannot be found, the connection to the token endpoint
        vouches for it in the place of the signature (OpenID Connect Core section 3.1.3.7, 6).
        """
        metadata = await self.metadata()
        claims = await self._decode(id_token, metadata)
        self._check(claims, client_id, nonce)
        if metadata is not None and claims.get("iss") != metadata.issuer:
            raise IdTokenError("iss")
        return claims

    async def verified_claims(self, token: str) -> dict[str, Any]:
        """The claims of a JWT that the SSO's keys have signed; nothing of them is checked.

        Raises `IdTokenError`, also where the SSO has no keys.
        """
        metadata = await self.metadata()
        if metadata is None or metadata.jwks_uri is None:
            raise IdTokenError("keys")
        for attempt in (1, 2):
            keys = await self._key_set(metadata.jwks_uri, renew=attempt == 2)
            if keys is None:
                raise IdTokenError("keys")
            try:
                return dict(jwt.decode(token, keys, algorithms=_ALGORITHMS).claims)
            except (JoseError, ValueError):
                continue  # its key may be newer than ours
        raise IdTokenError("signature")

    def _check(self, claims: Mapping[str, Any], client_id: str, nonce: str | None) -> None:
        audience = claims.get("aud")
        audiences = audience if isinstance(audience, list) else [audience]
        if client_id not in audiences:
            raise IdTokenError("aud")
        if len(audiences) > 1 and claims.get("azp") != client_id:
            raise IdTokenError("azp")
        expires = claims.get("exp")
        if not isinstance(expires, int | float) or expires < self._wall_clock() - _LEEWAY:
            raise IdTokenError("exp")
        if claims.get("nonce") != nonce:
            raise IdTokenError("nonce")

    async def _decode(self, id_token: str, metadata: ProviderMetadata | None) -> dict[str, Any]:
        if metadata is None or metadata.jwks_uri is None:
            return _unsigned(id_token)
        return await self.verified_claims(id_token)

    async def _key_set(self, jwks_uri: str, *, renew: bool) -> KeySet | None:
        # Whoever sends tokens of unknown keys must not make many requests of it.
        async with self._keys_lock:
            if (self._keys is None or renew) and self._clock() >= self._fetch_keys_from:
                document = await self._get(jwks_uri)
                self._fetch_keys_from = self._clock() + (_KEYS_AGAIN if document else _NO_KEYS)
                try:
                    self._keys = KeySet.import_key_set(document) if document else self._keys  # type: ignore[arg-type]
                except (JoseError, ValueError, KeyError, TypeError):
                    _log.warning("the SSO's keys cannot be read")
        return self._keys

    async def discovery_documents(self) -> AsyncIterator[tuple[str, dict[str, Any]]]:
        """Every document that is found, with the address of the issuer whose it has to be."""
        parts = urlsplit(self._settings.authorize_url)
        origin = f"{parts.scheme}://{parts.netloc}"
        for base in dict.fromkeys((self._settings.authorize_url.rstrip("/"), origin)):
            document = await self._get(base + _WELL_KNOWN)
            if document is not None:
                yield base, document

    async def _discover(self) -> ProviderMetadata | None:
        async for base, document in self.discovery_documents():
            if is_issuer_of(base, document):
                return _metadata(document, urlsplit(base).scheme)
        return None

    async def _get(self, url: str) -> dict[str, Any] | None:
        """A JSON object, or None for whatever else comes; no redirect is followed."""
        settings = self._settings
        try:
            async with (
                asyncio.timeout(min(settings.timeout, _DISCOVERY_TIMEOUT)),
                self._session.get(
                    url,
                    headers={"Accept": "application/json", "Accept-Encoding": "identity"},
                    allow_redirects=False,
                    ssl=settings.ssl or True,
                    proxy=settings.proxy_url,
                    timeout=_NO_TIMEOUT,
                ) as response,
            ):
                answer = await read_response(response)
        except (OSError, TimeoutError, aiohttp.ClientError, ValueError):
            return None
        if answer.status != 200 or answer.body is None:
            return None
        return parse_object(answer.body)


def is_issuer_of(issuer: str, document: Mapping[str, Any]) -> bool:
    """Whether the document is this issuer's (OpenID Connect Discovery section 4.3)."""
    return str(document.get("issuer", "")).rstrip("/") == issuer


def _metadata(document: Mapping[str, Any], scheme: str) -> ProviderMetadata:
    def url(name: str) -> str | None:
        value = document.get(name)
        if not isinstance(value, str) or not _URL.fullmatch(value):
            return None
        # Nothing that is protected by TLS leads to what is not.
        return value if value.startswith(("https://", f"{scheme}://")) else None

    issuer = str(document["issuer"])
    return ProviderMetadata(
        issuer=issuer,
        authorization_endpoint=url("authorization_endpoint"),
        jwks_uri=url("jwks_uri"),
        end_session_endpoint=url("end_session_endpoint"),
        # It is sent refresh tokens, which are nobody's but the SSO's.
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
