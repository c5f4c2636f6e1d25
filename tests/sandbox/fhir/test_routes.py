"""Reading and writing resources over HTTP as the national platform does it."""

from __future__ import annotations

import asyncio
import base64
from email.utils import parsedate_to_datetime

import pytest
from aiohttp import ClientSession
from yarl import URL

from tests.sandbox.harness import FHIR_JSON, NOBODY, OTHER_PATIENT, PATIENT, SandboxClient


async def test_a_request_without_a_token_is_refused(client: SandboxClient) -> None:
    answer = await client.ask("GET", client.sandbox.fhir_base_url + "/metadata")
    assert (answer.status, answer.issue["code"]) == (401, "login")
    assert answer.headers["WWW-Authenticate"] == 'Bearer realm="dhp-sandbox"'


@pytest.mark.parametrize("token", ["x", "a.b.c", "eyJhbGciOiJub25lIn0.e30."])
async def test_a_wrong_token_is_refused(client: SandboxClient, token: str) -> None:
    """What the SSO did not sign is an invalid token (RFC 6750 3.1)."""
    answer = await client.fhir("GET", "/metadata", headers={"Authorization": f"Bearer {token}"})
    assert (answer.status, answer.issue["code"]) == (401, "security")
    assert 'error="invalid_token"' in answer.headers["WWW-Authenticate"]


@pytest.mark.parametrize("value", ["Basic YTpi", "Bearer", "Bearer  "])
async def test_a_malformed_authorization_is_a_bad_request(
    client: SandboxClient, value: str
) -> None:
    """Anything but a bearer token is told apart from a wrong one (RFC 6750 3.1)."""
    answer = await client.fhir("GET", "/metadata", headers={"Authorization": value})
    assert answer.status == 400
    assert 'error="invalid_request"' in answer.headers["WWW-Authenticate"]


async def test_two_authorization_headers_are_a_bad_request(client: SandboxClient) -> None:
    await client.fhir("GET", "/metadata")
    headers = [("Authorization", f"Bearer {client.token}"), ("Authorization", "Basic YTpi")]
    url = client.sandbox.fhir_base_url + "/metadata"
    async with client.session.get(url, headers=headers) as response:
        assert response.status == 400


async def test_a_resource_is_read_with_its_version(client: SandboxClient) -> None:
    answer = await client.fhir("GET", f"/Patient/{PATIENT}")
    assert answer.status == 200
    assert answer.json["id"] == PATIENT
    assert answer.headers["ETag"] == 'W/"3"'
    assert answer.headers["Last-Modified"] == "Fri, 20 Nov 2026 04:12:00 GMT"
    assert answer.headers["Content-Type"] == "application/fhir+json; charset=utf-8"


async def test_head_is_get_without_the_body(client: SandboxClient) -> None:
    get = await client.fhir("GET", f"/Patient/{PATIENT}")
    head = await client.fhir("HEAD", f"/Patient/{PATIENT}")
    assert (head.status, head.body) == (200, b"")
    for name in ("ETag", "Content-Length", "Content-Type"):
        assert head.headers[name] == get.headers[name]


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        (f"/Patient/{NOBODY}", 404, "not-found"),
        ("/Patient/not-a-uuid", 400, "invalid"),
        (f"/Patient/{PATIENT.upper()}", 400, "invalid"),
        ("/Patient/a%2Fb", 400, "invalid"),
        (f"/Patient/{PATIENT}/_history/99", 404, "not-found"),
        (f"/Patient/{NOBODY}/_history", 404, "not-found"),
        ("/Pateint/1", 404, "not-supported"),
        ("/Pateint", 404, "not-supported"),
        ("/patient", 404, "not-found"),
        ("/", 405, "not-supported"),
        ("/Patient/1/2/3/4", 404, "not-found"),
        ("/Patient/$everything", 404, "not-supported"),
        (f"/Patient/{PATIENT}/$everything", 404, "not-supported"),
        ("/Patient/$validate", 404, "not-supported"),
    ],
)
async def test_unknown_paths_are_an_outcome(
    client: SandboxClient, path: str, status: int, code: str
) -> None:
    answer = await client.fhir("GET", path)
    assert (answer.status, answer.issue["code"]) == (status, code)
    assert answer.issue["severity"] == "error"


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("PATCH", f"/Patient/{PATIENT}", "DELETE, GET, PUT"),
        ("DELETE", "/Patient", "GET, POST"),
        ("GET", "/Patient/_search", "POST"),
        ("POST", "/metadata", "GET"),
        ("DELETE", f"/Consent/{PATIENT}", "GET, PUT"),
        ("PUT", f"/AuditEvent/{PATIENT}", "GET"),
        ("POST", "/Provenance", "GET"),
    ],
)
async def test_unsupported_methods_are_405_with_allow(
    client: SandboxClient, method: str, path: str, allow: str
) -> None:
    answer = await client.fhir(method, path)
    assert (answer.status, answer.issue["code"]) == (405, "not-supported")
    assert answer.headers["Allow"] == allow


async def test_a_create_assigns_id_and_version(client: SandboxClient) -> None:
    body = {"resourceType": "Patient", "id": "mine", "meta": {"versionId": "7", "source": "urn:x"}}
    answer = await client.fhir("POST", "/Patient", body=body)
    created = answer.json
    assert answer.status == 201
    assert created["id"] != "mine"
    assert answer.headers["Location"] == (
        f"{client.sandbox.fhir_base_url}/Patient/{created['id']}/_history/1"
    )
    assert answer.headers["ETag"] == 'W/"1"'
    moment = parsedate_to_datetime(answer.headers["Last-Modified"]).timestamp()
    assert moment == int(client.clock.wall())
    assert created["meta"]["versionId"] == "1"
    assert created["meta"]["source"] == "urn:x"
    assert (await client.fhir("GET", answer.headers["Location"])).json == created


@pytest.mark.parametrize(
    ("preference", "resource_type"),
    [("minimal", None), ("representation", "Patient"), ("OperationOutcome", "OperationOutcome")],
)
async def test_prefer_return(
    client: SandboxClient, preference: str, resource_type: str | None
) -> None:
    headers = {"Prefer": f"respond-async; wait=1, return={preference}"}
    answer = await client.fhir(
        "POST", "/Patient", body={"resourceType": "Patient"}, headers=headers
    )
    assert answer.status == 201
    assert answer.headers["ETag"] == 'W/"1"'
    assert (answer.json["resourceType"] if answer.body else None) == resource_type


async def test_decimals_keep_their_digits(client: SandboxClient) -> None:
    numbers = [
        b"1.10",
        b"0.00",
        b"-0",
        b"2E+3",
        b"0.1234567890123456789012",
        b"12345678901234567890",
    ]
    items = b",".join(
        b'{"url":"urn:x","valueQuantity":{"value":%s,"unit":"g"}}' % number for number in numbers
    )
    body = b'{"resourceType":"Patient","extension":[' + items + b"]}"
    created = await client.fhir("POST", "/Patient", body=body)
    assert created.status == 201, created.body
    for answer in (created, await client.fhir("GET", f"/Patient?_id={created.json['id']}")):
        for number in numbers:
            assert b'"value":' + number + b',"unit"' in answer.body


async def test_the_order_of_elements_is_kept(client: SandboxClient) -> None:
    body = b'{"gender":"male","resourceType":"Patient","active":true,"birthDate":"1990-01-01"}'
    answer = await client.fhir("POST", "/Patient", body=body)
    assert list(answer.json) == ["resourceType", "id", "meta", "gender", "active", "birthDate"]


async def test_an_update_makes_the_next_version(client: SandboxClient) -> None:
    id_ = await client.create(active=True)
    changed = {"resourceType": "Patient", "id": id_, "active": False}
    answer = await client.fhir(
        "PUT", f"/Patient/{id_}", body=changed, headers={"If-Match": 'W/"1"'}
    )
    assert (answer.status, answer.headers["ETag"]) == (200, 'W/"2"')
    assert "Location" not in answer.headers
    assert (await client.fhir("GET", f"/Patient/{id_}")).json["active"] is False
    old = await client.fhir("GET", f"/Patient/{id_}/_history/1")
    assert (old.json["active"], old.headers["ETag"]) == (True, 'W/"1"')


@pytest.mark.parametrize("if_match", [None, 'W/"9"', 'W/"11"', "1", ""])
async def test_an_update_without_the_current_version_is_refused(
    client: SandboxClient, if_match: str | None
) -> None:
    id_ = await client.create(active=True)
    headers = {} if if_match is None else {"If-Match": if_match}
    body = {"resourceType": "Patient", "id": id_, "active": False}
    answer = await client.fhir("PUT", f"/Patient/{id_}", body=body, headers=headers)
    assert answer.status == 412
    assert answer.issue["code"] == "invalid"
    assert answer.issue["details"] == {"text": "Version is mismatch"}
    assert (await client.fhir("GET", f"/Patient/{id_}")).headers["ETag"] == 'W/"1"'


async def test_one_of_two_concurrent_updates_is_rejected(client: SandboxClient) -> None:
    id_ = await client.create()
    body = {"resourceType": "Patient", "id": id_, "active": True}
    update = {"body": body, "headers": {"If-Match": 'W/"1"'}}
    answers = await asyncio.gather(
        client.fhir("PUT", f"/Patient/{id_}", **update),
        client.fhir("PUT", f"/Patient/{id_}", **update),
    )
    assert sorted(answer.status for answer in answers) == [200, 412]


async def test_strong_tags_and_lists_match_too(client: SandboxClient) -> None:
    id_ = await client.create()
    body = {"resourceType": "Patient", "id": id_}
    headers = {"If-Match": 'W/"7", "1"'}
    assert (await client.fhir("PUT", f"/Patient/{id_}", body=body, headers=headers)).status == 200


@pytest.mark.parametrize(
    ("id_", "body_id", "status"),
    [(PATIENT, None, 400), (PATIENT, OTHER_PATIENT, 400), (NOBODY, NOBODY, 404)],
    ids=["no id in the body", "another id in the body", "of nothing that exists"],
)
async def test_an_update_needs_an_existing_resource_and_its_id(
    client: SandboxClient, id_: str, body_id: str | None, status: int
) -> None:
    body = {"resourceType": "Patient"} | ({"id": body_id} if body_id else {})
    answer = await client.fhir("PUT", f"/Patient/{id_}", body=body, headers={"If-Match": 'W/"3"'})
    assert (answer.status, answer.issue["severity"]) == (status, "error")


async def test_a_deleted_resource_is_410(client: SandboxClient) -> None:
    id_ = await client.create()
    deleted = await client.fhir("DELETE", f"/Patient/{id_}")
    assert (deleted.status, deleted.issue["severity"]) == (200, "information")
    for path, status in (("", 410), ("/_history/2", 410), ("/_history/1", 200)):
        assert (await client.fhir("GET", f"/Patient/{id_}{path}")).status == status
    answer = await client.fhir("GET", f"/Patient/{id_}")
    assert (answer.issue["code"], answer.headers["ETag"]) == ("deleted", 'W/"2"')
    assert await client.found(f"/Patient?_id={id_}") == []


async def test_a_second_delete_succeeds(client: SandboxClient) -> None:
    id_ = await client.create()
    for _ in range(2):
        assert (await client.fhir("DELETE", f"/Patient/{id_}")).status == 200
    assert (await client.fhir("GET", f"/Patient/{id_}/_history")).json["total"] == 2
    assert (await client.fhir("DELETE", f"/Patient/{NOBODY}")).status == 404


async def test_a_delete_with_a_stale_if_match_is_rejected(client: SandboxClient) -> None:
    id_ = await client.create()
    headers = {"If-Match": 'W/"2"'}
    assert (await client.fhir("DELETE", f"/Patient/{id_}", headers=headers)).status == 412
    assert (await client.fhir("GET", f"/Patient/{id_}")).status == 200


async def test_a_deleted_resource_cannot_be_updated(client: SandboxClient) -> None:
    id_ = await client.create()
    await client.fhir("DELETE", f"/Patient/{id_}")
    body = {"resourceType": "Patient", "id": id_}
    headers = {"If-Match": 'W/"2"'}
    assert (await client.fhir("PUT", f"/Patient/{id_}", body=body, headers=headers)).status == 410


async def test_a_conditional_create_returns_the_match(lenient: SandboxClient) -> None:
    body = {"resourceType": "Patient", "identifier": [{"system": "urn:s", "value": "v1"}]}
    headers = {"If-None-Exist": "identifier=urn:s%7Cv1"}
    first = await lenient.fhir("POST", "/Patient", body=body, headers=headers)
    second = await lenient.fhir("POST", "/Patient", body=body, headers=headers)
    assert (first.status, second.status) == (201, 200)
    assert second.headers["Location"] == first.headers["Location"]
    assert second.json == first.json


async def test_an_ambiguous_or_invalid_condition_is_rejected(lenient: SandboxClient) -> None:
    body = {"resourceType": "Patient"}
    for condition, status in (
        ("active=true", 412),
        ("active=true&colour=red", 400),
        ("colour=red", 400),
        ("?", 400),
    ):
        headers = {"If-None-Exist": condition}
        answer = await lenient.fhir("POST", "/Patient", body=body, headers=headers)
        assert answer.status == status, condition


@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [
        (b"<Patient/>", "application/fhir+xml", 415),
        (b"a=b", "application/x-www-form-urlencoded", 415),
        (b"{", FHIR_JSON, 400),
        (b"[]", FHIR_JSON, 400),
        (b'"x"', FHIR_JSON, 400),
        (b"\xff", FHIR_JSON, 400),
        (b"", FHIR_JSON, 400),
        (b'{"resourceType":"Patient","active":true,"active":false}', FHIR_JSON, 400),
        (b'{"resourceType":"Patient","x":NaN}', FHIR_JSON, 400),
        (b'{"resourceType":"Patient","x":"\\ud800"}', FHIR_JSON, 400),
        (b'{"resourceType":"Patient","x":1e999999999999999999999}', FHIR_JSON, 400),
        (b"[" * 100000, FHIR_JSON, 400),
        (b'{"x":' * 300 + b"1" + b"}" * 300, FHIR_JSON, 400),
        (b'{"resourceType":"Observation"}', FHIR_JSON, 400),
        (b'{"active":true}', FHIR_JSON, 400),
    ],
)
async def test_invalid_bodies_are_rejected(
    client: SandboxClient, body: bytes, content_type: str, status: int
) -> None:
    headers = {"Content-Type": content_type}
    answer = await client.fhir("POST", "/Patient", body=body, headers=headers)
    assert (answer.status, answer.issue["severity"]) == (status, "error")


@pytest.mark.parametrize(
    "content_type", ["application/json", "application/fhir+json;fhirVersion=5.0"]
)
async def test_json_media_types_are_accepted(client: SandboxClient, content_type: str) -> None:
    headers = {"Content-Type": content_type}
    body = b'{"resourceType":"Patient"}'
    assert (await client.fhir("POST", "/Patient", body=body, headers=headers)).status == 201


@pytest.mark.parametrize(
    ("query", "accept", "status"),
    [
        ("", "application/fhir+xml", 406),
        ("", "application/fhir+json;q=0, application/xml", 406),
        ("", "text/html", 406),
        ("_format=xml", "application/fhir+json", 406),
        ("_format=application/fhir%2Bxml", "*/*", 406),
        ("", "application/fhir+xml, */*;q=0.1", 200),
        ("", "application/json", 200),
        ("_format=json", "application/fhir+xml", 200),
        ("_format=application/fhir+json", "application/fhir+xml", 200),
        ("_format=application/fhir%2Bjson", "application/fhir+xml", 200),
    ],
)
async def test_other_formats_are_406(
    client: SandboxClient, query: str, accept: str, status: int
) -> None:
    for path in (f"/Patient/{PATIENT}", "/Patient", "/metadata"):
        answer = await client.fhir("GET", f"{path}?{query}", headers={"Accept": accept})
        assert answer.status == status
        assert answer.headers["Content-Type"].startswith(FHIR_JSON)


async def test_pretty_adds_line_breaks_only(client: SandboxClient) -> None:
    plain = await client.fhir("GET", f"/Patient/{PATIENT}")
    pretty = await client.fhir("GET", f"/Patient/{PATIENT}?_pretty=true")
    assert pretty.body.count(b"\n") > 50 > plain.body.count(b"\n")
    assert pretty.json == plain.json


async def test_a_binary_is_returned_in_its_media_type(client: SandboxClient) -> None:
    headers = {"Content-Type": "text/plain; charset=utf-8"}
    created = await client.fhir("POST", "/Binary", body=b"Salom", headers=headers)
    path = f"/Binary/{created.json['id']}"
    file = await client.fhir("GET", path, headers={"Accept": "*/*"})
    resource = await client.fhir("GET", path, headers={"Accept": FHIR_JSON})
    assert created.status == 201
    assert (file.body, file.headers["Content-Type"]) == (b"Salom", "text/plain; charset=utf-8")
    assert (file.headers["ETag"], file.headers["Content-Security-Policy"]) == ('W/"1"', "sandbox")
    assert base64.b64decode(resource.json["data"]) == b"Salom"
    assert (await client.fhir("GET", f"{path}?_format=xml")).status == 406


async def test_a_binary_can_be_created_as_a_resource(client: SandboxClient) -> None:
    body = {"resourceType": "Binary", "contentType": "text/plain", "data": "YQ=="}
    created = await client.fhir("POST", "/Binary", body=body)
    answer = await client.fhir("GET", f"/Binary/{created.json['id']}", headers={"Accept": "text/*"})
    assert answer.body == b"a"


async def test_links_of_the_examples_resolve(client: SandboxClient) -> None:
    report = (await client.fhir("GET", "/DiagnosticReport")).json["entry"][0]["resource"]
    file = await client.fhir("GET", report["presentedForm"][0]["url"])
    patient = await client.fhir("GET", report["subject"]["reference"])
    assert file.body.startswith(b"%PDF")
    assert patient.json["id"] == PATIENT


async def test_a_large_body_is_413(client: SandboxClient) -> None:
    await client.fhir("GET", "/metadata")

    async def endless():  # type: ignore[no-untyped-def]
        for _ in range(65):
            yield bytes(1024 * 1024)

    headers = {"Authorization": f"Bearer {client.token}", "Content-Type": FHIR_JSON}
    url = URL(client.sandbox.fhir_base_url + "/Patient")
    async with (
        ClientSession() as session,
        session.post(url, data=endless(), headers=headers) as response,
    ):
        assert response.status == 413
        assert (await response.json(content_type=None))["issue"][0]["code"] == "too-long"
