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


def judged(
    code: str, path: str, body: bytes = b"", query: str = "", **more: str
) -> WriteClassification:
    """The judgement of a write that may be queued."""
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
def test_only_what_does_no_harm_twice_is_repeated(
    code: str, path: str, body: bytes, query: str, if_none_exist: str | None, recovery: RecoveryMode
) -> None:
    """PUT and DELETE by id; what has a condition or an identifier is asked for first."""
    found = classify_write(WriteDescription(code, path, query, body, None, if_none_exist))
    assert found is not None
    assert found.recovery is recovery


def bundle(*requests: str) -> bytes:
    """A transaction of these requests, each with an Observation."""
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
def test_a_bundle_is_as_safe_as_its_entries(
    requests: tuple[str, ...], recovery: RecoveryMode
) -> None:
    """One entry that must not be done twice is enough."""
    assert judged("transaction", "", bundle(*requests)).recovery is recovery


def test_a_bundle_of_reads_is_a_read() -> None:
    """A batch of nothing but GETs is never queued."""
    assert classify_write(WriteDescription("batch", "", body=bundle(GET))) is None


def test_every_patient_is_an_order() -> None:
    """Those in path, query, references, identifiers, Bundle entries, and the resource itself."""
    assert judged("update", "/Observation/1", OBSERVATION).ordering_keys == {
        "Observation/1",
        "Patient/5",
    }
    assert judged("delete", "/Observation/1").ordering_keys == {"Observation/1"}
    assert judged("delete", "/Patient/8/").ordering_keys == {"Patient/8"}
    assert (
        "Patient/9" in judged("delete", "/Observation", query="subject=Patient%2F9").ordering_keys
    )
    assert "Patient/9" in judged("delete", "/Observation", query="patient=9").ordering_keys
    assert judged(
        "delete", "/Observation", query="patient.identifier=urn:pinfl%7C3"
    ).ordering_keys == {"Patient?identifier=urn:pinfl|3"}
    found = judged("transaction", "", bundle(PUT, DELETE, GET)).ordering_keys
    assert found >= {"Patient/5", "Observation/1", "Condition/2", "Patient/7"}


def test_logical_references_are_orders_too() -> None:
    """A reference by identifier, unless it says that it is no patient's."""
    body = (
        b'{"resourceType": "Observation", "subject": {"identifier": {"system": "s", "value": "1"}},'
        b'"performer": [{"type": "Organization", "identifier": {"value": "2"}}]}'
    )
    assert judged("create", "/Observation", body).ordering_keys == {"Patient?identifier=s|1"}


def test_a_search_by_identifier_meets_the_resource_that_has_it() -> None:
    """A conditional delete must not overtake the create of what it deletes."""
    create = judged("create", "/Observation", IDENTIFIED).ordering_keys
    for query in ("identifier=urn:lab|77", "identifier=77"):
        assert judged("delete", "/Observation", query=query).ordering_keys & create


def test_xml_names_the_same_orders() -> None:
    xml = (
        b'<Observation xmlns="http://hl7.org/fhir"><identifier><system value="urn:lab"/>'
        b'<value value="77"/></identifier><subject><reference value="Patient/5"/></subject>'
        b"</Observation>"
    )
    found = judged("create", "/Observation", xml, kind="application/fhir+xml")
    assert found == judged("create", "/Observation", IDENTIFIED)


def empty(*requests: str) -> bytes:
    """A batch of these requests without resources."""
    entries = ",".join(f'{{"request": {each}}}' for each in requests)
    return f'{{"resourceType": "Bundle", "type": "batch", "entry": [{entries}]}}'.encode()


def references(count: int) -> bytes:
    """A resource that names so many patients."""
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
def test_what_names_too_many_has_the_order_of_everything(code: str, path: str, body: bytes) -> None:
    assert judged(code, path, body).ordering_keys == ALL_KEYS


def test_a_ward_keeps_its_orders() -> None:
    """A Bundle about some dozens of patients is ordered patient by patient."""
    assert len(judged("create", "/Observation", references(60)).ordering_keys) == 60


def test_without_any_name_the_type_is_the_order() -> None:
    body = b'{"resourceType": "Organization", "name": "Clinic"}'
    assert judged("create", "/Organization", body).ordering_keys == {"Organization"}


@pytest.mark.parametrize(
    ("code", "path", "query", "body"),
    [
        ("delete", "/Observation", "code=1234", b""),
        ("delete", "", "_type=Observation", b""),
        ("create", "/Observation", "", b"not FHIR"),
        ("create", "/Observation", "", b"[" * 900 + b"]" * 900 + b"x"),
    ],
)
def test_what_cannot_be_put_in_order_is_not_queued(
    code: str, path: str, query: str, body: bytes
) -> None:
    """It would be unknown which writes must not overtake it."""
    assert classify_write(WriteDescription(code, path, query, body)) is None


def test_a_spelled_out_body_is_judged_alike() -> None:
    """Whatever of its names and values is written with escapes."""
    request = b'{"method": "POST", "url": "Observation", "ifNoneExist": "identifier=a|1"}'
    entry = b'{"resource": %s, "request": %s}' % (IDENTIFIED, request)
    bundle = b'{"resourceType": "Bundle", "type": "transaction", "entry": [%s]}' % entry
    for code, path, body in (
        ("create", "/Observation", IDENTIFIED),
        ("update", "/Observation/1", OBSERVATION),
        ("transaction", "", bundle),
    ):
        assert judged(code, path, spelled_out(body)) == judged(code, path, body)


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
def test_respond_async_is_found_among_others(prefer: bytes, others: bytes) -> None:
    """With parameters, in any case; the others stay byte for byte."""
    assert prefers_async(prefer)
    assert remove_async_preference(prefer) == others


@pytest.mark.parametrize(
    "prefer",
    [
        *(b"return=minimal", b"respond-asynchronous", b"x=respond-async", b"respond-async=no", b""),
        *(b'note=", respond-async, "', b'note="a, respond-async'),
    ],
)
def test_what_only_looks_like_it_stays(prefer: bytes) -> None:
    """Another word, a value, a quoted text."""
    assert not prefers_async(prefer)
    assert remove_async_preference(prefer) == prefer
