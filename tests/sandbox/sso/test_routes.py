"""The token endpoint: grants, client authentication, errors, keys."""

from __future__ import annotations

import base64
from urllib.parse import quote_plus, urlencode

import pytest
from joserfc import jwt
from joserfc.jwk import KeySet

from gateway.sandbox.options import SandboxOptions
from gateway.sandbox.sso.routes import JWKS_PATH
from tests.sandbox.harness import CREDENTIALS, Trial, trial

GOOD = urlencode(CREDENTIALS).encode()


def basic(client_id: str, secret: str) -> dict[str, str]:
    """An Authorization header as RFC 6749 2.3.1 has it."""
    text = f"{quote_plus(client_id)}:{quote_plus(secret)}"
    return {"Authorization": "Basic " + base64.b64encode(text.encode()).decode()}


def without(*names: str, **changes: str) -> dict[str, str]:
    """The good form, less some parameters and with others."""
    return {k: v for k, v in {**CREDENTIALS, **changes}.items() if k not in names}


async def test_a_client_gets_a_bearer_token(given: Trial) -> None:
    """Id and secret in the form give a token of the configured lifetime, not to be cached."""
    answer = await given.ask_token(CREDENTIALS)
    assert answer.status == 200
    assert answer.json["token_type"] == "Bearer"
    assert answer.json["expires_in"] == 3600
    assert "refresh_token" not in answer.json
    assert "Set-Cookie" not in answer.headers
    assert answer.headers["Cache-Control"] == "no-store"


async def test_tokens_are_jwts_of_the_published_key(given: Trial) -> None:
    """A token is an RS256 JWT with a kid, checkable by the JWK Set alone."""
    token = (await given.ask_token(CREDENTIALS)).json["access_token"]
    keys = (await given.ask("GET", f"{given.sandbox.origin}{JWKS_PATH}")).json
    decoded = jwt.decode(token, KeySet.import_key_set(keys), algorithms=["RS256"])
    claims, origin = decoded.claims, given.sandbox.token_url.removesuffix("/oauth/token")
    assert decoded.header["kid"] == keys["keys"][0]["kid"]
    assert "d" not in keys["keys"][0]
    assert claims["sub"] == "hospital-demo"
    assert claims["iss"] == origin
    assert claims["aud"] == given.sandbox.fhir_base_url
    assert claims["iat"] == int(given.clock.wall())
    assert claims["exp"] - claims["iat"] == 3600


async def test_the_keys_are_at_the_well_known_place_too(given: Trial) -> None:
    """Both URLs of the JWK Set give the same."""
    other = given.sandbox.token_url.replace("/oauth/token", "/.well-known/jwks.json")
    assert (await given.ask("GET", other)).json == (
        await given.ask("GET", f"{given.sandbox.origin}{JWKS_PATH}")
    ).json


async def test_two_tokens_differ(given: Trial) -> None:
    """Each token has its own jti, also within one second."""
    first, second = [(await given.ask_token(CREDENTIALS)).json["access_token"] for _ in range(2)]
    assert first != second


async def test_basic_credentials_are_form_urlencoded_inside() -> None:
    """A secret with reserved characters gets through Basic as RFC 6749 2.3.1 encodes it."""
    options = SandboxOptions(port=0, client_id="a:b", client_secret="p% +ü:&")
    async with trial(options) as given:
        form = {"grant_type": "client_credentials"}
        answer = await given.ask_token(form, headers=basic("a:b", "p% +ü:&"))
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
async def test_errors_are_those_of_the_guide(
    given: Trial, form: dict[str, str], status: int, error: str
) -> None:
    """Each wrong request gets its code of RFC 6749 5.2, and may not be cached."""
    answer = await given.ask_token(form)
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
async def test_a_refused_authorization_gets_a_challenge(given: Trial, value: str) -> None:
    """A header that is not Basic with a right id and secret is 401, with the scheme to use."""
    form = {"grant_type": "client_credentials"}
    answer = await given.ask_token(form, headers={"Authorization": value})
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
async def test_what_is_no_proper_form_is_refused(
    given: Trial, body: bytes, headers: dict[str, str]
) -> None:
    """It is an invalid request, even where it holds the right secret."""
    headers = {"Content-Type": "application/x-www-form-urlencoded", **headers}
    answer = await given.ask("POST", given.sandbox.token_url, body=body, headers=headers)
    assert (answer.status, answer.json["error"]) == (400, "invalid_request")


async def test_the_token_endpoint_takes_post_only(given: Trial) -> None:
    """A GET, which would put the secret into logs, is refused."""
    assert (await given.ask("GET", given.sandbox.token_url)).status == 405


async def test_a_secret_stays_out_of_the_options_repr() -> None:
    """Printing the options does not show the secret."""
    assert "sandbox-secret" not in repr(SandboxOptions())
