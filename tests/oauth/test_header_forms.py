"""client_secret_basic before SSOs that decode what RFC 6749 encodes, and that do not."""

from __future__ import annotations

import base64
import time
from collections.abc import AsyncIterator
from urllib.parse import unquote_plus

import aiohttp
import pytest

from gateway.config.operations_settings import LoginSettings
from gateway.config.outbound_settings import SsoSettings
from gateway.oauth.client_authentication import ClientAuthenticator, parse_client_secrets
from gateway.oauth.credential import Credential
from gateway.oauth.grants import RenewalGrant, UserTokenEndpoint
from gateway.oauth.token_endpoint import TokenEndpoint
from gateway.oauth.token_response import TokenRequestError
from gateway.secret import Secret
from tests.doubles.sso import (
    ReceivedRequest,
    ScriptedResponse,
    Sso,
    http,
    oauth_error,
    status,
    token,
)
from tests.oauth.harness import credential_of


class BasicSso(Sso):
    """Takes `secrets` of the client `client` in the header, `decodes` them or not.

    Django, Better Auth and zitadel/oidc decode; LemonLDAP::NG, Glewlwyd and node-oauth2-server do
    not.
    """

    def __init__(self) -> None:
        super().__init__()
        self.client = "hospital-17"
        self.secrets = {"old"}
        self.decodes = False
        self.refusal: ScriptedResponse = oauth_error("invalid_client", 401)

    def response_to(self, request: ReceivedRequest) -> ScriptedResponse:
        client, secret = credentials(request)
        if self.decodes:
            client, secret = unquote_plus(client), unquote_plus(secret)
        right = client == self.client and secret in self.secrets
        return token("granted") if right else self.refusal

    @property
    def sent_secrets(self) -> list[str]:
        return [credentials(request)[1] for request in self.requests]


def credentials(request: ReceivedRequest) -> tuple[str, str]:
    encoded = request.headers["Authorization"].removeprefix("Basic ")
    client, _, secret = base64.b64decode(encoded).decode().partition(":")
    return client, secret


@pytest.fixture
async def sso() -> AsyncIterator[BasicSso]:
    async with BasicSso() as running:
        yield running


@pytest.fixture
async def endpoint(sso: BasicSso) -> AsyncIterator[TokenEndpoint]:
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session:
        yield TokenEndpoint(session=session, sso=SsoSettings(token_url=sso.token_url))


def authenticators(text: str, client: str = "hospital-17") -> tuple[ClientAuthenticator, ...]:
    return parse_client_secrets(client, Secret(text), in_header=True)


def credential(endpoint: TokenEndpoint, text: str, client: str = "hospital-17") -> Credential:
    found = authenticators(text, client)
    return credential_of(endpoint, found, client=client, auth_method="client_secret_basic")


async def result(asked: Credential) -> str:
    try:
        return (await asked.request()).access_token.reveal()
    except TokenRequestError as error:
        return error.kind


@pytest.mark.parametrize("secret", ["a+b", "a/b", "a=b", "100%", "a&b", "a b", "a%2Bb", "ключ:é"])
@pytest.mark.parametrize("decodes", [True, False])
async def test_a_secret_is_sent_unencoded_after_a_rejection(
    sso: BasicSso, endpoint: TokenEndpoint, secret: str, decodes: bool
) -> None:
    sso.secrets, sso.decodes = {secret}, decodes
    asked = credential(endpoint, secret)
    assert [await result(asked), await result(asked)] == ["granted"] * 2
    assert len(sso.sent_secrets) == (2 if decodes else 3)
    assert sso.sent_secrets[0] != secret
    assert sso.sent_secrets[-1] == (sso.sent_secrets[0] if decodes else secret)


async def test_a_client_id_is_sent_unencoded_after_a_rejection(
    sso: BasicSso, endpoint: TokenEndpoint
) -> None:
    sso.client = "clinic/17+lab"
    assert await result(credential(endpoint, "old", sso.client)) == "granted"
    assert [credentials(request)[0] for request in sso.requests] == [
        "clinic%2F17%2Blab",
        "clinic/17+lab",
    ]


async def test_a_plain_secret_is_sent_once(sso: BasicSso, endpoint: TokenEndpoint) -> None:
    assert await result(credential(endpoint, "wrong")) == "refused"
    assert sso.sent_secrets == ["wrong"]


async def test_a_wrong_secret_is_sent_once_in_each_form(
    sso: BasicSso, endpoint: TokenEndpoint
) -> None:
    """A round of requests has each candidate once, so that no SSO locks the client by it."""
    asked = credential(endpoint, "new+\nold+")
    assert await result(asked) == "refused"
    assert sso.sent_secrets == ["new%2B", "old%2B", "new+", "old+"]


@pytest.mark.parametrize(
    ("given", "sent_secrets"),
    [("new+\nold+", ["new%2B", "old%2B", "new+", "old+"]), ("new+\nold", ["new%2B", "old"])],
)
async def test_the_accepted_secret_and_form_are_tried_first(
    sso: BasicSso, endpoint: TokenEndpoint, given: str, sent_secrets: list[str]
) -> None:
    sso.secrets = {"old+", "old"}
    asked = credential(endpoint, given)
    assert [await result(asked), await result(asked)] == ["granted"] * 2
    assert sso.sent_secrets == [*sent_secrets, sent_secrets[-1]]
    assert asked.uses_previous_secret


async def test_the_accepted_form_is_tried_first_with_another_secret(
    sso: BasicSso, endpoint: TokenEndpoint
) -> None:
    sso.secrets = {"old+"}
    before = credential(endpoint, "old+")
    await result(before)
    after = credential(endpoint, "new+")
    after.take_over(before)
    sso.secrets = {"new+"}
    assert await result(after) == "granted"
    sso.secrets = {"newest+"}
    assert after.present(authenticators("newest+"))
    assert await result(after) == "granted"
    assert sso.sent_secrets == ["old%2B", "old+", "new+", "newest+"]


@pytest.mark.parametrize("answer", [status(503), status(429), oauth_error("invalid_scope")])
async def test_other_failures_do_not_change_the_form(
    sso: BasicSso, endpoint: TokenEndpoint, answer: ScriptedResponse
) -> None:
    sso.script(answer)
    assert await result(credential(endpoint, "a+b")) != "granted"
    assert sso.sent_secrets == ["a%2Bb"]


@pytest.mark.parametrize("answer", [http(403), http(401), status(403)])
async def test_a_403_without_an_oauth_error_leads_to_the_second_secret(
    sso: BasicSso, endpoint: TokenEndpoint, answer: ScriptedResponse
) -> None:
    sso.refusal = answer
    asked = credential(endpoint, "new\nold")
    assert [await result(asked), await result(asked)] == ["granted"] * 2
    assert sso.sent_secrets == ["new", "old", "old"]
    assert asked.uses_previous_secret


async def test_two_403_without_an_oauth_error_are_transient(
    sso: BasicSso, endpoint: TokenEndpoint
) -> None:
    sso.secrets, sso.refusal = set(), http(403)
    assert await result(credential(endpoint, "new\nold")) == "transient"


@pytest.mark.parametrize(
    "answer",
    [oauth_error("invalid_client", 401), oauth_error("unauthorized_client", 401), http(403)],
)
async def test_the_login_client_finds_secret_and_form(
    sso: BasicSso, endpoint: TokenEndpoint, answer: ScriptedResponse
) -> None:
    sso.secrets, sso.refusal = {"old+"}, answer
    user = UserTokenEndpoint(
        endpoint=endpoint,
        authentications=[each.authenticate for each in authenticators("new+\nold+")],
        login=LoginSettings(),
        clock=time.monotonic,
        wall_clock=time.time,
    )
    for _ in range(2):
        await user.refresh(RenewalGrant(Secret("r1")))
    assert sso.sent_secrets == ["new%2B", "old%2B", "new+", "old+", "old+"]


async def test_both_forms_are_masked(sso: BasicSso, endpoint: TokenEndpoint) -> None:
    said = oauth_error("invalid_client", 401)
    sso.refusal = ScriptedResponse(
        said.raw.replace(b"as the test wants it", b"no pw%2Bx1+ here too")
    )
    with pytest.raises(TokenRequestError) as caught:
        await credential(endpoint, "pw%2Bx1+").request()
    assert caught.value.description == "no *** here too"


async def test_an_error_code_that_is_the_secret_is_masked(
    sso: BasicSso, endpoint: TokenEndpoint
) -> None:
    sso.refusal = oauth_error("wrong:pw-x1", 401)
    with pytest.raises(TokenRequestError) as caught:
        await credential(endpoint, "pw-x1").request()
    assert caught.value.oauth_error == "other"
    assert "pw-x1" not in str(caught.value)
