"""The doctor's checks of the login: the SSO's discovery document, its sign-in page, the client.

No user is signed in, and nothing is stored: the page is requested once, and a code that cannot
exist is sent once.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, urlsplit

import aiohttp

from gateway.commands.doctor_network import check_route
from gateway.commands.doctor_sso import UNKNOWN_CLIENT, start_first
from gateway.commands.findings import CheckedServer, CheckResult
from gateway.config import Settings
from gateway.i18n import Message, exception_message, join_messages
from gateway.oauth.error_description import description_of
from gateway.oauth.error_messages import with_description
from gateway.oauth.token_response import TokenRequestError, oauth_error_code
from gateway.process import certificates
from gateway.process.factories import StartError
from gateway.secret import Secret

if TYPE_CHECKING:
    from gateway.login.openid import OpenIdProvider
    from gateway.login.sign_in import LoginClient

_DISCOVERY: Final = Message("login discovery")
_PAGE: Final = Message("login page")
_CLIENT: Final = Message("login client")
# 64 characters (RFC 7636 requires 43 to 128); it protects no real code.
_VERIFIER: Final = "dhp-gateway-doctor-" + "0" * 45


async def check_login(settings: Settings, *, sso_reached: bool) -> AsyncIterator[CheckResult]:
    """Yield all checks of the login, none while it is disabled."""
    if not settings.login.enabled:
        return
    reached = sso_reached
    if _origin(settings.sso.authorize_url or "") != _origin(settings.sso.token_url):
        findings = [finding async for finding in _check_route(settings)]
        for finding in findings:
            yield finding
        reached = all(finding.state != "failed" for finding in findings)
    if not reached:
        for check in (_DISCOVERY, _PAGE, _CLIENT):
            yield CheckResult(check, "skipped", Message("needs the way to the SSO"))
        return
    session = aiohttp.ClientSession(  # noqa: TID251 - a command of its own, no request path
        cookie_jar=aiohttp.DummyCookieJar(), trust_env=False
    )
    async with session:
        async for finding in _conversation(settings, session, sso_reached=sso_reached):
            yield finding


async def _check_route(settings: Settings) -> AsyncIterator[CheckResult]:
    sso = settings.sso
    url = sso.authorize_url or ""
    trust = partial(certificates.client_tls, url, sso.ca_file, "sso.ca_file")
    server = CheckedServer(Message("SSO page"), url, "sso.authorize_url", trust, sso.timeout)
    async for finding in check_route(server, uses_proxy=sso.proxy_url is not None):
        yield finding


async def _conversation(
    settings: Settings,
    session: aiohttp.ClientSession,  # noqa: TID251 - received, not made
    *,
    sso_reached: bool,
) -> AsyncIterator[CheckResult]:
    # Imported here: the import takes time, and the login is optional.
    from gateway.process.login_factory import openid_provider

    try:
        provider = openid_provider(settings, session)
    except StartError as error:
        yield CheckResult(
            _DISCOVERY,
            "failed",
            exception_message(error),
            Message("Give a PEM file with CA certificates"),
        )
        return
    yield await _discovery(settings, provider)
    metadata = await provider.metadata()
    endpoint = None if metadata is None else metadata.authorization_endpoint
    yield await _page(settings, session, endpoint)
    if not sso_reached:
        yield CheckResult(_CLIENT, "skipped", Message("needs the way to the SSO"))
        return
    yield await _client(settings, session)


async def _discovery(settings: Settings, provider: OpenIdProvider) -> CheckResult:
    from gateway.login.openid import is_issuer_of

    other_issuers = []
    async for issuer, document in provider.discovery_documents():
        if is_issuer_of(issuer, document):
            return _check_document(settings, issuer, document)
        other_issuers.append(issuer)
    if other_issuers:
        detail = Message(
            "what {stranger} tells of itself is in the name of another issuer",
            stranger=other_issuers[0],
        )
        hint = Message("Set sso.authorize_url to the issuer's own address, as it names itself")
        return CheckResult(_DISCOVERY, "failed", detail, hint)
    detail = Message("the SSO publishes nothing of itself; sso.authorize_url is used as it is")
    return CheckResult(_DISCOVERY, "skipped", detail)


def _check_document(settings: Settings, issuer: str, document: Mapping[str, Any]) -> CheckResult:
    methods = document.get("code_challenge_methods_supported", ["S256"])
    if "S256" not in methods:
        hint = Message(
            "Ask its operator for PKCE with S256 (RFC 7636); the gateway uses nothing weaker"
        )
        return CheckResult(
            _DISCOVERY, "failed", Message("the SSO does not know PKCE with S256"), hint
        )
    endpoint = document.get("token_endpoint")
    if endpoint != settings.sso.token_url:
        named = (
            endpoint if isinstance(endpoint, str) and endpoint.isprintable() else Message("none")
        )
        hint = Message(
            "Set sso.token_url to it, or sso.authorize_url to the SSO of that token endpoint"
        )
        return CheckResult(
            _DISCOVERY,
            "failed",
            Message("{issuer} names the token endpoint {named}", issuer=issuer, named=named),
            hint,
        )
    return CheckResult(_DISCOVERY, "ok", Message("{issuer} is an OpenID provider", issuer=issuer))


async def _page(
    settings: Settings,
    session: aiohttp.ClientSession,  # noqa: TID251 - received, not made
    endpoint: str | None,
) -> CheckResult:
    """Check whether the SSO would begin a sign-in of this client with this redirect URI."""
    from gateway.process.login_factory import login_client

    client = login_client(settings)
    nonce = "doctor" if client.is_openid else None
    url = client.authorization_url(endpoint, "doctor", nonce, _VERIFIER)
    try:
        tls = certificates.client_tls(url, settings.sso.ca_file, "sso.ca_file")
        async with session.get(
            url,
            ssl=True if tls is None else tls,
            proxy=settings.sso.proxy_url,
            allow_redirects=False,
            timeout=aiohttp.ClientTimeout(total=settings.sso.timeout),
        ) as response:
            status, location = response.status, response.headers.get("Location", "")
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        detail = Message("no answer: {name}", name=type(error).__name__)
        return CheckResult(_PAGE, "failed", detail, Message("Check sso.authorize_url"))
    return _check_page_response(client, status, location)


def _check_page_response(client: LoginClient, status: int, location: str) -> CheckResult:
    refusal = _refusal(location, client.redirect_uri)
    if refusal is not None:
        hint = Message("Check login.scope; the SSO's operator can tell what this client may do")
        refused = Message("the SSO refuses the sign-in: {refusal}", refusal=refusal[0])
        return CheckResult(_PAGE, "failed", with_description(refused, refusal[1]), hint)
    if 400 <= status < 500:
        detail = Message(
            "the SSO knows no such client or no such redirect_uri (status {status})", status=status
        )
        hint = Message(
            "Register with it, letter for letter: {client_id}, {redirect_uri}",
            client_id=client.client_id,
            redirect_uri=client.redirect_uri,
        )
        return CheckResult(_PAGE, "failed", detail, hint)
    if status >= 500:
        return CheckResult(
            _PAGE,
            "failed",
            Message("status {status}", status=status),
            Message("Check sso.authorize_url"),
        )
    return CheckResult(
        _PAGE,
        "ok",
        Message("the SSO lets people sign in for {redirect_uri}", redirect_uri=client.redirect_uri),
    )


def _refusal(location: str, redirect_uri: str) -> tuple[str, str] | None:
    """Return the error of an immediate redirect, None without one.

    The pair is a code of RFC 6749 or "other", and the description.
    """
    if not location.startswith(redirect_uri):
        return None
    params = dict(parse_qsl(urlsplit(location).query))
    error = params.get("error")
    if error is None or error in ("login_required", "interaction_required"):
        return None
    return oauth_error_code({"error": error}) or "other", description_of(params)


async def _client(
    settings: Settings,
    session: aiohttp.ClientSession,  # noqa: TID251 - received, not made
) -> CheckResult:
    """Check whether the SSO accepts the client: it then rejects only the invented code."""
    from gateway.process.login_factory import user_endpoint

    login = settings.login
    try:
        endpoint = user_endpoint(settings, session)
        await endpoint.redeem_code("doctor", Secret(_VERIFIER), login.redirect_uri or "")
    except StartError as error:
        return CheckResult(
            _CLIENT, "failed", exception_message(error), Message("Mend the secret or key first")
        )
    except TokenRequestError as error:
        return _client_result(error, list(start_first(settings, login.auth_method)))
    return CheckResult(_CLIENT, "skipped", Message("the SSO takes any code"))


def _client_result(error: TokenRequestError, hints: list[Message]) -> CheckResult:
    if error.oauth_error == "invalid_grant":
        return CheckResult(
            _CLIENT, "ok", Message("the SSO knows the client, and how it proves itself")
        )
    summary = _error_summary(error)
    if error.oauth_error in UNKNOWN_CLIENT or error.status == HTTPStatus.UNAUTHORIZED:
        check = Message(
            "Check login.client_id, its secret or key and auth_method with the SSO's operator"
        )
        refused = Message("the SSO refuses the client: {told}", told=summary)
        detail = with_description(refused, error.description)
        return CheckResult(_CLIENT, "failed", detail, join_messages(". ", [*hints, check]))
    # Some SSOs check the code before the client, or send other errors for a wrong code.
    silent = Message("the SSO does not say: {cause}", cause=summary)
    detail = with_description(silent, error.description)
    return CheckResult(_CLIENT, "skipped", detail, join_messages(". ", hints))


def _error_summary(error: TokenRequestError) -> Message:
    """Return the OAuth error code, else the status of an error, else the fault of the response."""
    if error.oauth_error not in (None, "other"):
        return Message(error.oauth_error)
    if error.status is not None and error.status >= HTTPStatus.BAD_REQUEST:
        return Message("status {status}", status=error.status)
    return Message(error.cause)


def _origin(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.scheme, parts.netloc
