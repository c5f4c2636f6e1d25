"""What masking removes from texts, and what it keeps."""

from __future__ import annotations

import pytest

from gateway.secret import Secret
from gateway.telemetry.log_masking import mask, mask_field, mask_text

JWT = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJob3NwaXRhbCJ9.c2lnbmF0dXJl"


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("PINFL 30101901234567.", "PINFL ***."),
        ("Patient/30101901234567", "Patient/***"),
        ("pinfl_30101901234567", "pinfl_***"),
        ("identifier=http%3A%2F%2Fx%7C30101901234567", "identifier=http%3A%2F%2Fx%7C***"),
        ("passport AA1234567, valid", "passport ***, valid"),
        ("Authorization: Bearer abc.DEF-123_x", "Authorization: Bearer ***"),
        ("authorization: bearer abc", "authorization: bearer ***"),
        ("Basic aG9zcGl0YWw6czNjcjN0", "Basic ***"),
        (f"token {JWT} was refused", "token *** was refused"),
        (JWT.rpartition(".")[0] + ".", "***"),
        ("client_secret=s3cr3t&grant_type=x", "client_secret=***&grant_type=x"),
        (
            '{"access_token": "opaque", "expires_in": 300}',
            '{"access_token": "***", "expires_in": 300}',
        ),
        ("{'refresh_token': 'opaque'}", "{'refresh_token': '***'}"),
        ("GET http://h/fhir/Patient?name=Aliev&birthdate=1990", "GET http://h/fhir/Patient?***"),
        ("GET /fhir/Patient?family:exact=Aliev HTTP/1.1", "GET /fhir/Patient?*** HTTP/1.1"),
        ("proxy http://user:pass@proxy:3128/", "proxy http://***@proxy:3128/"),
    ],
)
def test_masks_patient_numbers_credentials_tokens_and_query_values(text, masked):
    assert mask_text(text) == masked


@pytest.mark.parametrize(
    "text",
    [
        "request 4bf92f3577b34da6a3ce929d0e0e4736 took 12 ms",
        "id a30101901234567b",
        "at 1767225600125",
        "70101901234567",
        "301019012345678",
        "Basic authentication is configured",
        "what is wrong? nothing",
        "credentials.default.client_secret: field required",
        "https://sso.medcore.uz/oauth/token",
        "AAA1234567",
    ],
)
def test_keeps_request_ids_times_and_longer_numbers(text):
    assert mask_text(text) == text


def test_masks_inside_structures():
    """Lists, mappings, their keys, numbers, octets and other objects."""
    value = {
        "list": ["Bearer abc", ("AA1234567",)],
        "AA1234567": 30101901234567,
        "error": ValueError("PINFL 30101901234567"),
        "secret": Secret("s3cr3t"),
        "raw": b"Bearer abc",
        "kept": [1, 2.5, None, True],
    }
    assert mask(value) == {
        "list": ["Bearer ***", ["***"]],
        "***": "***",
        "error": "PINFL ***",
        "secret": "********",
        "raw": "b'Bearer ***'",
        "kept": [1, 2.5, None, True],
    }


def test_masks_a_structure_that_contains_itself():
    endless: list[object] = ["Bearer abc"]
    endless.append(endless)
    assert "abc" not in str(mask(endless))


@pytest.mark.parametrize("name", ["client_secret", "Authorization", "access_token", "password"])
def test_a_value_under_the_name_of_a_secret_is_masked(name):
    """At any depth."""
    assert mask_field(name, "opaque") == "***"
    assert mask({"headers": {name: ["opaque"]}}) == {"headers": {name: "***"}}
