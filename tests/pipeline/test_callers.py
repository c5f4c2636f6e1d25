"""Identification of callers, and what they may do."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import ipaddress
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import GatewayError
from gateway.http.headers import parse_request_fields
from gateway.http.server.peer import Peer
from gateway.pipeline.callers import Caller, CallerMatcher, CallerRegistry
from gateway.secret import Secret
from tests.doubles.growth import operations
from tests.doubles.platform import Platform, fhir
from tests.doubles.sso import Sso
from tests.doubles.wire import Wire, fetch, get, post
from tests.pipeline.testbed import reset_connection

KEY = "key-of-the-laboratory"
PASSWORD = "pass:wörd"
NEAR = "10.20.3.4"
FAR = "192.0.2.9"


def network(text: str) -> tuple[Any, ...]:
    return (ipaddress.ip_network(text),)


OPEN = CallerMatcher(Caller("open"), networks=network("10.30.0.0/16"))
LAB = CallerMatcher(Caller("lab"), networks=network("10.20.0.0/16"), api_key=Secret(KEY))
ROAMING = CallerMatcher(Caller("roaming"), username="rtg", password=Secret(PASSWORD))
CERTIFIED = CallerMatcher(Caller("certified"), certificate_names=frozenset({"his.clinic.uz"}))
ALL = (OPEN, LAB, ROAMING, CERTIFIED)


def basic(user: str, password: str) -> bytes:
    return b"Basic " + base64.b64encode(f"{user}:{password}".encode())


def identify(known: tuple[CallerMatcher, ...], peer: Peer, *fields: tuple[bytes, bytes]) -> str:
    """Return the caller's name, or the reason why there is none."""
    try:
        return CallerRegistry(known).identify(peer, parse_request_fields(fields)).name
    except GatewayError as error:
        return error.reason.code


@pytest.mark.parametrize(
    ("peer", "fields", "expected"),
    [
        (Peer("10.30.0.1"), (), "open"),
        (Peer("::ffff:10.30.0.1"), (), "open"),
        (Peer(NEAR), ((b"X-Api-Key", KEY.encode()),), "lab"),
        (Peer(FAR), ((b"X-Api-Key", KEY.encode()),), "caller-forbidden"),
        (Peer(NEAR), ((b"X-Api-Key", KEY[:-1].encode()),), "caller-unknown"),
        (Peer("10.30.0.1"), ((b"X-Api-Key", b"old key"),), "caller-unknown"),
        (Peer(NEAR), (), "caller-unauthenticated"),
        (Peer(FAR), (), "caller-unauthenticated"),
        (Peer(FAR), ((b"Authorization", basic("rtg", PASSWORD)),), "roaming"),
        (Peer(FAR), ((b"authorization", basic("RTG", PASSWORD)),), "caller-unknown"),
        (Peer(FAR), ((b"Authorization", basic("rtg", "x")),), "caller-unknown"),
        (Peer(FAR), ((b"Authorization", b"Basic !!!"),), "caller-unknown"),
        (Peer(FAR), ((b"Authorization", b"Bearer x"),), "caller-unauthenticated"),
        (Peer(FAR, frozenset({"his.clinic.uz", "x"})), (), "certified"),
        (Peer(FAR, frozenset({"other.clinic.uz"})), (), "caller-unauthenticated"),
        (Peer("unix"), (), "caller-unauthenticated"),
    ],
)
def test_each_kind_of_proof_identifies_a_caller_or_has_its_error(
    peer: Peer, fields: tuple[tuple[bytes, bytes], ...], expected: str
) -> None:
    assert identify(ALL, peer, *fields) == expected


def test_an_unknown_network_is_forbidden_where_no_caller_has_a_secret() -> None:
    assert identify((OPEN,), Peer(FAR)) == "caller-forbidden"
    assert identify((OPEN, LAB), Peer(FAR)) == "caller-forbidden"


def test_keys_are_ignored_where_no_caller_has_one() -> None:
    """Old systems may send a password that is not meant for the gateway."""
    peer = Peer("10.30.0.1")
    assert identify((OPEN,), peer, (b"Authorization", basic("a", "b"))) == "open"
    assert identify((OPEN,), peer, (b"X-Api-Key", b"anything")) == "open"


def test_without_configured_callers_each_caller_is_anonymous() -> None:
    assert identify((), Peer(FAR), (b"X-Api-Key", b"x")) == "anonymous"


def work_of(known: tuple[CallerMatcher, ...], peer: Peer, *fields: tuple[bytes, bytes]) -> int:
    """Return the number of functions that are called for an identification."""
    registry, header = CallerRegistry(known), parse_request_fields(fields)

    def identify_once() -> None:
        with contextlib.suppress(GatewayError):
            registry.identify(peer, header)

    return operations(identify_once)


def clinic(number: int) -> CallerMatcher:
    """Return a caller with a network and a key, a password or a certificate, or only a network."""
    caller = Caller(f"clinic-{number}")
    networks = network(f"10.{number // 256}.{number % 256}.0/24")
    if number % 4 == 0:
        return CallerMatcher(caller, networks, api_key=Secret(f"key-{number}"))
    if number % 4 == 1:
        return CallerMatcher(caller, networks, username="his", password=Secret(f"pass-{number}"))
    names = frozenset({f"{number}.clinic.uz"} if number % 4 == 2 else ())
    return CallerMatcher(caller, networks, certificate_names=names)


@pytest.mark.interpreted
@pytest.mark.parametrize("number", [0, 1, 2, 3])
def test_a_thousand_callers_cost_no_more_than_a_few(number: int) -> None:
    """The first and the last of each kind, and one with a wrong secret or network."""
    few = tuple(map(clinic, range(4)))
    many = tuple(map(clinic, range(1000)))
    for known, place in ((few, number), (many, number), (many, 996 + number)):
        address = f"10.{place // 256}.{place % 256}.9"
        peer = Peer(address, frozenset({f"{place}.clinic.uz"} if number == 2 else ()))
        fields: tuple[tuple[bytes, bytes], ...] = ()
        if number == 0:
            fields = ((b"X-Api-Key", f"key-{place}".encode()),)
        if number == 1:
            fields = ((b"Authorization", basic("his", f"pass-{place}")),)
        assert identify(known, peer, *fields) == f"clinic-{place}"
        assert work_of(known, peer, *fields) == work_of(few, *sample(number))
        assert work_of(known, Peer(FAR), *fields) == work_of(few, Peer(FAR), *sample(number)[1:])
        wrong = (b"X-Api-Key", b"wrong")
        assert work_of(known, peer, wrong) == work_of(few, peer, wrong)


def sample(number: int) -> tuple[Any, ...]:
    """Return peer and fields of one of the first four callers."""
    names = frozenset({"2.clinic.uz"} if number == 2 else ())
    peer = Peer(f"10.0.{number}.9", names)
    if number == 0:
        return peer, (b"X-Api-Key", b"key-0")
    return (peer, (b"Authorization", basic("his", "pass-1"))) if number == 1 else (peer,)


def test_digests_of_secrets_differ_in_each_registry() -> None:
    """Neither the time of a look-up nor the table can be prepared for."""
    first, second = (CallerRegistry((LAB, ROAMING)) for _ in range(2))
    kept = [{*each._keys, *each._passwords} for each in (first, second)]
    assert kept[0].isdisjoint(kept[1])
    assert hashlib.sha256(KEY.encode()).digest() not in kept[0] | kept[1]


def by_comparison(
    known: tuple[CallerMatcher, ...], peer: Peer, key: str | None, password: str | None
) -> str:
    """Return what comparing with one caller after the other results in."""

    def comes_from(each: CallerMatcher) -> bool:
        try:
            address = ipaddress.ip_address(peer.address)
        except ValueError:
            address = None
        is_near = any(address is not None and address in net for net in each.networks)
        has_name = bool(each.certificate_names & peer.certificate_names)
        return (is_near or not each.networks) and (has_name or not each.certificate_names)

    if key is not None and any(each.api_key for each in known):
        right = [each for each in known if each.api_key and each.api_key.reveal() == key]
    elif password is not None and any(each.password for each in known):
        right = [each for each in known if each.password and each.password.reveal() == password]
    else:
        near = [each for each in known if comes_from(each)]
        free = [each for each in near if not (each.api_key or each.password)]
        if free:
            return free[0].caller.name
        return "caller-unauthenticated" if near else "caller-forbidden"
    names = [each.caller.name for each in right if comes_from(each)]
    if names:
        return names[0]
    return "caller-forbidden" if right else "caller-unknown"


NETWORKS = ("10.0.0.0/8", "10.1.0.0/16", "10.1.2.0/24", "10.1.2.3/32", "::/0", "2001:db8::/32")
secret_texts = st.none() | st.sampled_from("ab")
matchers = st.builds(
    lambda networks, key, password, names: CallerMatcher(
        Caller(""),
        tuple(map(ipaddress.ip_network, networks)),
        api_key=key and Secret(key),
        username=password and "his",
        password=password and Secret(password),
        certificate_names=names,
    ),
    st.lists(st.sampled_from(NETWORKS), max_size=3),
    secret_texts,
    secret_texts,
    st.frozensets(st.sampled_from("xy"), max_size=2),
)


@given(
    st.lists(matchers, min_size=1, max_size=6),
    st.sampled_from(
        ["10.1.2.3", "10.1.2.4", "10.9.9.9", "192.0.2.1", "2001:db8::1", "::1", "unix"]
    ),
    st.frozensets(st.sampled_from("xyz"), max_size=2),
    st.none() | st.sampled_from("abc"),
    st.none() | st.sampled_from("abc"),
)
def test_the_first_caller_in_the_settings_is_found_as_by_comparison(
    callers: list[CallerMatcher],
    address: str,
    names: frozenset[str],
    key: str | None,
    password: str | None,
) -> None:
    known = tuple(
        replace(each, caller=Caller(f"caller-{number}")) for number, each in enumerate(callers)
    )
    peer = Peer(address, names)
    fields = []
    if key is not None:
        fields.append((b"X-Api-Key", key.encode()))
    if password is not None:
        fields.append((b"Authorization", basic("his", password)))
    assert identify(known, peer, *fields) == by_comparison(known, peer, key, password)


async def test_each_of_many_callers_is_served_as_itself(start_gateway) -> None:
    """By key and by Basic, over one connection of a proxy."""
    callers = [
        {"name": f"clinic-{n}", "api_key": f"key-{n}"}
        if n % 2
        else {"name": f"clinic-{n}", "basic_auth": {"username": f"u{n}", "password": f"p{n}"}}
        for n in range(300)
    ]
    async with start_gateway(callers=callers) as gateway, await Wire.open(gateway.address) as wire:
        served = list(range(0, 300, 7))
        for number in served:
            field = (
                f"X-Api-Key: key-{number}"
                if number % 2
                else f"Authorization: {basic(f'u{number}', f'p{number}').decode()}"
            )
            assert (await wire.fetch(get("/fhir/Patient/1", field))).status == 200
        wrong = get("/fhir/Patient/1", "X-Api-Key: p0")
        assert (await wire.fetch(wrong)).reason == "caller-unknown"
        records = await gateway.audit(len(served) + 1)
    names = [record["caller"] for record in records if record["status"] == 200]
    assert names == [f"clinic-{number}" for number in served]


PROXIES = (*network("10.0.0.0/8"), *network("192.0.2.9/32"))


@pytest.mark.parametrize(
    ("peer", "forwarded", "expected"),
    [
        ("203.0.113.7", b"10.30.0.1", "203.0.113.7"),
        ("10.0.0.1", None, "10.0.0.1"),
        ("10.0.0.1", b"203.0.113.7", "203.0.113.7"),
        ("10.0.0.1", b"10.30.0.1, 203.0.113.7", "203.0.113.7"),
        ("10.0.0.1", b"203.0.113.7, 192.0.2.9", "203.0.113.7"),
        ("10.0.0.1", b"203.0.113.7, garbage, 192.0.2.9", "unknown"),
        ("10.0.0.1", b"garbage, 203.0.113.7, 192.0.2.9", "203.0.113.7"),
        ("10.0.0.1", b"10.1.1.1, 10.2.2.2", "10.1.1.1"),
        ("10.0.0.1", b"", "unknown"),
    ],
)
def test_forwarded_addresses_are_read_from_the_right(
    peer: str, forwarded: bytes | None, expected: str
) -> None:
    """Only trusted proxies are believed, each about the address before it."""
    fields = () if forwarded is None else ((b"X-Forwarded-For", forwarded),)
    found = CallerRegistry((), PROXIES).resolve_peer(Peer(peer), parse_request_fields(fields))
    assert found.address == expected


@pytest.mark.parametrize(
    ("written", "address"),
    [
        (b"203.0.113.7:4711", "203.0.113.7"),
        (b"2001:db8::1", "2001:db8::1"),
        (b"2001:DB8:0:0::1", "2001:db8::1"),
        (b"[2001:db8::1]", "2001:db8::1"),
        (b"[2001:db8::1]:80", "2001:db8::1"),
        (b'"[2001:db8::1]"', "2001:db8::1"),
        (b'"[2001:db8::1]:4711"', "2001:db8::1"),
        (b'"203.0.113.7:80"', "203.0.113.7"),
        (b"\t203.0.113.7 ", "203.0.113.7"),
        (b"fe80::1%eth0", "fe80::1"),
        (b"[fe80::1%25eth0]:80", "fe80::1"),
        (b"::ffff:203.0.113.7", "203.0.113.7"),
        (b"[::ffff:203.0.113.7]:80", "203.0.113.7"),
    ],
)
def test_addresses_are_read_as_proxies_write_them(written: bytes, address: str) -> None:
    """With ports, brackets, quotes, zones, and as IPv4-mapped addresses."""
    for before in (b"", b"10.9.9.9, "):
        header = parse_request_fields([(b"X-Forwarded-For", before + written)])
        assert CallerRegistry((), PROXIES).resolve_peer(Peer("10.0.0.1"), header).address == address


UNREADABLE = [
    *("unknown", "_hidden", "", " ", "10.20.0.5,", "10.20.0.5, ", ",", "10.20.0.5, \xe9"),
    *("10.20.0.5:", "10.20.0.5:x", "10.20.0.5:123456", "10.20.0.5 :80", "10.20.0.5 10.20.0.5"),
    *("010.020.000.005", "0x0a140005", "169082885", "10.20.5", "10.20.0.5/16", "10.20.0.5;a"),
    *("[10.20.0.5]", "[10.20.0.5]:80", "[2001:db8::1", "2001:db8::1]", "[]:80", "[2001:db8::1]80"),
    *('"10.20.0.5', '10.20.0.5"', "'10.20.0.5'", '""', "2001:db8:0:0:0:0:0:1:80", "fe80::1%"),
    *("for=10.20.0.5", "localhost", "unix", "127.0.0.1.", "10.20.0.5%eth0", "fe80::1%a b"),
]


@pytest.mark.parametrize("written", UNREADABLE)
def test_an_unreadable_address_is_in_no_network(written: str) -> None:
    """Neither the proxy's address nor one further left is used instead."""
    everywhere = (*network("0.0.0.0/0"), *network("::/0"))
    known = (CallerMatcher(Caller("inside"), networks=everywhere),)
    header = parse_request_fields(
        [(b"X-Forwarded-For", b"10.20.0.6"), (b"X-Forwarded-For", written.encode("latin-1"))]
    )
    found = CallerRegistry(known, PROXIES).resolve_peer(
        Peer("10.0.0.1", frozenset({"his"})), header
    )
    assert found == Peer("unknown")
    assert identify(known, found) == "caller-forbidden"


@pytest.mark.parametrize("written", ["unknown", "10.30.0.5, _hidden", "10.30.0.5,", "<i>x</i>"])
async def test_a_client_of_a_trusted_proxy_is_not_identified_by_its_network(
    start_gateway, platform: Platform, written: str
) -> None:
    """The audit has the client's address."""
    caller = {"name": "ward", "networks": ["127.0.0.0/8", "10.30.0.0/16"]}
    listen = {"trusted_proxies": ["127.0.0.1"]}
    async with start_gateway(callers=[caller], listen=listen) as gateway:
        response = await fetch(
            gateway.address, get("/fhir/Patient/1", f"X-Forwarded-For: {written}")
        )
        assert (response.status, response.reason) == (403, "caller-forbidden")
        (record,) = await gateway.audit()
        assert record["remote"] == "unknown"
        assert written == "unknown" or written not in str(record)
        spoken = get("/fhir/Patient/1", "X-Forwarded-For: 10.30.0.5:4711")
        assert (await fetch(gateway.address, spoken)).status == 200
    assert len(platform.requests) == 1


@pytest.mark.parametrize("field", ["Forwarded: for=10.30.0.5", "X-Real-IP: 10.30.0.5"])
async def test_only_x_forwarded_for_names_the_address(
    start_gateway, platform: Platform, field: str
) -> None:
    caller = {"name": "ward", "networks": ["10.30.0.0/16"]}
    listen = {"trusted_proxies": ["127.0.0.1"]}
    async with start_gateway(callers=[caller], listen=listen) as gateway:
        assert (await fetch(gateway.address, get("/fhir/Patient/1", field))).status == 403
    assert platform.requests == []


async def test_forwarded_scheme_and_host_are_ignored(start_gateway, platform: Platform) -> None:
    """Links are built from Host and the listener."""
    listen = {"trusted_proxies": ["127.0.0.1"]}
    fields = (
        "X-Forwarded-Proto: https",
        "X-Forwarded-Host: evil.example",
        "Forwarded: host=e.example;proto=https",
    )
    async with start_gateway(listen=listen) as gateway:
        link = {"relation": "self", "url": f"{platform.url}/Patient"}
        bundle = {"resourceType": "Bundle", "type": "searchset", "link": [link]}
        platform.respond(fhir(json.dumps(bundle).encode()))
        response = await fetch(gateway.address, get("/fhir/Patient", *fields))
    host = next(line for line in get("/").split(b"\r\n") if line.startswith(b"Host: "))
    assert response.json()["link"][0]["url"] == f"http://{host[6:].decode()}/fhir/Patient"


async def test_a_caller_behind_a_trusted_proxy_is_identified_by_its_network(
    start_gateway, platform: Platform
) -> None:
    """The audit has its address."""
    caller = {"name": "ward", "networks": ["10.30.0.0/16"]}
    for trusted, status in ((["127.0.0.1"], 200), ([], 403)):
        async with start_gateway(callers=[caller], listen={"trusted_proxies": trusted}) as gateway:
            field = "X-Forwarded-For: 10.30.0.5"
            response = await fetch(gateway.address, get("/fhir/Patient/1", field))
            assert response.status == status
            (record,) = await gateway.audit()
            assert record["remote"] == ("10.30.0.5" if trusted else "127.0.0.1")
    (received,) = platform.requests
    assert received.header("x-forwarded-for") is None


def lab(**more: Any) -> dict[str, Any]:
    return {"name": "lab", "api_key": KEY, **more}


async def test_a_key_file_may_end_in_a_line_break(start_gateway, tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(KEY + "\n")
    async with start_gateway(callers=[{"name": "lab", "api_key_file": str(file)}]) as gateway:
        response = await fetch(gateway.address, get("/fhir/Patient/1", f"X-Api-Key: {KEY}"))
    assert response.status == 200


@pytest.mark.parametrize("many", [5, 49, 50, 51, 200, 600])
async def test_a_forbidden_parameter_is_found_at_any_position(
    start_gateway, platform: Platform, many: int
) -> None:
    """In a query and in a form."""
    allow = {"interactions": ["search-type"], "resources": ["Observation"]}
    caller = {"name": "his", "networks": ["127.0.0.0/8"], "allow": allow}
    query = "&".join((*(f"p{number}=1" for number in range(many)), "_include=*"))
    form = "Content-Type: application/x-www-form-urlencoded"
    async with start_gateway(callers=[caller]) as gateway:
        asked = get(f"/fhir/Observation?{query}")
        assert (await fetch(gateway.address, asked)).status == 403
        posted = post("/fhir/Observation/_search", query.encode(), form)
        assert (await fetch(gateway.address, posted)).status == 403
    assert platform.requests == []


@pytest.mark.parametrize("enabled", [True, False])
async def test_a_search_form_that_arrives_late_is_checked(
    start_gateway, platform: Platform, *, enabled: bool
) -> None:
    allow = {"interactions": ["search-type"], "resources": ["Observation"]}
    caller = {"name": "his", "networks": ["127.0.0.0/8"], "allow": allow}
    form = "Content-Type: application/x-www-form-urlencoded"
    head = get("/fhir/Observation/_search", form, "Content-Length: 6", method="POST")
    async with (
        start_gateway(callers=[caller], rewrite={"enabled": enabled}) as gateway,
        await Wire.open(gateway.address) as wire,
    ):
        await wire.send(head)
        await gateway.wait_for_metric(1, "dhp_gateway_inflight_requests")
        assert (await wire.fetch(b"code=1")).status == 200


async def test_each_caller_has_its_own_credential(
    start_gateway, platform: Platform, sso: Sso
) -> None:
    """Requests of two clinics carry the tokens of two clients, and the audit names them."""
    async with start_gateway(
        credentials={
            "north": {"client_id": "north-id", "client_secret": "n"},
            "south": {"client_id": "south-id", "client_secret": "s"},
        },
        callers=[
            lab(name="n", credential="north"),
            {"name": "s", "api_key": "another", "credential": "south"},
        ],
    ) as gateway:
        await fetch(gateway.address, get("/fhir/Patient/1", f"X-Api-Key: {KEY}"))
        await fetch(gateway.address, get("/fhir/Patient/1", "X-Api-Key: another"))
        assert [r["credential"] for r in await gateway.audit(2)] == ["north", "south"]
        _, body = await gateway.ready()
        assert (body["checks"]["token"], body["degraded"]) == ("ok", {})
    first, second = (request.header("authorization") for request in platform.requests)
    assert first != second
    assert {request.form["client_id"] for request in sso.requests} == {"north-id", "south-id"}


async def test_beyond_its_burst_a_caller_gets_429_with_retry_after(
    start_gateway, platform: Platform
) -> None:
    """Another caller is not affected."""
    limited = lab(rate_limit={"requests_per_second": 0.1, "burst": 2})
    free = {"name": "free", "api_key": "free-key"}
    async with start_gateway(callers=[limited, free]) as gateway:
        request = get("/fhir/Patient/1", f"X-Api-Key: {KEY}")
        responses = [await fetch(gateway.address, request) for _ in range(3)]
        assert [response.status for response in responses] == [200, 200, 429]
        assert responses[2].reason == "rate-limited"
        assert 1 <= int(responses[2].header("retry-after") or 0) <= 10
        other = await fetch(gateway.address, get("/fhir/Patient/1", "X-Api-Key: free-key"))
        assert other.status == 200
    assert len(platform.requests) == 3


async def test_caller_at_its_concurrency_limit_gets_503(start_gateway, platform: Platform) -> None:
    """After a short wait; the slot is released."""

    async def never(line: Any) -> None:
        await line.reader.read()

    async with start_gateway(callers=[lab(max_concurrent=1)]) as gateway:
        request = get("/fhir/Patient/1", f"X-Api-Key: {KEY}")
        platform.script(never)
        async with await Wire.open(gateway.address) as wire:
            await wire.send(request)
            await platform.wait_for_requests(1)
            response = await fetch(gateway.address, request)
            assert (response.status, response.reason) == (503, "overloaded")
            assert response.header("retry-after") == "1"
            reset_connection(wire)
        await gateway.audit(2)
        assert (await fetch(gateway.address, request)).status == 200
