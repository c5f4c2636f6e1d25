"""The guard of conditional requests, as callers and the platform see it."""

from __future__ import annotations

import asyncio
import gzip
import json
import zlib
from typing import Any
from urllib.parse import unquote

import pytest

from tests.doubles.gateway import RunningGateway
from tests.doubles.platform import (
    Platform,
    PlatformConnection,
    ReceivedRequest,
    declaring,
    fhir,
    outcome,
    read_body,
    unauthorized,
)
from tests.doubles.sso import Sso
from tests.doubles.wire import Response, fetch, get, post
from tests.fhir.bodies import spelled_out

CONDITION = "If-None-Exist: identifier=urn:x%7C1"
CREATE = post("/fhir/Patient", b"{}", CONDITION)
BODY = b'{"resourceType":"Patient"}'


def declare(
    platform: Platform, *, coded: bool = False, version: str | None = None, **declared: Any
) -> None:
    """Let the platform's statement declare this of patients, and accept every write."""
    patient = {"type": "Patient", **declared}
    statement: dict[str, Any] = {"resourceType": "CapabilityStatement"}
    statement["rest"] = [{"resource": [patient]}]
    if version is not None:
        statement["fhirVersion"] = version

    text = json.dumps(statement).encode()
    packed = fhir(gzip.compress(text), 200, ("Content-Encoding", "gzip"))
    platform.respond(declaring(packed if coded else fhir(text), fhir(BODY, 201)))


def writes(platform: Platform) -> list[ReceivedRequest]:
    return [request for request in platform.requests if not request.target.endswith("/metadata")]


def warning(names: str) -> str:
    return f'condition-unsupported; names="{names}"'


def bundle(*requests: dict[str, str], padding: int = 0) -> bytes:
    """Return a transaction of these requests, with an entry of so many octets before them."""
    text = "x" * padding
    other = {"request": {"method": "POST", "url": "Basic"}, "resource": {"text": text}}
    entries = [other, *({"request": each, "resource": {}} for each in requests)]
    return json.dumps({"resourceType": "Bundle", "type": "transaction", "entry": entries}).encode()


IN_BUNDLE = {"method": "POST", "url": "Patient", "ifNoneExist": "identifier=urn:x|1"}
NO_CONDITION = {"method": "PUT", "url": "Patient/1"}
XML = (
    b'<Bundle xmlns="http://hl7.org/fhir"><type value="transaction"/><entry><request>'
    b'<method value="POST"/><url value="Patient"/><ifNoneExist value="identifier=a"/>'
    b"</request></entry></Bundle>"
)
UNSUPPORTED = {
    "create": (CREATE, "If-None-Exist"),
    "update": (post("/fhir/Patient?identifier=1&name=a", BODY, method="PUT"), "identifier,name"),
    "patch": (post("/fhir/Patient?identifier=1", b"[]", method="PATCH"), "identifier"),
    "delete": (get("/fhir/Patient?identifier=1", method="DELETE"), "identifier"),
    "bundle": (post("/fhir", bundle(NO_CONDITION, IN_BUNDLE)), "ifNoneExist"),
    "bundle's update": (
        post("/fhir", bundle({"method": "PUT", "url": "Patient?name=a"}, IN_BUNDLE)),
        "name,ifNoneExist",
    ),
    "large bundle": (post("/fhir", bundle(IN_BUNDLE, padding=3_000_000)), "ifNoneExist"),
    "spelled out bundle": (post("/fhir", spelled_out(bundle(IN_BUNDLE))), "ifNoneExist"),
    "large spelled out bundle": (
        post("/fhir", spelled_out(bundle(*[NO_CONDITION] * 5_000, IN_BUNDLE), "request")),
        "ifNoneExist",
    ),
    "bundle in XML": (post("/fhir", XML, "Content-Type: application/fhir+xml"), "ifNoneExist"),
    "bundle in gzip": (
        post("/fhir", gzip.compress(bundle(IN_BUNDLE)), "Content-Encoding: gzip"),
        "ifNoneExist",
    ),
    "large bundle in deflate": (
        post(
            "/fhir",
            zlib.compress(
                bundle(*[{**NO_CONDITION, "url": f"Patient/{n}"} for n in range(99_000)], IN_BUNDLE)
            ),
            "Content-Encoding: deflate",
        ),
        "ifNoneExist",
    ),
}


async def test_warn_names_conditions_that_are_not_declared(
    gateway: RunningGateway, platform: Platform
) -> None:
    """The write is forwarded unchanged."""
    declare(platform, conditionalCreate=False)
    for kind, (request, names) in UNSUPPORTED.items():
        reply = await fetch(gateway.address, request)
        found = (kind, reply.status, reply.header("x-gateway-warning"))
        assert found == (kind, 201, warning(names))
    expected = ["identifier=urn:x%7C1" if kind == "create" else None for kind in UNSUPPORTED]
    assert [received.header("if-none-exist") for received in writes(platform)] == expected


async def test_block_rejects_a_write_with_an_undeclared_condition(
    start_gateway, platform: Platform
) -> None:
    """The error names the conditions; the platform gets no complete request."""
    declare(platform, conditionalCreate=False)
    async with start_gateway(fhir={"condition_guard": "block"}) as gateway:
        for request, names in UNSUPPORTED.values():
            assert_unsupported(await fetch(gateway.address, request), names)
    assert [received for received in writes(platform) if received.complete] == []


def assert_unsupported(reply: Response, names: str) -> None:
    """Check that the error is condition-unsupported and names these conditions."""
    assert (reply.status, reply.reason) == (400, "condition-unsupported")
    (issue,) = reply.json()["issue"]
    assert issue["code"] == "not-supported"
    assert f"conditions={names}" in issue["diagnostics"]


async def test_block_rejects_bundle_in_an_unknown_coding(start_gateway, platform: Platform) -> None:
    """It may contain any condition."""
    declare(platform, **DECLARED)
    async with start_gateway(fhir={"condition_guard": "block"}) as gateway:
        request = post("/fhir", bundle(IN_BUNDLE), "Content-Encoding: br")
        assert_unsupported(await fetch(gateway.address, request), "Content-Encoding")
    assert writes(platform) == []


DECLARED = {
    "conditionalCreate": True,
    "conditionalUpdate": True,
    "conditionalPatch": True,
    "conditionalDelete": "single",
}


@pytest.mark.parametrize("mode", ["warn", "block"])
async def test_a_declared_condition_passes_without_a_warning(
    start_gateway, platform: Platform, mode: str
) -> None:
    declare(platform, **DECLARED)
    async with start_gateway(fhir={"condition_guard": mode}) as gateway:
        for kind, (request, _) in UNSUPPORTED.items():
            reply = await fetch(gateway.address, request)
            found = (kind, reply.status, reply.header("x-gateway-warning"))
            assert found == (kind, 201, None)


def conditional(type_: str) -> dict[str, bytes]:
    """Return conditional writes of each kind, with the type spelled as given."""
    return {
        "create": post(f"/fhir/{type_}", b"{}", CONDITION),
        "update": post(f"/fhir/{type_}?identifier=1", BODY, method="PUT"),
        "patch": post(f"/fhir/{type_}?identifier=1", b"[]", method="PATCH"),
        "delete": get(f"/fhir/{type_}?identifier=1", method="DELETE"),
        "bundle": post("/fhir", bundle({**IN_BUNDLE, "url": type_})),
        "bundle's update": post("/fhir", bundle({"method": "PUT", "url": f"{type_}?identifier=1"})),
        "bundle's base": post("/fhir", bundle({**IN_BUNDLE, "url": f"http://x/FHIR/r5/{type_}"})),
    }


# Of R4, of a later version, and of a platform's own.
OF_OTHERS = ["DeviceUseStatement", "MedicationUsage", "TelemedicineVisit", "Xy"]


@pytest.mark.parametrize("type_", [*OF_OTHERS, "Device%55seStatement", "Patient", "Patient/"])
async def test_types_unknown_to_r5_count_as_the_statement_declares_them(
    start_gateway, platform: Platform, type_: str
) -> None:
    unsupported = (400, "condition-unsupported")
    for declared, expected in ((unquote(type_).strip("/"), (201, None)), ("Basic", unsupported)):
        declare(platform, type=declared, **DECLARED)
        async with start_gateway(fhir={"condition_guard": "block"}) as gateway:
            for kind, request in conditional(type_).items():
                reply = await fetch(gateway.address, request)
                assert (kind, reply.status, reply.reason) == (kind, *expected)


CANNOT_TELL = ["1.0.2", "3.0.2", "4.0.1", "4.3.0", "4"]
CAN_TELL = ["5.0.0", "5.0.0-ballot", "6.0.0", "10.0.0", None, "", "R4"]


@pytest.mark.parametrize("mode", ["warn", "block"])
@pytest.mark.parametrize("version", [*CANNOT_TELL, *CAN_TELL])
async def test_conditions_that_a_fhir_version_cannot_declare_cause_no_warning(
    start_gateway, platform: Platform, version: str | None, mode: str
) -> None:
    """Before R5 statements have no element for conditional patches."""
    in_bundle = post("/fhir", bundle({"method": "PATCH", "url": "Patient?identifier=1"}))
    requests = {**conditional("Patient"), "bundle's patch": in_bundle}
    declare(platform, version=version)
    told = set()
    async with start_gateway(fhir={"condition_guard": mode}) as gateway:
        for kind, request in requests.items():
            reply = await fetch(gateway.address, request)
            if "condition-unsupported" in (reply.header("x-gateway-warning") or reply.reason or ""):
                told.add(kind)
    patches = {"patch", "bundle's patch"}
    assert told == set(requests) - (patches if version in CANNOT_TELL else set())


UNCONDITIONAL = {
    "create": post("/fhir/Patient", b"{}"),
    "update": post("/fhir/Patient/1", BODY, method="PUT"),
    "update with a query": post("/fhir/Patient/1?_pretty=true", BODY, method="PUT"),
    "delete": get("/fhir/Patient/1", method="DELETE"),
    "bundle": post("/fhir", bundle(NO_CONDITION, {"method": "GET", "url": "Patient?name=a"})),
    "bundle with an id": post("/fhir", bundle({"method": "PUT", "url": "Patient/Patient?a=1"})),
    "bundle with an id of another's type": post(
        "/fhir", bundle({"method": "PUT", "url": "TelemedicineVisit/Abc?a=1"})
    ),
    "bundle's operation": post("/fhir", bundle({"method": "POST", "url": "$x"})),
    "bundle of a text": post("/fhir", bundle().replace(b"Basic", rb"\"request\":{\"")),
}


@pytest.mark.parametrize("mode", ["warn", "block"])
async def test_writes_without_conditions_are_unaffected(
    start_gateway, platform: Platform, mode: str
) -> None:
    """With `warn` the statement is not even requested."""
    declare(platform)
    async with start_gateway(fhir={"condition_guard": mode}) as gateway:
        for kind, request in UNCONDITIONAL.items():
            reply = await fetch(gateway.address, request)
            found = (kind, reply.status, reply.header("x-gateway-warning"))
            assert found == (kind, 201, None)
    assert mode == "block" or len(platform.requests) == len(UNCONDITIONAL)


async def test_off_neither_warns_nor_requests_statement(start_gateway, platform: Platform) -> None:
    declare(platform)
    async with start_gateway(fhir={"condition_guard": "off"}) as gateway:
        reply = await fetch(gateway.address, CREATE)
    assert (reply.status, reply.header("x-gateway-warning")) == (201, None)
    assert len(platform.requests) == 1


@pytest.mark.parametrize("other", [{"type": "Observation"}, None])
async def test_undeclared_means_not_supported(
    gateway: RunningGateway, platform: Platform, other: dict[str, Any] | None
) -> None:
    """Types that the statement does not name, and all types without a statement."""
    if other is not None:
        declare(platform, **other)
    else:
        platform.script(fhir(BODY, 201), outcome(404))
    reply = await fetch(gateway.address, CREATE)
    assert reply.header("x-gateway-warning") == warning("If-None-Exist")


async def test_a_compressed_statement_is_read(gateway: RunningGateway, platform: Platform) -> None:
    """The national platform compresses it without being asked."""
    declare(platform, coded=True, conditionalCreate=True)
    reply = await fetch(gateway.address, CREATE)
    assert reply.header("x-gateway-warning") is None


async def test_failed_write_carries_no_warning(gateway: RunningGateway, platform: Platform) -> None:
    """Nothing was created, and no statement is requested."""
    platform.script(outcome(422))
    reply = await fetch(gateway.address, CREATE)
    assert (reply.status, reply.header("x-gateway-warning")) == (422, None)
    assert len(platform.requests) == 1


def statement_of(platform: Platform, statement: bytes, other: bytes) -> None:
    platform.respond(declaring(statement, other))


async def test_block_rejects_conditions_until_the_statement_is_known(
    start_gateway, platform: Platform
) -> None:
    """With a Retry-After."""
    statement_of(platform, outcome(503), fhir(BODY, 201))
    async with start_gateway(
        fhir={"condition_guard": "block"}, retries={"max_attempts": 1}
    ) as gateway:
        for request, names in UNSUPPORTED.values():
            reply = await fetch(gateway.address, request)
            assert (reply.status, reply.reason) == (503, "condition-unknown")
            assert int(reply.header("retry-after") or 0) > 0
            (issue,) = reply.json()["issue"]
            assert issue["code"] == "transient"
            assert f"conditions={names}" in issue["diagnostics"]
    assert [received for received in writes(platform) if received.complete] == []


@pytest.mark.parametrize("declared", [True, False])
async def test_the_statement_is_requested_at_once_after_an_outage(
    start_gateway, platform: Platform, declared: bool
) -> None:
    """The first success makes the next attempt due."""
    statement_of(platform, outcome(503), fhir(BODY, 200))
    async with start_gateway(
        fhir={"condition_guard": "block"}, retries={"max_attempts": 1}
    ) as gateway:
        assert (await fetch(gateway.address, CREATE)).reason == "condition-unknown"
        declare(platform, conditionalCreate=declared)
        while True:
            await fetch(gateway.address, get("/fhir/Patient/1"))
            reply = await fetch(gateway.address, CREATE)
            if reply.reason != "condition-unknown":
                break
            await asyncio.sleep(0.2)
    assert (reply.status, reply.reason) == ((201, None) if declared else (400, reply.reason))


async def test_warn_says_that_the_statement_is_not_known(start_gateway, platform: Platform) -> None:
    """The write is forwarded."""
    statement_of(platform, outcome(503), fhir(BODY, 201))
    async with start_gateway(retries={"max_attempts": 1}) as gateway:
        reply = await fetch(gateway.address, CREATE)
    assert reply.status == 201
    assert reply.header("x-gateway-warning") == 'condition-unknown; names="If-None-Exist"'


async def test_a_reload_keeps_the_statement(start_gateway, platform: Platform) -> None:
    """Of the same platform, also while it does not respond."""
    declare(platform, conditionalCreate=True)
    async with start_gateway(
        fhir={"condition_guard": "block"}, retries={"max_attempts": 1}
    ) as gateway:
        assert (await fetch(gateway.address, CREATE)).status == 201
        statement_of(platform, outcome(503), fhir(BODY, 201))
        await gateway.gateway.reload(gateway.settings)
        assert (await fetch(gateway.address, CREATE)).status == 201


@pytest.mark.parametrize("refusal", [outcome(403), unauthorized()], ids=["403", "401"])
async def test_the_statement_is_requested_with_the_next_credential(
    start_gateway, platform: Platform, sso: Sso, refusal: bytes
) -> None:
    """When the SSO rejects the first one."""
    statement = {"type": "Patient", "conditionalCreate": True}
    body = json.dumps(
        {"resourceType": "CapabilityStatement", "rest": [{"resource": [statement]}]}
    ).encode()

    async def respond(connection: PlatformConnection) -> None:
        await read_body(connection.reader, connection.request)
        number = int((connection.request.header("authorization") or "").rpartition("-")[2])
        is_metadata = connection.request.target.endswith("/metadata")
        if sso.requests[number - 1].form["client_id"] == "first":
            connection.writer.write(refusal)
        else:
            connection.writer.write(fhir(body) if is_metadata else fhir(BODY, 201))

    platform.respond(respond)
    names = ("first", "second")
    async with start_gateway(
        admin={"probe_interval": 1},
        credentials={name: {"client_id": name, "client_secret": "planted"} for name in names},
        callers=[
            {"name": name, "api_key": f"planted-key-{name}", "credential": name} for name in names
        ],
        fhir={"condition_guard": "block"},
    ) as gateway:
        await gateway.wait_for_metric(2, "dhp_gateway_token_requests_total", outcome="ok")
        create = post("/fhir/Patient", b"{}", CONDITION, "X-Api-Key: planted-key-second")
        reply = await fetch(gateway.address, create)
        assert (reply.status, reply.reason) == (201, None)
        await gateway.wait_for_metric(1, "dhp_gateway_platform_probes_total", found="answers")
        assert (await gateway.ready())[0] == 200
