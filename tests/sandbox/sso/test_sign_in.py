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
from tests.sandbox.harness import CREDENTIALS, Answer, Trial, trial

REDIRECT = "http://127.0.0.1:3000/callback"
VERIFIER = "a-verifier-of-at-least-forty-three-characters-0123"
CHALLENGE = base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).decode()[:43]
ASKED = {
    "response_type": "code",
    "client_id": "hospital-demo",
    "redirect_uri": REDIRECT,
    "state": "s&1",
}
PKCE = {"code_challenge": CHALLENGE, "code_challenge_method": "S256"}


async def authorize(given: Trial, method: str = "GET", form: object = None, **asked: str) -> Answer:
    """A request to the sign-in page."""
    query = urlencode({k: v for k, v in {**ASKED, **asked}.items() if v})
    url = f"{given.sandbox.authorize_url}?{query}"
    return await given.ask(method, url, form=form)  # type: ignore[arg-type]


def returned(answer: Answer) -> dict[str, str]:
    """The parameters of a redirect back to the client."""
    assert answer.status == 303
    location = answer.headers["Location"]
    assert location.startswith(REDIRECT + "?")
    return {name: values[0] for name, values in parse_qs(urlsplit(location).query).items()}


async def code_for(given: Trial, **asked: str) -> str:
    """The code that a user's consent gives."""
    form = {"username": "dr.sinov", "decision": "allow"}
    return returned(await authorize(given, "POST", form, **asked))["code"]


async def redeem(given: Trial, code: str, **changes: str) -> Answer:
    """The token request with a code."""
    form = {
        **CREDENTIALS,
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": REDIRECT,
        **changes,
    }
    return await given.ask_token({k: v for k, v in form.items() if v})


def refresh_cookie(answer: Answer) -> str:
    """The refresh token of a token response."""
    return SimpleCookie(answer.headers["Set-Cookie"])["refresh_token"].value


async def refresh(given: Trial, token: str, **changes: str) -> Answer:
    """The token request with a refresh token in a cookie."""
    form = {**CREDENTIALS, "grant_type": "refresh_token", **changes}
    headers = {"Cookie": f"refresh_token={token}"}
    return await given.ask_token({k: v for k, v in form.items() if v}, headers=headers)


async def test_the_page_is_self_contained(given: Trial) -> None:
    """The sign-in page names the client, loads nothing and cannot be framed."""
    answer = await authorize(given)
    assert answer.status == 200
    assert answer.headers["Content-Type"].startswith("text/html")
    assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]
    assert b"hospital-demo" in answer.body
    assert b"<script" not in answer.body
    assert b"http" not in answer.body.split(b"<body>")[1]


async def test_a_client_id_is_escaped_on_the_page() -> None:
    """A client id with markup in it is shown as text."""
    async with trial(SandboxOptions(port=0, client_id="<b>&x")) as given:
        answer = await authorize(given, client_id="<b>&x")
    assert b"&lt;b&gt;&amp;x" in answer.body
    assert b"<b>" not in answer.body


async def test_a_user_signs_in_with_pkce(given: Trial) -> None:
    """Consent, code and verifier give a token for the user, and the state comes back."""
    form = {"username": "dr.sinov", "decision": "allow"}
    back = returned(await authorize(given, "POST", form, **PKCE))
    answer = await redeem(given, back["code"], code_verifier=VERIFIER)
    keys = KeySet.import_key_set(
        (await given.ask("GET", f"{given.sandbox.origin}{JWKS_PATH}")).json
    )
    assert back["state"] == "s&1"
    assert jwt.decode(answer.json["access_token"], keys).claims["sub"] == "dr.sinov"


async def test_the_refresh_token_is_an_http_only_cookie(given: Trial) -> None:
    """As at the national SSO the refresh token is no part of the JSON."""
    answer = await redeem(given, await code_for(given))
    assert "refresh_token" not in answer.json
    assert "HttpOnly" in answer.headers["Set-Cookie"]
    assert "Path=/oauth/token" in answer.headers["Set-Cookie"]


async def test_the_refresh_token_can_be_had_in_the_body() -> None:
    """An option adds it to the JSON, and it works from the form."""
    async with trial(SandboxOptions(port=0, refresh_token_in_body=True)) as given:
        token = (await redeem(given, await code_for(given))).json["refresh_token"]
        form = {**CREDENTIALS, "grant_type": "refresh_token", "refresh_token": token}
        assert (await given.ask_token(form)).status == 200


async def test_a_code_works_once(given: Trial) -> None:
    """The second use is refused, and ends what the first one gave."""
    code = await code_for(given)
    first = await redeem(given, code)
    second = await redeem(given, code)
    assert first.status == 200
    assert (second.status, second.json["error"]) == (400, "invalid_grant")
    assert (await refresh(given, refresh_cookie(first))).json["error"] == "invalid_grant"


async def test_a_code_expires(given: Trial) -> None:
    """After a minute a code is worth nothing."""
    code = await code_for(given)
    given.clock.now += 60
    assert (await redeem(given, code)).json["error"] == "invalid_grant"


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
async def test_a_code_is_bound_to_its_request(given: Trial, changes: dict[str, str]) -> None:
    """Another verifier, redirect URI or client gets nothing for a code."""
    code = await code_for(given, **PKCE)
    answer = await redeem(given, code, **changes)
    assert (answer.status, answer.json["error"]) == (400, "invalid_grant")


async def test_a_verifier_without_a_challenge_is_refused(given: Trial) -> None:
    """PKCE cannot be added afterwards (RFC 9700 2.1.1)."""
    answer = await redeem(given, await code_for(given), code_verifier=VERIFIER)
    assert answer.json["error"] == "invalid_grant"


async def test_refresh_tokens_rotate(given: Trial) -> None:
    """Each refresh gives a token and the next refresh token."""
    cookie = refresh_cookie(await redeem(given, await code_for(given)))
    answer = await refresh(given, cookie)
    assert answer.status == 200
    assert refresh_cookie(answer) != cookie
    assert (await refresh(given, refresh_cookie(answer))).status == 200


async def test_a_replayed_refresh_token_ends_the_sign_in(given: Trial) -> None:
    """When an old refresh token comes again, its successor stops working too."""
    old = refresh_cookie(await redeem(given, await code_for(given)))
    new = refresh_cookie(await refresh(given, old))
    assert (await refresh(given, old)).json["error"] == "invalid_grant"
    assert (await refresh(given, new)).json["error"] == "invalid_grant"


async def test_a_public_client_signs_in_without_a_secret(given: Trial) -> None:
    """The public client redeems its code by the verifier alone."""
    code = await code_for(given, client_id="hospital-web", **PKCE)
    public = {"client_id": "hospital-web", "client_secret": ""}
    answer = await redeem(given, code, code_verifier=VERIFIER, **public)
    assert answer.status == 200
    assert (await refresh(given, refresh_cookie(answer), **public)).status == 200


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
async def test_the_client_learns_what_was_wrong(
    given: Trial, asked: dict[str, str], error: str
) -> None:
    """A request that cannot be granted goes back with an error and the state."""
    back = returned(await authorize(given, **asked))
    assert (back["error"], back["state"]) == (error, "s&1")
    assert "code" not in back


async def test_a_user_may_refuse(given: Trial) -> None:
    """The other button gives access_denied."""
    back = returned(await authorize(given, "POST", {"decision": "deny"}))
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
async def test_nobody_is_redirected_to_a_stranger(given: Trial, asked: dict[str, str]) -> None:
    """An unknown client or redirect URI gets a page, never a redirect."""
    for answer in (
        await authorize(given, **asked),
        await authorize(given, "POST", {"decision": "allow", "username": "x"}, **asked),
    ):
        assert answer.status == 400
        assert "Location" not in answer.headers


async def test_a_repeated_parameter_is_refused(given: Trial) -> None:
    """A parameter that appears twice, in the URL or the form, is answered with a page."""
    answer = await authorize(given, "POST", {"decision": "allow", "state": "other"})
    assert answer.status == 400


async def test_a_redirect_uri_keeps_its_query(given: Trial) -> None:
    """The answer is added to a query that the redirect URI has already."""
    uri = "http://localhost:1/cb?tenant=7"
    answer = await authorize(given, "POST", {"decision": "deny"}, redirect_uri=uri)
    assert answer.headers["Location"].startswith(uri + "&error=access_denied")


async def test_a_user_name_cannot_forge_a_log_line(given: Trial) -> None:
    """What a user types reaches tokens and the log without line breaks."""
    form = {"username": "a\nplatform  GET /x 200", "decision": "allow"}
    code = returned(await authorize(given, "POST", form))["code"]
    given.token = (await redeem(given, code)).json["access_token"]
    await given.fhir("GET", "/metadata")
    assert "sub=a_platform_GET_x_200" in given.lines[-1]
