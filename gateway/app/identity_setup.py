"""Converts settings to arguments of the gateway's parts; opens nothing but files."""

from __future__ import annotations

import ipaddress
import ssl
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from gateway import os_support
from gateway.config.section import RIGHT_FILE, SecretRef
from gateway.errors import ClientKeyError, StartError
from gateway.http.client.upstream_connect import ForwardProxy, UpstreamOrigin
from gateway.i18n import Message, exception_message, setting_problem
from gateway.oauth.client_authentication import (
    ClientAuthentication,
    ClientAuthenticator,
    parse_client_keys,
    parse_client_secrets,
    public_client,
)
from gateway.pipeline.admission import ConcurrencyLimiter, TokenBucket
from gateway.pipeline.callers import ANONYMOUS, Caller, CallerMatcher, CallerRegistry
from gateway.pipeline.permissions import Permissions
from gateway.secret import Secret

if TYPE_CHECKING:
    from gateway.config.inbound_settings import AllowSettings, CallerSettings
    from gateway.config.settings import Settings
    from gateway.oauth.tokens import Tokens


def credentials_in_use(settings: Settings) -> tuple[str, ...]:
    """Return the credentials that callers may need; `default` where there are no callers."""
    named = dict.fromkeys(caller.credential for caller in settings.callers)
    return tuple(named) or ("default",)


def credential_authenticators(settings: Settings, name: str) -> tuple[ClientAuthenticator, ...]:
    """Return an authenticator for each secret or key of one credential, the newest first.

    Raises `StartError` if the secret or key is unusable.
    """
    credential = settings.credentials[name]
    secret = credential.secret_ref(name)
    return _client_authenticators(settings, credential.auth_method, credential.client_id, secret)


def login_authentications(settings: Settings) -> tuple[ClientAuthentication, ...]:
    """Return the client authentications of the login's client, the newest secret or key first.

    A public client gets one that sends no secret. Raises `StartError` where the secret or key
    cannot be used.
    """
    found = _login_authenticators(settings)
    if not found:
        return (public_client(settings.login.client_id or ""),)
    return tuple(proof.authenticate for proof in found)


def login_secrets(settings: Settings) -> tuple[Secret, ...]:
    """Return the client secrets of the login's client; none with a key. Raises `StartError`."""
    if settings.login.auth_method == "private_key_jwt":
        return ()
    return tuple(proof.material for proof in _login_authenticators(settings))


def _login_authenticators(settings: Settings) -> tuple[ClientAuthenticator, ...]:
    login = settings.login
    secret = login.secret_ref()
    if not secret.is_given:
        return ()
    return _client_authenticators(settings, login.auth_method, login.client_id or "", secret)


def public_keys(settings: Settings) -> tuple[Mapping[str, Any], ...]:
    """Return the JWKs of all keys that credentials in use and the login sign with.

    They are published for the operator of the SSO. Raises `StartError` where a key cannot be read.
    """
    found = [
        authenticator
        for name in credentials_in_use(settings)
        for authenticator in credential_authenticators(settings, name)
    ]
    if settings.login.enabled:
        found += _login_authenticators(settings)
    keys = (authenticator.public_key for authenticator in found)
    return tuple({key["kid"]: key for key in keys if key is not None}.values())


def _client_authenticators(
    settings: Settings, auth_method: str, client_id: str, secret: SecretRef
) -> tuple[ClientAuthenticator, ...]:
    text = secret.read()
    if text is None:
        raise StartError(setting_problem(secret.key, Message("is missing")))
    in_header = auth_method == "client_secret_basic"
    try:
        if auth_method == "private_key_jwt":
            return parse_client_keys(client_id, text, issuer=settings.sso.issuer)
        return parse_client_secrets(client_id, text, in_header=in_header)
    except ClientKeyError as error:
        hint = None if secret.file is None else RIGHT_FILE
        raise StartError(setting_problem(*secret.fault(exception_message(error)), hint)) from None


def upstream_origin(settings: Settings, tls: ssl.SSLContext | None) -> UpstreamOrigin:
    """Return the origin of the platform: host, port, TLS and proxy."""
    url = urlsplit(settings.platform.fhir_base_url)
    port = url.port or (80 if tls is None else 443)
    proxy = None
    if settings.platform.proxy_url is not None:
        proxy_url = urlsplit(settings.platform.proxy_url)
        proxy = ForwardProxy(proxy_url.hostname or "", proxy_url.port or 80)
    return UpstreamOrigin(url.hostname or "", port, tls, proxy)


def caller_registry(
    settings: Settings, tokens: Mapping[str, Tokens], clock: Callable[[], float]
) -> CallerRegistry:
    """Return the registry of callers. Raises `StartError` where a key or password is unreadable.

    `tokens` has those of `credentials_in_use`, by name.
    """
    known = [
        _identification(caller, index, tokens[caller.credential], clock)
        for index, caller in enumerate(settings.callers)
    ]
    anonymous = ANONYMOUS if known else replace(ANONYMOUS, tokens=tokens["default"])
    trusted = (ipaddress.ip_network(network) for network in settings.listen.trusted_proxies)
    return CallerRegistry(known, tuple(trusted), anonymous)


def operators(settings: Settings) -> list[tuple[str, Secret]]:
    """Return names and passwords of the operators who decide about queued writes.

    Raises `StartError`.
    """
    found = []
    for index, operator in enumerate(settings.admin.operators):
        password = operator.secret_ref(index).read()
        if password is not None:
            found.append((operator.name, password))
    return found


def _identification(
    caller: CallerSettings, index: int, tokens: Tokens, clock: Callable[[], float]
) -> CallerMatcher:
    api_key, *password = [source.read() for source in caller.secret_refs(index)]
    rate = caller.rate_limit
    return CallerMatcher(
        Caller(
            name=caller.name,
            tokens=tokens,
            permissions=_permissions(caller.allow),
            rate=None
            if rate.requests_per_second is None
            else TokenBucket(rate.requests_per_second, rate.burst, clock),
            slots=None
            if caller.max_concurrent is None
            else ConcurrencyLimiter(caller.max_concurrent),
            outbox=caller.outbox,
            user_header=_field_name(caller.user_header),
            purpose_header=_field_name(caller.purpose_header),
            content_type=None if caller.content_type is None else caller.content_type.encode(),
        ),
        networks=tuple(ipaddress.ip_network(network) for network in caller.networks),
        api_key=api_key,
        username=caller.basic_auth.username if caller.basic_auth is not None else None,
        password=password[0] if password else None,
        certificate_names=frozenset(map(str.lower, caller.client_cert_names)),
    )


def _field_name(name: str | None) -> bytes | None:
    return None if name is None else name.lower().encode("ascii")


def _permissions(allow: AllowSettings) -> Permissions:
    operations = allow.operations
    if operations is None:
        operations = ("*",) if "*" in allow.resources else ()
    return Permissions(
        frozenset(allow.interactions),
        frozenset(allow.resources),
        frozenset(operation.removeprefix("$") for operation in operations),
    )


# Descriptors of files and sockets other than caller and platform connections, with a margin.
_RESERVED_DESCRIPTORS: Final = 32
# Caller connections per request that may be served concurrently.
_DESCRIPTORS_PER_CALLER: Final = 16


def max_caller_connections(settings: Settings) -> int:
    """Return how many callers may be connected: the limit on open files less other descriptors."""
    available_descriptors = os_support.open_file_limit() - _RESERVED_DESCRIPTORS
    # More connections than a multiple of the concurrent requests would only use memory.
    useful_connections = _DESCRIPTORS_PER_CALLER * settings.limits.max_concurrent_requests
    # A caller's connection needs at most one connection to the platform at a time.
    affordable_connections = max(
        available_descriptors // 2, available_descriptors - settings.platform.max_connections
    )
    return max(1, min(useful_connections, affordable_connections))
