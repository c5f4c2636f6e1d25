"""The token endpoint: grants, client authentication, errors, keys."""

from __future__ import annotations

import base64
from urllib.parse import quote_plus, urlencode

import pytest
from joserfc import jwt
from joserfc.jwk import KeySet

from gateway.sandbox.options import SandboxOptions
from gateway.sandbox.sso.routes import JWKS_PATH
from tests.sandbox.harness import CREDENTIALS, SandboxClient, running_sandbox

GOOD = urlencode(CREDENTIALS).encode()


def basic(client_id: str, secret: str) -> dict[str, str]:
    text = f"{quote_plus(client_id)}:{quote_plus(secret)}"
    return {"Authorization": "Basic " + base64.b64encode(text.encode()).decode()}


def without(*names: str, **changes: str) -> dict[str, str]:
    return {k: v for k, v in {**CREDENTIALS, **changes}.items() if k not in names}


async def test_a_client_gets_a_bearer_token(client: SandboxClient) -> None:
    answer = await client.ask_token(CREDENTIALS)
    assert answer.status == 200
    assert answer.json["token_type"] == "Bearer"
    assert answer.json["expires_in"] == 3600
    assert "refresh_token" not in answer.json
    assert "Set-Cookie" not in answer.headers
    assert answer.headers["Cache-Control"] == "no-store"


async def test_tokens_are_jwts_of_the_published_key(client: SandboxClient) -> None:
    token = (await client.ask_token(CREDENTIALS)).json["access_token"]
    keys = (await client.ask("GET", f"{client.sandbox.origin}{JWKS_PATH}")).json
    decoded = jwt.decode(token, KeySet.import_key_set(keys), algorithms=["RS256"])
    claims, origin = decoded.claims, client.sandbox.token_url.removesuffix("/oauth/token")
    assert decoded.header["kid"] == keys["keys"][0]["kid"]
    assert "d" not in keys["keys"][0]
    assert claims["sub"] == "hospital-demo"
    assert claims["iss"] == origin
    assert claims["aud"] == client.sandbox.fhir_base_url
    assert claims["iat"] == int(client.clock.wall())
    assert claims["exp"] - claims["iat"] == 3600


async def test_keys_are_published_at_the_well_known_url(client: SandboxClient) -> None:
    other = client.sandbox.token_url.replace("/oauth/token", "/.well-known/jwks.json")
    assert (await client.ask("GET", other)).json == (
        await client.ask("GET", f"{client.sandbox.origin}{JWKS_PATH}")
    ).json


async def test_tokens_are_unique(client: SandboxClient) -> None:
    first, second = [(await client.ask_token(CREDENTIALS)).json["access_token"] for _ in range(2)]
    assert first != second


async def test_basic_credentials_are_form_urlencoded_inside() -> None:
    """A secret with reserved characters gets through Basic as RFC 6749 2.3.1 encodes it."""
    options = SandboxOptions(port=0, client_id="a:b", client_secret="p% +ü:&")
    async with running_sandbox(options) as client:
        form = {"grant_type": "client_credentials"}
        answer = await client.ask_token(form, headers=basic("a:b", "p% +ü:&"))
    assert answer.status == 200


@pytest.mark.parametrize(
    ("form", "status", "error"),
    [
        (without("grant_type"), 400, "invalid_request"),
        (without(grant_type=""), 400, "invalid_request"),
        (without("client_id"), 400, "invalid_request"),
        (without("client_secret"), 400, "invalid_request"),
        (without(client_secret="wrong"), 401, "invalid_client"),
        (without(client_id="nobody"), 401, "invalid_client"),
        (without(grant_type="password"), 400, "unsupported_grant_type"),
        (without(scope="system/*.rs"), 400, "invalid_scope"),
        (without(grant_type="authorization_code"), 400, "invalid_request"),
        (
            without(grant_type="authorization_code", code="x", redirect_uri="http://localhost/"),
            400,
            "invalid_grant",
        ),
        (without(grant_type="refresh_token"), 400, "invalid_request"),
        (without(grant_type="refresh_token", refresh_token="x"), 400, "invalid_grant"),
        (without("client_secret", client_id="hospital-web"), 400, "unauthorized_client"),
    ],
)
async def test_each_error_has_its_oauth_code(
    client: SandboxClient, form: dict[str, str], status: int, error: str
) -> None:
    """Each wrong request gets its code of RFC 6749 5.2, and may not be cached."""
    answer = await client.ask_token(form)
    assert (answer.status, answer.json) == (status, {"error": error})
    assert answer.headers["Cache-Control"] == "no-store"
    assert "WWW-Authenticate" not in answer.headers


@pytest.mark.parametrize(
    "value",
    [
        "Basic !!!",
        "Basic aGVsbG8=",
        "Bearer abc",
        "Basic /w==",
        basic("hospital-demo", "wrong")["Authorization"],
    ],
    ids=["not base64", "no colon", "another scheme", "not UTF-8", "wrong secret"],
)
async def test_a_refused_authorization_gets_a_challenge(client: SandboxClient, value: str) -> None:
    form = {"grant_type": "client_credentials"}
    answer = await client.ask_token(form, headers={"Authorization": value})
    assert (answer.status, answer.json["error"]) == (401, "invalid_client")
    assert answer.headers["WWW-Authenticate"].startswith("Basic ")


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b'{"grant_type":"client_credentials"}', {"Content-Type": "application/json"}),
        (GOOD + b"&client_id=hospital-demo", {}),
        (GOOD + b"&x=%ff", {}),
        (GOOD, basic("hospital-demo", "sandbox-secret")),
    ],
    ids=["JSON", "a repeated parameter", "broken UTF-8", "a secret in form and header"],
)
async def test_invalid_token_requests_are_rejected(
    client: SandboxClient, body: bytes, headers: dict[str, str]
) -> None:
    headers = {"Content-Type": "application/x-www-form-urlencoded", **headers}
    answer = await client.ask("POST", client.sandbox.token_url, body=body, headers=headers)
    assert (answer.status, answer.json["error"]) == (400, "invalid_request")


async def test_the_token_endpoint_takes_post_only(client: SandboxClient) -> None:
    """A GET, which would put the secret into logs, is refused."""
    assert (await client.ask("GET", client.sandbox.token_url)).status == 405


async def test_repr_of_the_options_shows_no_secret() -> None:
    assert "sandbox-secret" not in repr(SandboxOptions())
