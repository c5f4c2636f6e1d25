"""client_secret_basic before SSOs that decode what RFC 6749 encodes, and that do not."""

from __future__ import annotations

import base64
import time
from collections.abc import AsyncIterator
from urllib.parse import unquote_plus

import aiohttp
import pytest

from gateway.config.operations_settings import LoginSettings
from gateway.config.outbound_settings import CredentialSettings, SsoSettings
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
        """Judge client id and secret."""
        client, secret = credentials(request)
        if self.decodes:
            client, secret = unquote_plus(client), unquote_plus(secret)
        right = client == self.client and secret in self.secrets
        return token("granted") if right else self.refusal

    @property
    def shown(self) -> list[str]:
        """The secrets of all requests, as they are in the header."""
        return [credentials(request)[1] for request in self.requests]


def credentials(request: ReceivedRequest) -> tuple[str, str]:
    """Client id and secret as they are in the header."""
    encoded = request.headers["Authorization"].removeprefix("Basic ")
    client, _, secret = base64.b64decode(encoded).decode().partition(":")
    return client, secret


@pytest.fixture
async def sso() -> AsyncIterator[BasicSso]:
    """A running SSO that does not decode."""
    async with BasicSso() as running:
        yield running


@pytest.fixture
async def endpoint(sso: BasicSso) -> AsyncIterator[TokenEndpoint]:
    """Where credentials ask."""
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session:
        yield TokenEndpoint(session=session, sso=SsoSettings(token_url=sso.token_url))


def authenticators(text: str, client: str = "hospital-17") -> tuple[ClientAuthenticator, ...]:
    """The candidates of a secret file."""
    return parse_client_secrets(client, Secret(text), in_header=True)


def credential(endpoint: TokenEndpoint, text: str, client: str = "hospital-17") -> Credential:
    """A credential with the secrets of a file."""
    return Credential(
        endpoint=endpoint,
        settings=CredentialSettings(client_id=client, auth_method="client_secret_basic"),
        platform="https://platform.test/r5",
        name="default",
        authenticators=authenticators(text, client),
    )


async def result(asked: Credential) -> str:
    """The token, or the kind of the refusal."""
    try:
        return (await asked.request()).access_token.reveal()
    except TokenRequestError as error:
        return error.kind


@pytest.mark.parametrize("secret", ["a+b", "a/b", "a=b", "100%", "a&b", "a b", "a%2Bb", "ключ:é"])
@pytest.mark.parametrize("decodes", [True, False])
async def test_a_secret_with_characters_that_the_encoding_changes(
    sso: BasicSso, endpoint: TokenEndpoint, secret: str, decodes: bool
) -> None:
    """It is sent encoded first; where that is refused once as it is, and so from then on."""
    sso.secrets, sso.decodes = {secret}, decodes
    asked = credential(endpoint, secret)
    assert [await result(asked), await result(asked)] == ["granted"] * 2
    assert len(sso.shown) == (2 if decodes else 3)
    assert sso.shown[0] != secret
    assert sso.shown[-1] == (sso.shown[0] if decodes else secret)


async def test_a_client_id_with_such_characters(sso: BasicSso, endpoint: TokenEndpoint) -> None:
    """The client id is encoded like the secret, and is sent as it is as well."""
    sso.client = "clinic/17+lab"
    assert await result(credential(endpoint, "old", sso.client)) == "granted"
    assert [credentials(request)[0] for request in sso.requests] == [
        "clinic%2F17%2Blab",
        "clinic/17+lab",
    ]


async def test_a_plain_secret_is_sent_once(sso: BasicSso, endpoint: TokenEndpoint) -> None:
    """Without such characters both forms are one, which is not repeated."""
    assert await result(credential(endpoint, "wrong")) == "refused"
    assert sso.shown == ["wrong"]


async def test_a_wrong_secret_is_sent_once_in_each_form(
    sso: BasicSso, endpoint: TokenEndpoint
) -> None:
    """A round of requests has each candidate once, so that no SSO locks the client by it."""
    asked = credential(endpoint, "new+\nold+")
    assert await result(asked) == "refused"
    assert sso.shown == ["new%2B", "old%2B", "new+", "old+"]


@pytest.mark.parametrize(
    ("given", "shown"),
    [("new+\nold+", ["new%2B", "old%2B", "new+", "old+"]), ("new+\nold", ["new%2B", "old"])],
)
async def test_two_secrets(
    sso: BasicSso, endpoint: TokenEndpoint, given: str, shown: list[str]
) -> None:
    """Of two secrets and two forms the one that was accepted is tried first afterwards."""
    sso.secrets = {"old+", "old"}
    asked = credential(endpoint, given)
    assert [await result(asked), await result(asked)] == ["granted"] * 2
    assert sso.shown == [*shown, shown[-1]]
    assert asked.uses_previous_secret


async def test_the_form_outlives_the_secret(sso: BasicSso, endpoint: TokenEndpoint) -> None:
    """Another secret, and another version of the settings, begin with the form that is known."""
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
    assert sso.shown == ["old%2B", "old+", "new+", "newest+"]


@pytest.mark.parametrize("answer", [status(503), status(429), oauth_error("invalid_scope")])
async def test_not_a_matter_of_the_form(
    sso: BasicSso, endpoint: TokenEndpoint, answer: ScriptedResponse
) -> None:
    """An SSO that fails, or refuses something else, is not shown the other form."""
    sso.script(answer)
    assert await result(credential(endpoint, "a+b")) != "granted"
    assert sso.shown == ["a%2Bb"]


@pytest.mark.parametrize("answer", [http(403), http(401), status(403)])
async def test_a_refusal_without_an_oauth_error(
    sso: BasicSso, endpoint: TokenEndpoint, answer: ScriptedResponse
) -> None:
    """Glewlwyd refuses a client by 403 without a body: the second secret is tried all the same."""
    sso.refusal = answer
    asked = credential(endpoint, "new\nold")
    assert [await result(asked), await result(asked)] == ["granted"] * 2
    assert sso.shown == ["new", "old", "old"]
    assert asked.uses_previous_secret


async def test_both_secrets_refused_without_an_oauth_error(
    sso: BasicSso, endpoint: TokenEndpoint
) -> None:
    """It may be a firewall: the error stays one that passes."""
    sso.secrets, sso.refusal = set(), http(403)
    assert await result(credential(endpoint, "new\nold")) == "transient"


@pytest.mark.parametrize(
    "answer",
    [oauth_error("invalid_client", 401), oauth_error("unauthorized_client", 401), http(403)],
)
async def test_the_client_of_the_sign_in(
    sso: BasicSso, endpoint: TokenEndpoint, answer: ScriptedResponse
) -> None:
    """It finds secret and form in the same way, and keeps to them; Keycloak's code is another."""
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
    assert sso.shown == ["new%2B", "old%2B", "new+", "old+", "old+"]


async def test_the_other_form_is_masked_too(sso: BasicSso, endpoint: TokenEndpoint) -> None:
    """A secret that an SSO echoes is in no text, whichever form it has."""
    said = oauth_error("invalid_client", 401)
    sso.refusal = ScriptedResponse(
        said.raw.replace(b"as the test wants it", b"no pw%2Bx1+ here too")
    )
    with pytest.raises(TokenRequestError) as caught:
        await credential(endpoint, "pw%2Bx1+").request()
    assert caught.value.description == "no *** here too"


async def test_a_code_that_is_the_secret_is_not_kept(
    sso: BasicSso, endpoint: TokenEndpoint
) -> None:
    """An SSO that echoes the secret as its error code does not bring it into a text."""
    sso.refusal = oauth_error("wrong:pw-x1", 401)
    with pytest.raises(TokenRequestError) as caught:
        await credential(endpoint, "pw-x1").request()
    assert caught.value.oauth_error == "other"
    assert "pw-x1" not in str(caught.value)
