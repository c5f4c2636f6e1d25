"""Discovers the metadata of the SSO as an OpenID provider, and validates its ID tokens.

The national SSO documents neither, so that a sign-in without the scope `openid` needs nothing of
this module. Follows OpenID Connect Discovery 1.0 section 4, OpenID Connect Core 1.0 sections
3.1.3.7 and 10.1, RFC 7517, RFC 8414 and RFC 9207.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import ssl
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal
from urllib.parse import urlsplit

import aiohttp
from joserfc import jwk, jws, jwt
from joserfc.errors import BadSignatureError, JoseError, SecurityWarning

from gateway.oauth.token_endpoint import NO_TIMEOUT, read_response
from gateway.oauth.token_response import parse_object, unverified_claims
from gateway.secret import Secret
from gateway.telemetry.logs import get_logger

if TYPE_CHECKING:
    from gateway.config.outbound_settings import SsoSettings

_log = get_logger(__name__)

DISCOVERY_PATH: Final = "/.well-known/openid-configuration"
# Limits the requests of one lookup: Keycloak's endpoints have five segments, with `/auth` six.
_MAX_ISSUERS: Final = 12
# What stands for a document that may be there: the place did not answer, or not for itself.
_NO_ANSWER: Final[dict[str, Any]] = {}
_UNAVAILABLE_STATUSES: Final = frozenset((429, 502, 503, 504))
_ENDPOINT_URL: Final = re.compile(r"https?://[\x21-\x7e]{1,2000}")
# Each kind of key checks its own algorithms only. A public key as the secret of a MAC (algorithm
# confusion) would let anybody sign; "none" is signed by nobody.
_PUBLIC_KEY_ALGORITHMS: Final = frozenset(
    (
        "EdDSA",
        "Ed25519",
        *(f"{kind}{bits}" for kind in ("RS", "PS", "ES") for bits in (256, 384, 512)),
    )
)
_SECRET_ALGORITHMS: Final = frozenset(("HS256", "HS384", "HS512"))
_PUBLIC_KEY_TYPES: Final = ("RSA", "EC", "OKP")
# What the log says of a key, of how many keys or values, and in how many characters each.
_SHOWN_MEMBERS: Final = ("kty", "crv", "use", "alg", "kid")
_MAX_SHOWN: Final = 8
_MAX_SHOWN_LENGTH: Final = 64
# Seconds by which the clocks of SSO and gateway may differ.
LEEWAY: Final = 60.0
# Seconds for which the metadata, or its absence, is cached.
_CACHE_SECONDS: Final = 3600.0
_NEGATIVE_CACHE_SECONDS: Final = 60.0
# Its absence while nobody can sign in without it.
_REQUIRED_RETRY_SECONDS: Final = 2.0
# Minimum seconds between two requests for the keys, after a success and after a failure. They also
# apply when a token is signed with an unknown key.
_KEYS_INTERVAL: Final = 5.0
_KEYS_FAILURE_INTERVAL: Final = 1.0
# Seconds. Where discovery is optional, it must not delay a sign-in for long.
_OPTIONAL_TIMEOUT: Final = 3.0

# What is wrong with a JWT of the SSO. `form`: it is none. `alg`: it has no signature, or one that
# this client cannot check. `document`: there is no discovery document. `keys`: the SSO's keys
# cannot be had. `key`: none of them is the token's. `signature`: another key or secret signed it.
# The others are claims.
IdTokenFault = Literal[
    "form",
    "alg",
    "document",
    "keys",
    "key",
    "signature",
    "iss",
    "sub",
    "aud",
    "azp",
    "exp",
    "iat",
    "nonce",
    "jti",
    "sid",
    "events",
]


class IdTokenError(Exception):
    """The JWT is invalid. The text, for the log, has the fault, and what came and was expected."""

    def __init__(self, fault: IdTokenFault, came: str = "", expected: str = "") -> None:
        super().__init__(f"{fault} (came: {came}; expected: {expected})" if came else fault)
        self.fault: IdTokenFault = fault


@dataclass(frozen=True, slots=True)
class ProviderMetadata:
    """The members of the provider's metadata document that are used.

    A URL is None if the document has none or an unusable one; an unusable `jwks_uri` is "", because
    only an SSO that publishes no keys is trusted without. `sends_issuer`: the authorization
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

    The metadata is looked for at `possible_issuers`. `client_secrets` check JWTs with a MAC.
    `is_required`: nobody can sign in without the metadata. `tls` None means the default root
    certificates. This object does not close `session`. `clock` is monotonic, `wall_clock` returns
    Unix time.
    """

    def __init__(
        self,
        *,
        session: aiohttp.ClientSession,  # noqa: TID251 - received, not made
        sso: SsoSettings,
        client_secrets: Sequence[Secret],
        is_required: bool,
        tls: ssl.SSLContext | None,
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
    ) -> None:
        self._session = session
        self._sso = sso
        self._client_secrets = client_secrets
        self._timeout = sso.timeout if is_required else min(sso.timeout, _OPTIONAL_TIMEOUT)
        self._retry_seconds = _REQUIRED_RETRY_SECONDS if is_required else _NEGATIVE_CACHE_SECONDS
        self._tls = tls
        self._clock = clock
        self._wall_clock = wall_clock
        self._metadata: ProviderMetadata | None = None
        self._discover_from = 0.0
        self._keys: list[jwk.Key] | None = None
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
                self._metadata, pause = discovered or self._metadata, _CACHE_SECONDS
                if self._metadata is None:
                    pause = self._retry_seconds
                elif discovered is None:
                    pause = _NEGATIVE_CACHE_SECONDS
                self._discover_from = self._clock() + pause
        return self._metadata

    async def id_token_claims(
        self, id_token: str, client_id: str, nonce: str | None
    ) -> dict[str, Any]:
        """Return the validated claims of an ID token that the token endpoint returned.

        Raises `IdTokenError`. If the SSO publishes no keys, a signature that only they could check
        is not checked: the connection to the token endpoint replaces it (OpenID Connect Core
        section 3.1.3.7, item 6).
        """
        metadata = await self.metadata()
        claims = await self.verified_claims(
            id_token, is_key_needed=metadata is not None and metadata.jwks_uri is not None
        )
        self._check(claims, client_id, nonce)
        if metadata is not None and claims.get("iss") != metadata.issuer:
            raise IdTokenError("iss", _shown(claims.get("iss")), metadata.issuer)
        return claims

    async def verified_claims(self, token: str, *, is_key_needed: bool = True) -> dict[str, Any]:
        """Return the claims of a JWT that the SSO has signed, without checking them.

        It is signed with one of the SSO's keys or the client's secret. Without `is_key_needed` a
        signature that a key would have to check is not checked. Raises `IdTokenError`.
        """
        header = _header(token)
        try:
            if header["alg"] not in _PUBLIC_KEY_ALGORITHMS:
                return self._claims_by_secret(token, header)
            if not is_key_needed:
                return unverified_claims(token)
            try:
                return _verified(token, header, await self.published_keys())
            except IdTokenError:  # the token's key may be newer than the cached ones
                return _verified(token, header, await self.published_keys(renew=True))
        except IdTokenError as error:
            came = f"alg {_shown(header['alg'])}, kid {_shown(header.get('kid'))}"
            raise IdTokenError(error.fault, came, await self._expected_signature()) from None

    def _claims_by_secret(self, token: str, header: Mapping[str, Any]) -> dict[str, Any]:
        """Return the claims of a JWT with a MAC. Raises `IdTokenError`."""
        if header["alg"] not in _SECRET_ALGORITHMS or not self._client_secrets:
            raise IdTokenError("alg")
        # OpenID Connect Core section 10.1.
        keys = (jwk.OctKey.import_key(secret.reveal()) for secret in self._client_secrets)
        return _verified(token, header, keys)

    async def _expected_signature(self) -> str:
        """Return what a JWT may be signed with, for the log."""
        with contextlib.suppress(IdTokenError):
            await self.published_keys()
        keys = [_key_text(key) for key in (self._keys or ())[:_MAX_SHOWN]]
        secret = "login.client_secret" if self._client_secrets else "no login.client_secret"
        return f"the SSO's keys: {', '.join(keys) or 'none'}; for HS: {secret}"

    def _check(self, claims: Mapping[str, Any], client_id: str, nonce: str | None) -> None:
        audience = claims.get("aud")
        audiences = audience if isinstance(audience, list) else [audience]
        if client_id not in audiences:
            raise IdTokenError("aud", ", ".join(map(_shown, audiences[:_MAX_SHOWN])), client_id)
        if len(audiences) > 1 and claims.get("azp") != client_id:
            raise IdTokenError("azp", _shown(claims.get("azp")), client_id)
        expires, now = claims.get("exp"), self._wall_clock()
        # JSON as Python reads it may have NaN, of which no comparison is true.
        if not isinstance(expires, int | float) or not expires >= now - LEEWAY:
            raise IdTokenError("exp", _shown(expires), f"a time after {now:.0f}")
        if claims.get("nonce") != nonce:
            came = "none" if claims.get("nonce") is None else "another"
            raise IdTokenError("nonce", came, "none" if nonce is None else "that of the sign-in")
        if not claims.get("sub"):
            raise IdTokenError("sub", "none", "the user's")

    async def published_keys(self, *, renew: bool = False) -> list[jwk.Key]:
        """Return the SSO's public keys of known types, cached unless `renew`.

        Raises `IdTokenError` if there is no document or if the keys cannot be had.
        """
        metadata = await self.metadata()
        if metadata is None:
            raise IdTokenError("document")
        # The minimum interval prevents tokens with unknown keys from causing a request each.
        async with self._keys_lock:
            is_due = self._keys is None or renew
            if metadata.jwks_uri and is_due and self._clock() >= self._fetch_keys_from:
                document = await self._get(metadata.jwks_uri)
                members = (document or {}).get("keys")
                interval = _KEYS_FAILURE_INTERVAL
                if isinstance(members, list):
                    self._keys, interval = list(_public_keys(members)), _KEYS_INTERVAL
                self._fetch_keys_from = self._clock() + interval
        if self._keys is None:
            raise IdTokenError("keys")
        return self._keys

    async def discovery_documents(self) -> list[tuple[str, dict[str, Any]]]:
        """Return every metadata document that is found, with the issuer that it must name."""
        issuers = possible_issuers(self._sso)
        found = await asyncio.gather(*(self._get(issuer + DISCOVERY_PATH) for issuer in issuers))
        return [
            (issuer, document)
            for issuer, document in zip(issuers, found, strict=True)
            if document is not None
        ]

    async def _discover(self) -> ProviderMetadata | None:
        for issuer, document in await self.discovery_documents():
            if document == _NO_ANSWER:
                # What stands at a shorter path may be another realm's document.
                return None
            if is_issuer_of(issuer, document):
                return _metadata(document, self._sso)
        return None

    async def _get(self, url: str) -> dict[str, Any] | None:
        """Return the JSON object at `url`, None without one; `_NO_ANSWER` where that is not known.

        No redirect is followed.
        """
        try:
            async with (
                asyncio.timeout(self._timeout),
                self._session.get(
                    url,
                    headers={"Accept": "application/json", "Accept-Encoding": "identity"},
                    allow_redirects=False,
                    ssl=self._tls or True,
                    proxy=self._sso.proxy_url,
                    timeout=NO_TIMEOUT,
                ) as response,
            ):
                http_response = await read_response(response)
        except (OSError, TimeoutError, aiohttp.ClientError, ValueError):
            return _NO_ANSWER
        if http_response.status in _UNAVAILABLE_STATUSES:
            return _NO_ANSWER
        if http_response.status != 200 or http_response.body is None:
            return None
        return parse_object(http_response.body)


def possible_issuers(sso: SsoSettings) -> list[str]:
    """Return the issuers at which the metadata is looked for, without final slash.

    It is `sso.issuer` alone if that is set. Else they are `sso.authorize_url`, the parent paths of
    both URLs, the longest first, and their origins.
    """
    if sso.issuer is not None:
        return [sso.issuer.removesuffix(DISCOVERY_PATH).removesuffix("/")]
    found: list[str] = []
    for url in (f"{sso.authorize_url or sso.token_url}/", sso.token_url):
        parts = urlsplit(url)
        # Glewlwyd's endpoints may have a doubled slash that its issuer has not.
        segments = re.sub("/+", "/", parts.path).split("/")[:-1]
        origin = f"{parts.scheme}://{parts.netloc}"
        found += (origin + "/".join(segments[:count]) for count in range(len(segments), 0, -1))
    return sorted(dict.fromkeys(found), key=lambda issuer: -issuer.count("/"))[:_MAX_ISSUERS]


def is_issuer_of(issuer: str, document: Mapping[str, Any]) -> bool:
    """Return whether the document names this issuer (OpenID Connect Discovery section 4.3).

    A final slash does not count: it is no part of the document's URL (section 4.1).
    """
    return str(document.get("issuer", "")).removesuffix("/") == issuer


def _metadata(document: Mapping[str, Any], sso: SsoSettings) -> ProviderMetadata:
    issuer = str(document["issuer"])
    scheme = urlsplit(issuer).scheme
    own_urls = map(urlsplit, (issuer, sso.token_url, sso.authorize_url or issuer))
    origins = tuple(f"{parts.scheme}://{parts.netloc}/" for parts in own_urls)

    def url(name: str, *, is_own: bool = False) -> str | None:
        value = document.get(name)
        if not isinstance(value, str) or not _ENDPOINT_URL.fullmatch(value):
            return None
        try:
            _ = urlsplit(value).port
        except ValueError:
            return None
        if is_own and not value.startswith(origins):
            return None
        # A document that was received over https must not name an http URL.
        return value if value.startswith(("https://", f"{scheme}://")) else None

    has_keys = document.get("jwks_uri") is not None
    return ProviderMetadata(
        issuer=issuer,
        authorization_endpoint=url("authorization_endpoint"),
        jwks_uri=(url("jwks_uri") or "") if has_keys else None,
        # It receives refresh tokens.
        revocation_endpoint=url("revocation_endpoint", is_own=True),
        end_session_endpoint=url("end_session_endpoint"),
        sends_issuer=document.get("authorization_response_iss_parameter_supported") is True,
    )


def _header(token: str) -> dict[str, Any]:
    """Return the header of a JWT, which has an `alg`, without checking the signature."""
    try:
        header = jws.extract_compact(token.encode()).headers()
    except (JoseError, ValueError):
        raise IdTokenError("form") from None
    if not unverified_claims(token):
        raise IdTokenError("form")
    return {**header, "alg": str(header["alg"])}


def _public_keys(members: Sequence[object]) -> Iterator[jwk.Key]:
    """Yield the public keys of a JWK set; others are ignored (RFC 7517 section 5)."""
    for member in members:
        if isinstance(member, dict) and member.get("kty") in _PUBLIC_KEY_TYPES:
            with contextlib.suppress(JoseError, ValueError, LookupError, TypeError):
                yield jwk.import_key(member)


def _shown(value: object) -> str:
    """Return a value of a JWT for the log. Whoever made the JWT has chosen it."""
    is_scalar = value is None or isinstance(value, str | int | float)
    return f"{value if is_scalar else type(value)!a:.{_MAX_SHOWN_LENGTH}}"


def _key_text(key: jwk.Key) -> str:
    """Return type, curve, algorithm and id of a public key for the log."""
    members = key.as_dict(private=False)
    return " ".join(_shown(members[name]) for name in _SHOWN_MEMBERS if name in members)


def _verified(token: str, header: Mapping[str, Any], keys: Iterable[jwk.Key]) -> dict[str, Any]:
    """Return the claims of a JWT that one of the keys has signed. Raises `IdTokenError`.

    A token without `kid` may be of any key of its type, and so may any token of a key without.
    """
    kid = header.get("kid")
    fault: IdTokenFault = "key"
    with warnings.catch_warnings():
        # Short secrets and the name EdDSA (RFC 9864) are the SSO's choice.
        warnings.simplefilter("ignore", SecurityWarning)
        for key in keys:
            if None not in (kid, key.kid) and kid != key.kid:
                continue
            try:
                return dict(jwt.decode(token, key, algorithms=[header["alg"]]).claims)
            except BadSignatureError:
                fault = "signature"
            except (JoseError, ValueError):
                continue  # a key of another type or curve, or for another use
    raise IdTokenError(fault)
