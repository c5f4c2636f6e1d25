"""Converts settings to arguments of the gateway's parts; opens nothing but files."""

from __future__ import annotations

import contextlib
import hashlib
import ipaddress
import ssl
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from gateway import os_support
from gateway.config.section import SecretReadError
from gateway.errors import ClientKeyError, StartError
from gateway.http.client.upstream_pool import ForwardProxy, UpstreamOrigin
from gateway.i18n import Message, exception_message, setting_problem
from gateway.oauth.client_authentication import (
    parse_client_keys,
    parse_client_secrets,
    public_client,
)
from gateway.pipeline.admission import ConcurrencyLimiter, TokenBucket
from gateway.pipeline.callers import Caller, CallerMatcher, CallerRegistry
from gateway.pipeline.permissions import Permissions
from gateway.pipeline.unidentified_limit import UnidentifiedLimiter

if TYPE_CHECKING:
    from gateway.config.inbound_settings import AllowSettings, CallerSettings
    from gateway.config.section import SecretRef
    from gateway.config.settings import Settings
    from gateway.oauth.client_authentication import ClientAuthentication, ClientAuthenticator
    from gateway.secret import Secret

# Descriptors of files and sockets other than caller and platform connections, with a margin.
_RESERVED_DESCRIPTORS: Final = 32
# Caller connections per request that may be served concurrently.
_DESCRIPTORS_PER_CALLER: Final = 16


def credentials_in_use(settings: Settings) -> tuple[str, ...]:
    """Return the credentials that callers may need; `default` where there are no callers."""
    named = dict.fromkeys(caller.credential for caller in settings.callers)
    return tuple(named) or ("default",)


def credential_authenticators(settings: Settings, name: str) -> tuple[ClientAuthenticator, ...]:
    """Return an authenticator for each secret or key of one credential, the newest first.

    Raises `StartError` if the secret or key is unusable.
    """
    credential = settings.credentials[name]
    source = credential.secret_ref(name)
    with _secret_as_start_error(source):
        return client_authenticators(credential.auth_method, credential.client_id, source)


def login_authentications(settings: Settings) -> tuple[ClientAuthentication, ...]:
    """Return the client authentications of the login's client, the newest secret or key first.

    A public client gets one that sends no secret. Raises `StartError` where the secret or key
    cannot be used.
    """
    found = _login_authenticators(settings)
    if not found:
        return (public_client(settings.login.client_id or ""),)
    return tuple(proof.authenticate for proof in found)


def _login_authenticators(settings: Settings) -> tuple[ClientAuthenticator, ...]:
    login = settings.login
    source = login.secret_ref()
    if not source.is_given:
        return ()
    with _secret_as_start_error(source):
        return client_authenticators(login.auth_method, login.client_id or "", source)


@contextlib.contextmanager
def _secret_as_start_error(source: SecretRef) -> Iterator[None]:
    """Turn errors of a secret or key into `StartError`."""
    try:
        yield
    except SecretReadError as error:
        raise StartError(exception_message(error)) from None
    except ClientKeyError as error:
        raise StartError(setting_problem(*source.fault(error.problem))) from None


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


def client_authenticators(
    auth_method: str, client_id: str, source: SecretRef
) -> tuple[ClientAuthenticator, ...]:
    """Return an authenticator for each secret or key of a client, the newest first.

    Raises `ClientKeyError` or `SecretReadError`.
    """
    text = source.read()
    if text is None:
        raise ClientKeyError(Message("is missing"))
    if auth_method == "private_key_jwt":
        return parse_client_keys(client_id, text)
    return parse_client_secrets(client_id, text, in_header=auth_method == "client_secret_basic")


def upstream_origin(settings: Settings, tls: ssl.SSLContext | None) -> UpstreamOrigin:
    """Return the origin of the platform: host, port, TLS and proxy."""
    url = urlsplit(settings.platform.fhir_base_url)
    port = url.port or (80 if tls is None else 443)
    return UpstreamOrigin(url.hostname or "", port, tls, platform_proxy(settings))


def has_several_callers(settings: Settings) -> bool:
    """Return whether callers compete for resources; all signed-in users count as one caller."""
    return len(settings.callers) + settings.login.enabled > 1


def has_several_queueing(settings: Settings) -> bool:
    """Return whether writes of more than one caller may be queued; those of users never are."""
    return sum(caller.outbox != "off" for caller in settings.callers) > 1


def caller_registry(settings: Settings, clock: Callable[[], float]) -> CallerRegistry:
    """Return the registry of callers. Raises `StartError` where a key or password is unreadable.

    It also raises where two callers have the same key, or the same user name and password.
    """
    known = [_identification(caller, index, clock) for index, caller in enumerate(settings.callers)]
    for key, other in duplicate_secrets(settings):
        why = Message("is the same as {other}; {hint}", other=other, hint=OWN_SECRET)
        raise StartError(setting_problem(key, why))
    trusted = (ipaddress.ip_network(network) for network in settings.listen.trusted_proxies)
    return CallerRegistry(known, tuple(trusted))


def unidentified_limiter(
    settings: Settings, known: CallerRegistry, clock: Callable[[], float]
) -> UnidentifiedLimiter:
    """Return the rate limiter for requests without an identified caller."""
    rate = settings.limits.unidentified_rate
    return UnidentifiedLimiter(known, rate, clock, signs_in=settings.login.enabled)


def operators(settings: Settings) -> list[tuple[str, Secret]]:
    """Return names and passwords of the operators who decide about queued writes.

    Raises `StartError`.
    """
    found = []
    for index, operator in enumerate(settings.admin.operators):
        try:
            password = operator.secret_ref(index).read()
        except SecretReadError as error:
            raise StartError(exception_message(error)) from None
        if password is not None:
            found.append((operator.name, password))
    return found


OWN_SECRET: Final = Message("give each caller its own, or nobody can tell which of them called")


def duplicate_secrets(settings: Settings) -> Iterator[tuple[str, str]]:
    """Yield the settings of duplicate secrets: the later key and the earlier one.

    A duplicate is an API key, or a password of the same user name, that an earlier caller has too.
    Digests are compared. Unreadable secrets are left out.
    """
    first: dict[tuple[str, str | None, bytes], str] = {}
    for index, caller in enumerate(settings.callers):
        for source in caller.secret_refs(index):
            with contextlib.suppress(SecretReadError):
                secret = source.read()
                if secret is None:
                    continue
                user = caller.basic_auth.username if caller.basic_auth is not None else None
                kind = str(source.setting[-1])
                # White space around a field's value is not part of it (RFC 9110 section 5.5).
                text = secret.reveal() if kind == "password" else secret.reveal().strip()
                digest = hashlib.sha256(text.encode()).digest()
                key = source.key if source.file is None else source.file_key
                identity_key = (kind, user if kind == "password" else None, digest)
                if first.setdefault(identity_key, key) != key:
                    yield key, first[identity_key]


def _identification(
    caller: CallerSettings, index: int, clock: Callable[[], float]
) -> CallerMatcher:
    try:
        api_key, *password = [source.read() for source in caller.secret_refs(index)]
    except SecretReadError as error:
        raise StartError(exception_message(error)) from None
    rate = caller.rate_limit
    return CallerMatcher(
        Caller(
            name=caller.name,
            credential=caller.credential,
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
        certificate_names=frozenset(caller.client_cert_names),
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


def platform_proxy(settings: Settings) -> ForwardProxy | None:
    """Return the forward proxy for the platform, None without one."""
    if settings.platform.proxy_url is None:
        return None
    url = urlsplit(settings.platform.proxy_url)
    return ForwardProxy(url.hostname or "", url.port or 80)
