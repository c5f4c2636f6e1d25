"""Error descriptions of the SSO are kept for operators without secrets."""

from __future__ import annotations

import base64
import time
from collections.abc import Awaitable, Callable
from urllib.parse import quote, quote_plus

import aiohttp
import pytest

from gateway.config.operations_settings import LoginSettings
from gateway.config.outbound_settings import SsoSettings
from gateway.oauth.client_authentication import (
    ClientAuthentication,
    client_secret_basic,
    client_secret_post,
)
from gateway.oauth.grants import UserTokenEndpoint
from gateway.oauth.token_endpoint import TokenEndpoint
from gateway.oauth.token_response import TokenRequestError
from gateway.secret import Secret
from tests.doubles.sso import Sso, json_body

CLIENT = "hospital-17"
SECRET = "plan:ted%+/ é"
FORM = "grant_type=client_credentials"
CODE = "code of the sign-in"
UUID = "0b9f6a52-6f3e-4b0a-9d55-0f1f6f5f3a11"
JWT = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ4In0.c2lnbmF0dXJl"
BASIC = base64.b64encode(f"{CLIENT}:{quote_plus(SECRET)}".encode()).decode()
Authenticate = Callable[[str, Secret], ClientAuthentication]


async def described(
    members: dict[str, object],
    *,
    status: int = 401,
    authenticate: Authenticate = client_secret_post,
    ask: Callable[[TokenEndpoint], Awaitable[object]] | None = None,
) -> str:
    jar = aiohttp.DummyCookieJar()
    async with Sso() as sso, aiohttp.ClientSession(cookie_jar=jar) as session:
        sso.respond(json_body({"error": "invalid_client", **members}, status))
        endpoint = TokenEndpoint(session=session, sso=SsoSettings(token_url=sso.token_url))
        proof = authenticate(CLIENT, Secret(SECRET))
        with pytest.raises(TokenRequestError) as caught:
            await (endpoint.request(proof, FORM) if ask is None else ask(endpoint))
    return caught.value.description


@pytest.mark.parametrize("status", [200, 400, 401, 403, 429, 503])
@pytest.mark.parametrize(
    "text",
    [
        "Invalid secret",
        "AADSTS7000215: Invalid client secret provided.",
        f"The client {CLIENT} may not use client_credentials",
        "unsupported urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
        "grantTypeNotSupported",
        "Срок действия секрета истёк 2026-11-29T10:48:29Z",
        "Client authentication failed (e.g., unknown client, no client authentication included)",
    ],
)
async def test_a_harmless_error_description_is_kept(text: str, status: int) -> None:
    assert await described({"error_description": text}, status=status) == text


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        (f"'{SECRET}' is wrong", "'***' is wrong"),
        (f"{SECRET.upper()} is wrong", "*** is wrong"),
        (f"{quote(SECRET, safe='')} is wrong", "*** is wrong"),
        (f"{quote_plus(SECRET)} is wrong", "*** is wrong"),
        (f"Basic {BASIC} is wrong", "Basic *** is wrong"),
        (f"{BASIC} is wrong", "*** is wrong"),
        (f"token {JWT} is old", "token *** is old"),
        (f"secret {UUID} is old", "secret *** is old"),
        ("Bearer abc is old", "Bearer *** is old"),
        ("code SplxlOBeZQQYbYS6WxSbIA", "code ***"),
        ("key aBcDeFgHiJkLmNoPqRsT", "key ***"),
        (f"key {'qwertzuiopasdfghjklyxcvbnmqw'}", "key ***"),
        ("access_token=abc&x", "access_token=***&x"),
        ("see https://user:pw@sso.example/x?code=abc", "see https://***@sso.example/x?***"),
        ("user 30101901234567", "user ***"),
        ("one\r\ntwo\x1b[31m\x00three \u202efour", "one two [31m three four"),
        ("  ", ""),
        ("x " * 1000, "x " * 149 + "x…"),
        (7, ""),
        (["text"], ""),
        (None, ""),
    ],
)
@pytest.mark.parametrize("authenticate", [client_secret_post, client_secret_basic])
async def test_secrets_in_an_error_description_are_masked(
    text: object, kept: str, authenticate: Authenticate
) -> None:
    assert await described({"error_description": text}, authenticate=authenticate) == kept


@pytest.mark.parametrize(
    ("url", "kept"),
    [
        (
            "https://sso.example/errors/invalid-client",
            "(https://sso.example/errors/invalid-client)",
        ),
        (f"https://a:b@sso.example/e?code={UUID}#x", "(https://sso.example/e)"),
        (f"https://sso.example/{UUID}/e", "(https://sso.example/***/e)"),
        (f"https://sso.example/{quote(SECRET, safe='')}", "(https://sso.example/***)"),
        ("javascript:alert(1)", ""),
        ("/errors/7", ""),
        ("https://[", ""),
        (7, ""),
    ],
)
async def test_error_uri(url: object, kept: str) -> None:
    assert await described({"error_uri": url}) == kept
    assert await described({"error_description": "No", "error_uri": url}) == f"No {kept}".rstrip()


async def test_codes_and_verifiers_are_masked() -> None:
    async def redeem(endpoint: TokenEndpoint) -> None:
        user = UserTokenEndpoint(
            endpoint=endpoint,
            authentications=(client_secret_post(CLIENT, Secret(SECRET)),),
            login=LoginSettings(extra_params={"resource": "the ward"}),
            clock=time.monotonic,
            wall_clock=time.time,
        )
        await user.redeem_code(CODE, Secret("x7"), "https://gateway/auth/callback")

    text = f"{CODE}, x7, x77, the ward: not for https://gateway/auth/callback"
    kept = "***, ***, x77, ***: not for https://gateway/auth/callback"
    assert await described({"error_description": text}, ask=redeem) == kept
