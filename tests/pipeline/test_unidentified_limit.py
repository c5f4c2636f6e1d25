"""Requests without an identified caller are limited in rate and do not affect callers."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.errors import GatewayError
from gateway.pipeline.callers import CallerRegistry
from gateway.pipeline.unidentified_limit import UnidentifiedLimiter
from tests.doubles.clock import FakeClock
from tests.doubles.gateway import RunningGateway
from tests.doubles.wire import Response, Wire, fetch, get, post
from tests.pipeline.testbed import Testbed

KEY = "planted-callers-key"
RIGHT = f"X-Api-Key: {KEY}"
LAB = {"name": "lab", "api_key": KEY}
FEW = {"unidentified_rate": 0.2}  # two at once
READ = "/fhir/Patient/1"

# One of each kind, with the status that the first ones get.
STRANGERS: dict[str, tuple[bytes, int]] = {
    "unparsed": (b"GET /fhir/Patient HTTP/9.9\r\n\r\n", 400),
    "ambiguous": (get(READ, "Content-Length: 1", "Content-Length: 2"), 400),
    "broken-path": (get("/fhir/../x"), 400),
    "long-header": (get(READ, "X-Long: " + "x" * 20_000), 431),
    "unknown-method": (get(READ, method="BREW"), 405),
    "unknown-path": (get("/nothing"), 404),
    "loop": (get(READ, "Via: 1.1 dhp-gateway"), 508),
    "no-key": (get(READ), 401),
    "wrong-key": (get(READ, "X-Api-Key: wrong"), 401),
    "wrong-key-with-a-body": (post("/fhir/Patient", b"{}", "X-Api-Key: wrong"), 401),
}


async def fetch_each(gateway: RunningGateway, request: bytes, count: int) -> list[Response]:
    return [await fetch(gateway.address, request) for _ in range(count)]


@pytest.mark.parametrize("kind", STRANGERS)
async def test_unidentified_requests_are_limited(testbed: Testbed, kind: str) -> None:
    """Of every kind: the first get their own error, later ones 429 with Retry-After."""
    gateway = await testbed.start(callers=[LAB], limits=FEW)
    request, status = STRANGERS[kind]
    responses = await fetch_each(gateway, request, 5)
    assert [response.status for response in responses] == [status, status, 429, 429, 429]
    assert responses[-1].reason == "rate-limited"
    assert 1 <= int(responses[-1].header("retry-after") or 0) <= 5
    assert await gateway.metric("dhp_gateway_requests_total", reason="rate-limited") == 3


async def test_a_caller_of_another_network_is_unidentified(testbed: Testbed) -> None:
    """With a right key too."""
    elsewhere = {**LAB, "networks": ["10.20.0.0/16"]}
    gateway = await testbed.start(callers=[elsewhere], limits=FEW)
    responses = await fetch_each(gateway, get(READ, RIGHT), 2)
    responses += await fetch_each(gateway, get(READ), 2)
    assert [response.status for response in responses] == [403, 403, 429, 429]


async def test_unidentified_requests_over_the_limit_are_not_audited(testbed: Testbed) -> None:
    gateway = await testbed.start(callers=[LAB], limits=FEW)
    await fetch_each(gateway, get("/nothing"), 50)
    assert (await fetch(gateway.address, get(READ, RIGHT))).status == 200
    records = await gateway.audit(3)
    assert [record["status"] for record in records] == [404, 404, 200]


@pytest.mark.parametrize("kind", STRANGERS)
async def test_callers_of_the_same_address_are_not_limited(testbed: Testbed, kind: str) -> None:
    """Nor on the same connection."""
    gateway = await testbed.start(callers=[LAB], limits=FEW)
    request, _ = STRANGERS[kind]
    await fetch_each(gateway, request, 5)
    async with await Wire.open(gateway.address) as wire:
        response = await wire.fetch(request)
        assert response.status == 429
        if response.header("connection") != "close":
            assert (await wire.fetch(get(READ, RIGHT))).status == 200
    assert {r.status for r in await fetch_each(gateway, get(READ, RIGHT), 5)} == {200}


async def test_errors_of_identified_callers_are_not_limited(testbed: Testbed) -> None:
    """They are audited with the caller."""
    gateway = await testbed.start(callers=[LAB], limits=FEW)
    responses = await fetch_each(gateway, get("/nothing", RIGHT), 6)
    responses += await fetch_each(gateway, get("/fhir/../x", RIGHT), 6)
    assert [response.status for response in responses] == [404] * 6 + [400] * 6
    assert [record["caller"] for record in await gateway.audit(12)] == ["lab"] * 12


async def test_a_caller_identified_by_its_network_is_not_limited(testbed: Testbed) -> None:
    """Also when its request cannot be parsed."""
    near = {"name": "ward", "networks": ["127.0.0.0/8"]}
    gateway = await testbed.start(callers=[near], limits=FEW)
    for kind in ("unparsed", "unknown-path", "long-header"):
        request, status = STRANGERS[kind]
        assert [r.status for r in await fetch_each(gateway, request, 4)] == [status] * 4


async def test_without_configured_callers_only_web_pages_are_limited(testbed: Testbed) -> None:
    gateway = await testbed.start(limits=FEW)
    for kind in ("unparsed", "unknown-path", "long-header"):
        request, status = STRANGERS[kind]
        assert [r.status for r in await fetch_each(gateway, request, 4)] == [status] * 4
    foreign = get(READ, "Sec-Fetch-Site: cross-site")
    assert [r.status for r in await fetch_each(gateway, foreign, 3)] == [403, 403, 429]


async def test_null_disables_the_limit(testbed: Testbed) -> None:
    gateway = await testbed.start(callers=[LAB], limits={"unidentified_rate": None})
    assert {r.status for r in await fetch_each(gateway, get(READ), 300)} == {401}
    assert len(await gateway.audit(300)) == 300


async def test_each_address_behind_a_trusted_proxy_has_its_own_limit(testbed: Testbed) -> None:
    """/64 of IPv6."""
    listen = {"trusted_proxies": ["127.0.0.1"]}
    gateway = await testbed.start(callers=[LAB], limits=FEW, listen=listen)

    async def statuses(*addresses: str) -> list[int]:
        requests = [get("/nothing", f"X-Forwarded-For: {address}") for address in addresses]
        return [(await fetch(gateway.address, request)).status for request in requests]

    assert await statuses(*["203.0.113.7"] * 3) == [404, 404, 429]
    assert await statuses("203.0.113.8", "::ffff:203.0.113.7") == [404, 429]
    assert await statuses("2001:db8::1", "2001:db8::2:3", "2001:db8:0:0:9::") == [404, 404, 429]
    assert await statuses("2001:db8:0:1::1") == [404]
    records = await gateway.audit(6)
    assert {record["remote"] for record in records} >= {"203.0.113.7", "203.0.113.8"}


async def test_a_unix_socket_has_one_limit(testbed: Testbed, tmp_path: Path) -> None:
    listen = {"address": f"unix:{tmp_path / 's'}"}
    gateway = await testbed.start(callers=[LAB], limits=FEW, listen=listen)
    responses = await fetch_each(gateway, get(READ), 3)
    assert [response.status for response in responses] == [401, 401, 429]
    assert (await fetch(gateway.address, get(READ, RIGHT))).status == 200


async def test_pipelined_requests_over_the_limit_are_not_read(testbed: Testbed) -> None:
    """The connection ends."""
    gateway = await testbed.start(callers=[LAB], limits=FEW)
    async with await Wire.open(gateway.address) as wire:
        await wire.send(get("/nothing") * 1000)
        responses = [await wire.read_response() for _ in range(3)]
        assert [response.status for response in responses] == [404, 404, 429]
        assert responses[-1].header("connection") == "close"
        assert await wire.at_end()
    assert await gateway.metric("dhp_gateway_requests_total") == 3


def test_the_limit_recovers_with_time() -> None:
    """Addresses without requests are forgotten."""
    clock = FakeClock()
    strangers = UnidentifiedLimiter(CallerRegistry(), 1.0, clock, signs_in=True)

    def heard(address: str, times: int) -> int:
        return sum(not strangers.exceeds_limit(address) for _ in range(times))

    assert heard("10.0.0.1", 30) == 10
    clock.now += 4
    assert heard("10.0.0.1", 30) == 4
    with pytest.raises(GatewayError) as refusal:
        strangers.consume("10.0.0.1")
    assert refusal.value.retry_after == pytest.approx(1)
    for number in range(5000):
        assert heard(f"10.1.{number // 256}.{number % 256}", 1) == 1
    assert heard("10.0.0.1", 30) == 10
