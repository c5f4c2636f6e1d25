"""The gateway gets its tokens from oidc-provider, an OpenID-certified server."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable
from pathlib import Path
from urllib.parse import parse_qs

import aiohttp
import pytest
from fhirpy import AsyncFHIRClient
from fhirpy.base.exceptions import OperationOutcome

from tests.interop.stages import SECRETS, FhirKit, GuardedStage, SetStage, Sso, ec_key

METADATA = "/metadata"


async def statuses(url: str, count: int) -> list[int]:
    """Sends `count` requests at once and gives the answers' status codes."""

    async def one(session: aiohttp.ClientSession) -> int:
        async with session.get(url) as answer:
            await answer.read()
            return answer.status

    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:
        return await asyncio.gather(*(one(session) for _ in range(count)))


async def test_client_secret_post_sends_the_credentials_in_the_form(stage: GuardedStage) -> None:
    """With `client_secret_post` the form holds grant, client and secret, and nothing else."""
    gateway = await stage.gateway()

    assert await statuses(gateway.url + METADATA, 1) == [200]

    [request] = stage.token_endpoint.requests
    assert "Authorization" not in request.headers
    assert parse_qs(request.body.decode()) == {
        "grant_type": ["client_credentials"],
        "client_id": ["lab-post"],
        "client_secret": [SECRETS["lab-post"]],
    }


async def test_client_secret_basic_sends_the_credentials_in_the_header(
    set_stage: SetStage, sso: Sso
) -> None:
    """With `client_secret_basic` the secret is in `Authorization` and not in the form."""
    async with set_stage(sso, "lab-basic") as stage:
        gateway = await stage.gateway()

        assert await statuses(gateway.url + METADATA, 1) == [200]

        [request] = stage.token_endpoint.requests
        pair = base64.b64encode(f"lab-basic:{SECRETS['lab-basic']}".encode()).decode()
        assert request.headers.getall("Authorization") == [f"Basic {pair}"]
        assert parse_qs(request.body.decode()) == {"grant_type": ["client_credentials"]}
        assert stage.guard.clients == ["lab-basic"]


@pytest.mark.parametrize("form", ["pkcs8", "traditional", "jwk"])
@pytest.mark.parametrize(("client_id", "algorithm"), [("lab-rsa", "RS384"), ("lab-ec", "ES384")])
async def test_private_key_jwt_signs_for_a_token(
    set_stage: SetStage, sso: Sso, client_id: str, algorithm: str, form: str
) -> None:
    """With `private_key_jwt` the form holds a signed assertion that the SSO takes."""
    async with set_stage(sso, client_id) as stage:
        credential = {
            **sso.credential(client_id),
            "private_key_file": str(sso.keys.path(client_id, form)),
        }
        gateway = await stage.gateway(credentials={"default": credential})

        assert await statuses(gateway.url + METADATA, 1) == [200]

        [request] = stage.token_endpoint.requests
        fields = parse_qs(request.body.decode())
        assert set(fields) == {
            *("grant_type", "client_id", "client_assertion_type", "client_assertion")
        }
        assert "Authorization" not in request.headers
        head = fields["client_assertion"][0].partition(".")[0]
        assert json.loads(base64.urlsafe_b64decode(head + "=="))["alg"] == algorithm
        assert stage.guard.clients == [client_id]


REFUSALS = {
    "wrong secret": ("lab-post", {"client_secret": "wrong"}, "invalid_client", "client secret"),
    "unknown client": ("lab-post", {"client_id": "nobody"}, "invalid_client", "client_id"),
    "wrong method": (
        "lab-ec",
        {"auth_method": "client_secret_post", "client_secret": "a", "private_key_file": None},
        "invalid_client",
        "auth_method",
    ),
    "foreign key": ("lab-ec", {}, "invalid_client", "private key"),
    "key of another kind": ("lab-rsa", {}, "invalid_client", "private key"),
    "scope": ("lab-post", {"scope": "system/*.rs"}, "invalid_scope", "to check: scope"),
}


@pytest.mark.parametrize("case", REFUSALS)
async def test_a_refusal_names_what_to_check(
    set_stage: SetStage, sso: Sso, tmp_path: Path, case: str
) -> None:
    """What the SSO refuses is 502 `token-refused`, with its code and what to look at."""
    client_id, changes, code, words = REFUSALS[case]
    if not changes:
        file = tmp_path / "foreign.jwk"
        file.write_text(json.dumps(ec_key().as_dict(private=True)))
        changes = {"private_key_file": str(file)}
    async with set_stage(sso, client_id) as stage:
        credential = {**sso.credential(client_id), **changes}
        gateway = await stage.gateway(ready=False, credentials={"default": credential})

        async with (
            aiohttp.ClientSession() as session,
            session.get(gateway.url + METADATA) as answer,
        ):
            assert (answer.status, answer.headers["X-Gateway-Error"]) == (502, "token-refused")
            outcome = await answer.json(content_type="application/fhir+json")

        diagnostics = outcome["issue"][0]["diagnostics"]
        assert f"error {code}" in diagnostics
        assert words in diagnostics
        assert len(stage.token_endpoint.requests) == 1
        assert stage.platform.requests == []


async def test_a_refusal_is_an_outcome_for_every_client(
    stage: GuardedStage, fhir_kit: FhirKit
) -> None:
    """fhirpy and fhir-kit-client both show the OperationOutcome of a 502 `token-refused`."""
    credential = {**stage.settings["credentials"]["default"], "client_secret": "wrong"}
    gateway = await stage.gateway(ready=False, credentials={"default": credential})

    with pytest.raises(OperationOutcome) as refusal:
        await AsyncFHIRClient(gateway.url).get("Patient", "1")
    kit = await fhir_kit(gateway.url, "read", resourceType="Patient", id="1")

    assert refusal.value.resource["issue"][0]["code"] == "security"
    assert refusal.value.resource["issue"][0]["details"]["coding"][0]["code"] == "token-refused"
    assert kit["error"]["status"] == 502
    assert kit["error"]["body"]["resourceType"] == "OperationOutcome"


@pytest.mark.parametrize("client_id", ["lab-post", "lab-ec"])
async def test_short_lived_tokens_are_replaced_before_they_expire(
    set_stage: SetStage, start_sso: Callable[[int], Sso], client_id: str
) -> None:
    """With tokens of four seconds no request is ever refused, while the tokens change.

    The SSO takes no assertion twice, so that a client that signs makes a new one for each token.
    """
    async with set_stage(start_sso(4), client_id) as stage:
        gateway = await stage.gateway()
        while len(set(stage.guard.tokens)) < 3:
            assert await statuses(gateway.url + METADATA, 1) == [200]
            await asyncio.sleep(0.1)

        assert {one.status for one in stage.token_endpoint.requests} == {200}
        assert stage.platform.refusals == []


async def test_revoked_token_is_replaced_and_the_write_sent_again(
    stage: GuardedStage, fhir_kit: FhirKit
) -> None:
    """A 401 of the platform costs the caller nothing: a new token, and the POST once more."""
    gateway = await stage.gateway()
    assert await statuses(gateway.url + METADATA, 1) == [200]
    stage.guard.revoked.update(stage.guard.tokens)

    body = {"resourceType": "Patient", "name": [{"family": "Yusupova"}]}
    created = await fhir_kit(gateway.url, "create", resourceType="Patient", body=body)

    assert created["status"] == 201
    assert [(one.method, one.status) for one in stage.platform.requests[1:]] == [
        ("POST", 401),
        ("POST", 201),
    ]
    assert stage.platform.requests[1].body == stage.platform.requests[2].body
    assert stage.token_requests() == 2
