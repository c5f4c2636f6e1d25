"""The line that is said about each request, and the counters."""

from __future__ import annotations

import pytest

from tests.sandbox.harness import CREDENTIALS, NOBODY, Trial


async def test_a_request_is_one_line(given: Trial) -> None:
    """Method, path, status and whose token it was, with what is left of it."""
    await given.fhir("GET", "/metadata")
    given.clock.now += 3
    await given.fhir("GET", f"/Patient/{NOBODY}")
    assert given.lines == [
        "sso       POST /oauth/token 200  client hospital-demo, client_credentials",
        "platform  GET /fhir/metadata 200  "
        "bearer token: yes (sub=hospital-demo, expires in 3600 s)",
        f"platform  GET /fhir/Patient/{NOBODY} 404  "
        "bearer token: yes (sub=hospital-demo, expires in 3597 s)",
    ]


async def test_values_secrets_and_tokens_are_never_said(given: Trial) -> None:
    """Of a query only the names; nothing of a token, a secret or a body."""
    await given.fhir("GET", "/Patient?name=Namunaliyeva&_count=7")
    await given.fhir("POST", "/Patient", body={"resourceType": "Patient", "language": "xyz"})
    await given.ask_token({**CREDENTIALS, "client_id": "stranger", "client_secret": "hush"})
    said = "\n".join(given.lines)
    assert "?name=…&_count=… 200" in said
    assert "invalid_client" in said
    for word in ("Namunaliyeva", "=7", "xyz", "hush", "sandbox-secret", "stranger"):
        assert word not in said
    assert given.token not in said


@pytest.mark.parametrize(
    ("authorization", "note"),
    [
        (None, "bearer token: none"),
        ("Bearer abc", "bearer token: refused (not a token of this SSO)"),
        ("Basic abc", "bearer token: malformed"),
    ],
)
async def test_a_missing_token_is_said(given: Trial, authorization: str | None, note: str) -> None:
    """Why a request was refused stands on its line."""
    headers = {"Authorization": authorization} if authorization else {}
    await given.ask("GET", given.sandbox.fhir_base_url + "/Patient", headers=headers)
    assert given.lines[-1].endswith(note)


async def test_a_line_cannot_be_forged_by_a_path(given: Trial) -> None:
    """Escaped line breaks in a path or a query stay escaped."""
    await given.fhir("GET", "/Patient/a%0Ab?x%0Ay=1")
    assert "/fhir/Patient/a%0Ab?x%0Ay=… 400" in given.lines[-1]


async def test_unknown_paths_are_said_too(given: Trial) -> None:
    """A path of neither side is 404, with its line."""
    origin = given.sandbox.token_url.removesuffix("/oauth/token")
    assert (await given.ask("GET", f"{origin}/fhirx")).status == 404
    assert given.lines == ["sso       GET /fhirx 404"]
