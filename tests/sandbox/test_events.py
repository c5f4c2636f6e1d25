"""The line printed for each request, and the counters."""

from __future__ import annotations

import pytest

from tests.sandbox.harness import CREDENTIALS, NOBODY, SandboxClient


async def test_each_request_is_one_line(client: SandboxClient) -> None:
    await client.fhir("GET", "/metadata")
    client.clock.now += 3
    await client.fhir("GET", f"/Patient/{NOBODY}")
    assert client.lines == [
        "sso       POST /oauth/token 200  client hospital-demo, client_credentials",
        "platform  GET /fhir/metadata 200  "
        "bearer token: yes (sub=hospital-demo, expires in 3600 s)",
        f"platform  GET /fhir/Patient/{NOBODY} 404  "
        "bearer token: yes (sub=hospital-demo, expires in 3597 s)",
    ]


async def test_values_secrets_and_tokens_are_not_printed(client: SandboxClient) -> None:
    await client.fhir("GET", "/Patient?name=Namunaliyeva&_count=7")
    await client.fhir("POST", "/Patient", body={"resourceType": "Patient", "language": "xyz"})
    await client.ask_token({**CREDENTIALS, "client_id": "stranger", "client_secret": "hush"})
    said = "\n".join(client.lines)
    assert "?name=…&_count=… 200" in said
    assert "invalid_client" in said
    for word in ("Namunaliyeva", "=7", "xyz", "hush", "sandbox-secret", "stranger"):
        assert word not in said
    assert client.token not in said


@pytest.mark.parametrize(
    ("authorization", "note"),
    [
        (None, "bearer token: none"),
        ("Bearer abc", "bearer token: refused (not a token of this SSO)"),
        ("Basic abc", "bearer token: malformed"),
    ],
)
async def test_a_missing_or_invalid_token_is_printed(
    client: SandboxClient, authorization: str | None, note: str
) -> None:
    headers = {"Authorization": authorization} if authorization else {}
    answer = await client.ask("GET", client.sandbox.fhir_base_url + "/Patient", headers=headers)
    assert answer.status == (400 if note.endswith("malformed") else 401)
    assert client.lines[-1].endswith(note)


async def test_line_breaks_in_a_path_stay_escaped(client: SandboxClient) -> None:
    await client.fhir("GET", "/Patient/a%0Ab?x%0Ay=1")
    assert "/fhir/Patient/a%0Ab?x%0Ay=… 400" in client.lines[-1]


async def test_unknown_paths_are_printed(client: SandboxClient) -> None:
    origin = client.sandbox.token_url.removesuffix("/oauth/token")
    assert (await client.ask("GET", f"{origin}/fhirx")).status == 404
    assert client.lines == ["sso       GET /fhirx 404"]
