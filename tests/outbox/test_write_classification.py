"""What may be queued, in which orders, and what may be done after an unclear failure."""

from __future__ import annotations

import pytest

from gateway.outbox.entry import ALL_KEYS, RecoveryMode
from gateway.outbox.write_classification import (
    WriteClassification,
    WriteDescription,
    classify_write,
    prefers_async,
    remove_async_preference,
)
from tests.fhir.bodies import spelled_out

OBSERVATION = b"""{"resourceType": "Observation", "status": "final",
  "subject": {"reference": "Patient/5"}, "encounter": {"reference": "Encounter/e1"}}"""
IDENTIFIED = OBSERVATION[:-1] + b', "identifier": [{"system": "urn:lab", "value": "77"}]}'


def classified(
    code: str, path: str, body: bytes = b"", query: str = "", **more: str
) -> WriteClassification:
    found = classify_write(
        WriteDescription(code, path, query, body, more.get("kind"), more.get("if_none_exist"))
    )
    assert found is not None
    return found


@pytest.mark.parametrize("code", ["read", "search-type", "operation", "other", "capabilities"])
def test_only_writes_are_queued(code: str) -> None:
    assert classify_write(WriteDescription(code, "/Patient/5")) is None


@pytest.mark.parametrize(
    ("code", "path", "body", "query", "if_none_exist", "recovery"),
    [
        ("update", "/Observation/1", OBSERVATION, "", None, RecoveryMode.RESEND),
        ("delete", "/Observation/1", b"", "", None, RecoveryMode.RESEND),
        ("create", "/Observation", OBSERVATION, "", "identifier=a|1", RecoveryMode.VERIFY),
        ("create", "/Observation", OBSERVATION, "", "", RecoveryMode.HOLD),
        ("create", "/Observation", IDENTIFIED, "", None, RecoveryMode.VERIFY),
        ("create", "/Observation", OBSERVATION, "", None, RecoveryMode.HOLD),
        ("update", "/Observation", IDENTIFIED, "identifier=urn:lab|77", None, RecoveryMode.VERIFY),
        ("delete", "/Observation", b"", "identifier=urn:lab|77", None, RecoveryMode.HOLD),
        ("patch", "/Observation/1", b"[]", "", None, RecoveryMode.HOLD),
        ("create", "/Binary", b"%PDF", "", None, RecoveryMode.HOLD),
        ("update", "/Binary/1", b"%PDF", "", None, RecoveryMode.RESEND),
    ],
)
def test_the_recovery_of_each_write(
    code: str, path: str, body: bytes, query: str, if_none_exist: str | None, recovery: RecoveryMode
) -> None:
    found = classify_write(WriteDescription(code, path, query, body, None, if_none_exist))
    assert found is not None
    assert found.recovery is recovery


def bundle(*requests: str) -> bytes:
    entries = ",".join(
        f'{{"request": {each}, "resource": {OBSERVATION.decode()}}}' for each in requests
    )
    return f'{{"resourceType": "Bundle", "type": "transaction", "entry": [{entries}]}}'.encode()


PUT = '{"method": "PUT", "url": "Observation/1"}'
DELETE = '{"method": "DELETE", "url": "Condition/2"}'
CONDITIONAL = '{"method": "POST", "url": "Observation", "ifNoneExist": "identifier=a|1"}'
POST = '{"method": "POST", "url": "Observation"}'
GET = '{"method": "GET", "url": "Patient/7"}'


@pytest.mark.parametrize(
    ("requests", "recovery"),
    [
        ((PUT, DELETE, GET), RecoveryMode.RESEND),
        ((PUT, DELETE, CONDITIONAL, GET), RecoveryMode.VERIFY),
        ((CONDITIONAL, POST), RecoveryMode.HOLD),
        ((PUT, POST), RecoveryMode.HOLD),
        (('{"method": "PATCH", "url": "Observation/1"}',), RecoveryMode.HOLD),
        (('{"method": "PUT", "url": "Observation?identifier=a"}',), RecoveryMode.HOLD),
    ],
)
def test_the_recovery_of_a_bundle_is_that_of_its_worst_entry(
    requests: tuple[str, ...], recovery: RecoveryMode
) -> None:
    assert classified("transaction", "", bundle(*requests)).recovery is recovery


def test_a_bundle_of_reads_is_not_queued() -> None:
    assert classify_write(WriteDescription("batch", "", body=bundle(GET))) is None


def test_every_patient_is_an_ordering_key() -> None:
    assert classified("update", "/Observation/1", OBSERVATION).ordering_keys == {
        "Observation/1",
        "Patient/5",
    }
    assert classified("delete", "/Observation/1").ordering_keys == {"Observation/1"}
    assert classified("delete", "/Patient/8/").ordering_keys == {"Patient/8"}
    assert (
        "Patient/9"
        in classified("delete", "/Observation", query="subject=Patient%2F9").ordering_keys
    )
    assert "Patient/9" in classified("delete", "/Observation", query="patient=9").ordering_keys
    assert classified(
        "delete", "/Observation", query="patient.identifier=urn:pinfl%7C3"
    ).ordering_keys == {"Patient?identifier=urn:pinfl|3"}
    found = classified("transaction", "", bundle(PUT, DELETE, GET)).ordering_keys
    assert found >= {"Patient/5", "Observation/1", "Condition/2", "Patient/7"}


def test_logical_references_are_ordering_keys() -> None:
    body = (
        b'{"resourceType": "Observation", "subject": {"identifier": {"system": "s", "value": "1"}},'
        b'"performer": [{"type": "Organization", "identifier": {"value": "2"}}]}'
    )
    assert classified("create", "/Observation", body).ordering_keys == {"Patient?identifier=s|1"}


def test_a_search_by_identifier_shares_a_key_with_the_resource() -> None:
    create = classified("create", "/Observation", IDENTIFIED).ordering_keys
    for query in ("identifier=urn:lab|77", "identifier=77"):
        assert classified("delete", "/Observation", query=query).ordering_keys & create


def test_xml_has_the_same_ordering_keys() -> None:
    xml = (
        b'<Observation xmlns="http://hl7.org/fhir"><identifier><system value="urn:lab"/>'
        b'<value value="77"/></identifier><subject><reference value="Patient/5"/></subject>'
        b"</Observation>"
    )
    found = classified("create", "/Observation", xml, kind="application/fhir+xml")
    assert found == classified("create", "/Observation", IDENTIFIED)


def empty(*requests: str) -> bytes:
    entries = ",".join(f'{{"request": {each}}}' for each in requests)
    return f'{{"resourceType": "Bundle", "type": "batch", "entry": [{entries}]}}'.encode()


def references(count: int) -> bytes:
    each = ",".join(f'{{"reference":"Patient/{n}"}}' for n in range(count))
    return f'{{"resourceType":"Observation","performer":[{each}]}}'.encode()


@pytest.mark.parametrize(
    ("code", "path", "body"),
    [
        ("create", "/Observation", references(80_000)),
        (
            "create",
            "/Observation",
            b'{"a":"%s"}' % b" ".join(b"Patient/%d" % n for n in range(3000)),
        ),
        ("create", "/Observation", b'{"a":"%s"}' % (b"Patient/5 " * 70_000)),
        ("create", "/Observation", b'{"a":"Patient?' + b"a=1&" * 50_000 + b'"}'),
        ("create", "/Observation", b'{"a":"Patient?identifier=' + b"1," * 50_000 + b'"}'),
        (
            "batch",
            "",
            bundle(*(f'{{"method":"PUT","url":"Observation/{n}"}}' for n in range(3000))),
        ),
        ("batch", "", empty(*(f'{{"method":"POST","url":"T{n}"}}' for n in range(3000)))),
        ("batch", "", bundle('{"method":"DELETE","url":"T?%s"}' % ("a=1&" * 50_000))),
    ],
    ids=["references", "in-one-text", "again", "query", "list", "entries", "types", "url"],
)
def test_too_many_keys_become_all_keys(code: str, path: str, body: bytes) -> None:
    assert classified(code, path, body).ordering_keys == ALL_KEYS


def test_some_dozens_of_patients_keep_their_keys() -> None:
    assert len(classified("create", "/Observation", references(60)).ordering_keys) == 60


def test_without_references_the_type_is_the_key() -> None:
    body = b'{"resourceType": "Organization", "name": "Clinic"}'
    assert classified("create", "/Organization", body).ordering_keys == {"Organization"}


@pytest.mark.parametrize(
    ("code", "path", "query", "body"),
    [
        ("delete", "/Observation", "code=1234", b""),
        ("delete", "", "_type=Observation", b""),
        ("create", "/Observation", "", b"not FHIR"),
        ("create", "/Observation", "", b"[" * 900 + b"]" * 900 + b"x"),
    ],
)
def test_a_write_without_known_keys_is_not_queued(
    code: str, path: str, query: str, body: bytes
) -> None:
    """It would be unknown which writes must not overtake it."""
    assert classify_write(WriteDescription(code, path, query, body)) is None


def test_an_escaped_body_is_classified_alike() -> None:
    request = b'{"method": "POST", "url": "Observation", "ifNoneExist": "identifier=a|1"}'
    entry = b'{"resource": %s, "request": %s}' % (IDENTIFIED, request)
    bundle = b'{"resourceType": "Bundle", "type": "transaction", "entry": [%s]}' % entry
    for code, path, body in (
        ("create", "/Observation", IDENTIFIED),
        ("update", "/Observation/1", OBSERVATION),
        ("transaction", "", bundle),
    ):
        assert classified(code, path, spelled_out(body)) == classified(code, path, body)


PREFERENCES = [
    (b"respond-async", b""),
    (b"respond-async,respond-async", b""),
    (b'RESPOND-ASYNC = ""', b""),
    (b"respond-async=", b""),
    (b"return=minimal, Respond-Async; wait=3", b"return=minimal"),
    (b"return=minimal, respond-async, handling=strict", b"return=minimal, handling=strict"),
    (b"respond-async,return=minimal;x=1 ,  wait=10", b"return=minimal;x=1 ,  wait=10"),
    (b'note="a, respond-async, b" , respond-async', b'note="a, respond-async, b"'),
    (b'note="\\", respond-async" , respond-async', b'note="\\", respond-async"'),
]


@pytest.mark.parametrize(("prefer", "others"), PREFERENCES)
def test_respond_async_is_removed_from_a_list(prefer: bytes, others: bytes) -> None:
    assert prefers_async(prefer)
    assert remove_async_preference(prefer) == others


@pytest.mark.parametrize(
    "prefer",
    [
        *(b"return=minimal", b"respond-asynchronous", b"x=respond-async", b"respond-async=no", b""),
        *(b'note=", respond-async, "', b'note="a, respond-async'),
    ],
)
def test_similar_preferences_are_kept(prefer: bytes) -> None:
    assert not prefers_async(prefer)
    assert remove_async_preference(prefer) == prefer
