"""The authorization code grant: the page, one-time codes, PKCE, refresh tokens."""

from __future__ import annotations

import base64
import hashlib
from http.cookies import SimpleCookie
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from joserfc import jwt
from joserfc.jwk import KeySet

from gateway.sandbox.options import SandboxOptions
from gateway.sandbox.sso.routes import JWKS_PATH
from tests.sandbox.harness import CREDENTIALS, Answer, SandboxClient, running_sandbox

REDIRECT = "http://127.0.0.1:3000/callback"
VERIFIER = "a-verifier-of-at-least-forty-three-characters-0123"
CHALLENGE = base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).decode()[:43]
AUTHORIZATION_REQUEST = {
    "response_type": "code",
    "client_id": "hospital-demo",
    "redirect_uri": REDIRECT,
    "state": "s&1",
}
PKCE = {"code_challenge": CHALLENGE, "code_challenge_method": "S256"}


async def authorize(
    client: SandboxClient, method: str = "GET", form: object = None, **asked: str
) -> Answer:
    query = urlencode({k: v for k, v in {**AUTHORIZATION_REQUEST, **asked}.items() if v})
    url = f"{client.sandbox.authorize_url}?{query}"
    return await client.ask(method, url, form=form)  # type: ignore[arg-type]


def returned(answer: Answer) -> dict[str, str]:
    assert answer.status == 303
    location = answer.headers["Location"]
    assert location.startswith(REDIRECT + "?")
    return {name: values[0] for name, values in parse_qs(urlsplit(location).query).items()}


async def code_for(client: SandboxClient, **asked: str) -> str:
    form = {"username": "dr.sinov", "decision": "allow"}
    return returned(await authorize(client, "POST", form, **asked))["code"]


async def redeem(client: SandboxClient, code: str, **changes: str) -> Answer:
    form = {
        **CREDENTIALS,
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": REDIRECT,
        **changes,
    }
    return await client.ask_token({k: v for k, v in form.items() if v})


def refresh_cookie(answer: Answer) -> str:
    return SimpleCookie(answer.headers["Set-Cookie"])["refresh_token"].value


async def refresh(client: SandboxClient, token: str, **changes: str) -> Answer:
    form = {**CREDENTIALS, "grant_type": "refresh_token", **changes}
    headers = {"Cookie": f"refresh_token={token}"}
    return await client.ask_token({k: v for k, v in form.items() if v}, headers=headers)


async def test_the_page_is_self_contained(client: SandboxClient) -> None:
    answer = await authorize(client)
    assert answer.status == 200
    assert answer.headers["Content-Type"].startswith("text/html")
    assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]
    assert b"hospital-demo" in answer.body
    assert b"<script" not in answer.body
    assert b"http" not in answer.body.split(b"<body>")[1]


async def test_a_client_id_is_escaped_on_the_page() -> None:
    async with running_sandbox(SandboxOptions(port=0, client_id="<b>&x")) as client:
        answer = await authorize(client, client_id="<b>&x")
    assert b"&lt;b&gt;&amp;x" in answer.body
    assert b"<b>" not in answer.body


async def test_a_user_signs_in_with_pkce(client: SandboxClient) -> None:
    form = {"username": "dr.sinov", "decision": "allow"}
    back = returned(await authorize(client, "POST", form, **PKCE))
    answer = await redeem(client, back["code"], code_verifier=VERIFIER)
    keys = KeySet.import_key_set(
        (await client.ask("GET", f"{client.sandbox.origin}{JWKS_PATH}")).json
    )
    assert back["state"] == "s&1"
    assert jwt.decode(answer.json["access_token"], keys).claims["sub"] == "dr.sinov"


async def test_the_refresh_token_is_an_http_only_cookie(client: SandboxClient) -> None:
    answer = await redeem(client, await code_for(client))
    assert "refresh_token" not in answer.json
    assert "HttpOnly" in answer.headers["Set-Cookie"]
    assert "Path=/oauth/token" in answer.headers["Set-Cookie"]


async def test_the_refresh_token_in_the_body() -> None:
    async with running_sandbox(SandboxOptions(port=0, refresh_token_in_body=True)) as client:
        token = (await redeem(client, await code_for(client))).json["refresh_token"]
        form = {**CREDENTIALS, "grant_type": "refresh_token", "refresh_token": token}
        assert (await client.ask_token(form)).status == 200


async def test_a_code_works_once(client: SandboxClient) -> None:
    code = await code_for(client)
    first = await redeem(client, code)
    second = await redeem(client, code)
    assert first.status == 200
    assert (second.status, second.json["error"]) == (400, "invalid_grant")
    assert (await refresh(client, refresh_cookie(first))).json["error"] == "invalid_grant"


async def test_a_code_expires(client: SandboxClient) -> None:
    code = await code_for(client)
    client.clock.now += 60
    assert (await redeem(client, code)).json["error"] == "invalid_grant"


@pytest.mark.parametrize(
    "changes",
    [
        {"code_verifier": "another-verifier-of-more-than-forty-three-chars-"},
        {"code_verifier": ""},
        {"code_verifier": "short"},
        {"redirect_uri": REDIRECT + "/other", "code_verifier": VERIFIER},
        {"client_id": "hospital-web", "client_secret": "", "code_verifier": VERIFIER},
    ],
)
async def test_a_code_is_bound_to_its_request(
    client: SandboxClient, changes: dict[str, str]
) -> None:
    code = await code_for(client, **PKCE)
    answer = await redeem(client, code, **changes)
    assert (answer.status, answer.json["error"]) == (400, "invalid_grant")


async def test_a_verifier_without_a_challenge_is_refused(client: SandboxClient) -> None:
    """PKCE cannot be added afterwards (RFC 9700 2.1.1)."""
    answer = await redeem(client, await code_for(client), code_verifier=VERIFIER)
    assert answer.json["error"] == "invalid_grant"


async def test_refresh_tokens_rotate(client: SandboxClient) -> None:
    cookie = refresh_cookie(await redeem(client, await code_for(client)))
    answer = await refresh(client, cookie)
    assert answer.status == 200
    assert refresh_cookie(answer) != cookie
    assert (await refresh(client, refresh_cookie(answer))).status == 200


async def test_a_replayed_refresh_token_revokes_its_successor(client: SandboxClient) -> None:
    old = refresh_cookie(await redeem(client, await code_for(client)))
    new = refresh_cookie(await refresh(client, old))
    assert (await refresh(client, old)).json["error"] == "invalid_grant"
    assert (await refresh(client, new)).json["error"] == "invalid_grant"


async def test_a_public_client_signs_in_without_a_secret(client: SandboxClient) -> None:
    code = await code_for(client, client_id="hospital-web", **PKCE)
    public = {"client_id": "hospital-web", "client_secret": ""}
    answer = await redeem(client, code, code_verifier=VERIFIER, **public)
    assert answer.status == 200
    assert (await refresh(client, refresh_cookie(answer), **public)).status == 200


@pytest.mark.parametrize(
    ("asked", "error"),
    [
        ({"response_type": ""}, "invalid_request"),
        ({"response_type": "token"}, "unsupported_response_type"),
        ({"scope": "openid"}, "invalid_scope"),
        ({"code_challenge": CHALLENGE}, "invalid_request"),
        ({"code_challenge": CHALLENGE, "code_challenge_method": "plain"}, "invalid_request"),
        ({"code_challenge": "short", "code_challenge_method": "S256"}, "invalid_request"),
        ({"client_id": "hospital-web"}, "invalid_request"),
    ],
)
async def test_errors_are_redirected_to_the_client(
    client: SandboxClient, asked: dict[str, str], error: str
) -> None:
    back = returned(await authorize(client, **asked))
    assert (back["error"], back["state"]) == (error, "s&1")
    assert "code" not in back


async def test_access_denied(client: SandboxClient) -> None:
    back = returned(await authorize(client, "POST", {"decision": "deny"}))
    assert back["error"] == "access_denied"


@pytest.mark.parametrize(
    "asked",
    [
        {"client_id": "nobody"},
        {"client_id": ""},
        {"redirect_uri": ""},
        {"redirect_uri": "https://evil.example/"},
        {"redirect_uri": "http://evil.example/"},
        {"redirect_uri": "http://127.0.0.1@evil.example/"},
        {"redirect_uri": "http://user@127.0.0.1/"},
        {"redirect_uri": "http://127.0.0.1/#fragment"},
        {"redirect_uri": "http://127.0.0.1:99999/"},
        {"redirect_uri": "http://127.0.0.1/\r\nSet-Cookie: a=b"},
        {"redirect_uri": "javascript:alert(1)"},
    ],
)
async def test_unregistered_redirect_uris_are_not_used(
    client: SandboxClient, asked: dict[str, str]
) -> None:
    for answer in (
        await authorize(client, **asked),
        await authorize(client, "POST", {"decision": "allow", "username": "x"}, **asked),
    ):
        assert answer.status == 400
        assert "Location" not in answer.headers


async def test_a_repeated_parameter_is_refused(client: SandboxClient) -> None:
    answer = await authorize(client, "POST", {"decision": "allow", "state": "other"})
    assert answer.status == 400


async def test_a_redirect_uri_keeps_its_query(client: SandboxClient) -> None:
    uri = "http://localhost:1/cb?tenant=7"
    answer = await authorize(client, "POST", {"decision": "deny"}, redirect_uri=uri)
    assert answer.headers["Location"].startswith(uri + "&error=access_denied")


async def test_a_user_name_cannot_forge_a_log_line(client: SandboxClient) -> None:
    form = {"username": "a\nplatform  GET /x 200", "decision": "allow"}
    code = returned(await authorize(client, "POST", form))["code"]
    client.token = (await redeem(client, code)).json["access_token"]
    await client.fhir("GET", "/metadata")
    assert "sub=a_platform_GET_x_200" in client.lines[-1]
