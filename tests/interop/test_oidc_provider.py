"""The gateway gets its tokens from oidc-provider, an OpenID-certified server."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from urllib.parse import parse_qs

import aiohttp
import pytest
from fhirpy import AsyncFHIRClient
from fhirpy.base.exceptions import OperationOutcome

from tests.interop.stages import FhirKit, GuardedStage, SetStage, Sso, ec_key

METADATA = "/metadata"


@pytest.mark.parametrize("form", ["pkcs8", "traditional", "jwk"])
@pytest.mark.parametrize(("client_id", "algorithm"), [("lab-rsa", "RS384"), ("lab-ec", "ES384")])
async def test_private_key_jwt_with_every_key_format(
    set_stage: SetStage, sso: Sso, client_id: str, algorithm: str, form: str
) -> None:
    async with set_stage(sso, client_id) as stage:
        credential = {
            **sso.credential(client_id),
            "private_key_file": str(sso.keys.path(client_id, form)),
        }
        gateway = await stage.gateway(credentials={"default": credential})

        async with aiohttp.request("GET", gateway.url + METADATA) as answer:
            assert answer.status == 200

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
async def test_each_rejection_names_what_to_check(
    set_stage: SetStage, sso: Sso, tmp_path: Path, case: str
) -> None:
    client_id, changes, code, words = REFUSALS[case]
    if not changes:
        file = tmp_path / "foreign.jwk"
        file.write_text(json.dumps(ec_key().as_dict(private=True)))
        changes = {"private_key_file": str(file)}
    async with set_stage(sso, client_id) as stage:
        credential = {**sso.credential(client_id), **changes}
        gateway = await stage.gateway(ready=False, credentials={"default": credential})

        async with aiohttp.request("GET", gateway.url + METADATA) as answer:
            assert (answer.status, answer.headers["X-Gateway-Error"]) == (502, "token-refused")
            outcome = await answer.json(content_type="application/fhir+json")

        diagnostics = outcome["issue"][0]["diagnostics"]
        assert f"error {code}" in diagnostics
        assert words in diagnostics
        assert len(stage.token_endpoint.requests) == 1
        assert stage.platform.requests == []


async def test_clients_show_the_outcome_of_a_rejection(
    stage: GuardedStage, fhir_kit: FhirKit
) -> None:
    credential = {**stage.settings["credentials"]["default"], "client_secret": "wrong"}
    gateway = await stage.gateway(ready=False, credentials={"default": credential})

    with pytest.raises(OperationOutcome) as refusal:
        await AsyncFHIRClient(gateway.url).get("Patient", "1")
    kit = await fhir_kit(gateway.url, "read", resourceType="Patient", id="1")

    assert refusal.value.resource["issue"][0]["code"] == "security"
    assert refusal.value.resource["issue"][0]["details"]["coding"][0]["code"] == "token-refused"
    assert kit["error"]["status"] == 502
    assert kit["error"]["body"]["resourceType"] == "OperationOutcome"
