"""The circuit breaker in front of the platform, as callers and the platform see it.

tests/health/test_platform_judgement.py tests by a clock when it opens and closes.
"""

from __future__ import annotations

import asyncio

from tests.doubles.gateway import RunningGateway
from tests.doubles.platform import (
    Platform,
    PlatformConnection,
    fhir,
    outcome,
    page,
    read_body,
    silence,
)
from tests.doubles.waiting import wait_until
from tests.doubles.wire import fetch, get, post

ONCE = {"max_attempts": 1}
SETTINGS = {"failure_ratio": 0.5, "min_requests": 3, "window": 600, "open_for": 60}


async def wait_until_open(gateway: RunningGateway, state: int = 2) -> None:
    await gateway.wait_for_metric(state, "dhp_gateway_circuit_state")


async def test_an_open_circuit_sends_nothing_and_readiness_names_it(
    start_gateway, platform: Platform
) -> None:
    platform.respond(page(500))
    async with start_gateway(circuit_breaker=SETTINGS) as gateway:
        for path in ("Patient", "Observation", "Encounter"):
            assert (await fetch(gateway.address, post(f"/fhir/{path}", b"{}"))).status == 500
        await wait_until_open(gateway)
        response = await fetch(gateway.address, post("/fhir/Patient", b"{}"))
        assert (response.status, response.reason) == (503, "circuit-open")
        assert 1 <= int(response.header("retry-after") or 0) <= 60
        assert len(platform.requests) == 3
        status, body = await gateway.ready()
        assert (status, body["failing"]) == (503, ["circuit", "platform"])


async def test_a_successful_probe_closes_the_circuit_without_requests_of_callers(
    start_gateway, platform: Platform
) -> None:
    platform.respond(outcome(500))
    async with start_gateway(
        circuit_breaker={**SETTINGS, "open_for": 0.5}, retries=ONCE
    ) as gateway:
        for path in ("Patient/1", "Observation/1", "Encounter/1"):
            await fetch(gateway.address, get(f"/fhir/{path}"))
        await wait_until_open(gateway)
        platform.respond(fhir())
        await wait_until_open(gateway, 0)
        assert (await fetch(gateway.address, get("/fhir/Patient/1"))).status == 200
        assert (await gateway.ready())[0] == 200


async def test_a_platform_that_does_not_respond_opens_the_circuit(
    start_gateway, platform: Platform
) -> None:
    """The probe's timeout is shorter than that of a request."""
    platform.respond(silence)
    # Seconds, in which a request that hangs takes one connection of the only two.
    slow = {"response_timeout": 0.5, "max_connections": 2}
    async with start_gateway(platform=slow, circuit_breaker=SETTINGS, retries=ONCE) as gateway:
        for path in ("Patient/1", "Observation/1", "Encounter/1"):
            response = await fetch(gateway.address, get(f"/fhir/{path}"))
            assert response.reason == "upstream-timeout"
        await wait_until_open(gateway)


async def broken_record(connection: PlatformConnection) -> None:
    """Respond with 500 for one resource, and normally for all others."""
    await read_body(connection.reader, connection.request)
    connection.writer.write(
        outcome(500) if connection.request.target.endswith("/broken") else fhir()
    )


async def test_one_failing_resource_does_not_affect_other_callers(
    start_gateway, platform: Platform
) -> None:
    """A caller polls it without end; another caller is always served."""
    platform.respond(broken_record)
    callers = [{"name": name, "api_key": f"planted-key-of-{name}"} for name in ("polls", "reads")]
    async with start_gateway(circuit_breaker=SETTINGS, retries=ONCE, callers=callers) as gateway:

        async def call(name: str, path: str) -> tuple[int, str | None, bytes]:
            key = f"X-Api-Key: planted-key-of-{name}"
            response = await fetch(gateway.address, get(f"/fhir/{path}", key))
            return response.status, response.reason, response.body

        served = [(await call("reads", "Patient/good"))[0]]
        polled = []
        for _ in range(60):
            polled.append((await call("polls", "Patient/broken"))[:2])
            served.append((await call("reads", "Patient/good"))[0])
        assert set(served) == {200}
        assert polled == [(500, None)] * 3 + [(503, "circuit-open")] * 57
        body = (await call("polls", "Patient/broken"))[2]
        assert b"held-off=read Patient; caller=polls" in body
        assert b"for your system" in body
        assert (await call("polls", "Observation/1"))[0] == 200, "another kind"
        await wait_until(lambda: platform.gateway_requests)
        assert await gateway.metric("dhp_gateway_circuit_state") == 0
        assert (await gateway.ready())[0] == 200


async def test_the_attempts_of_a_request_count_once(start_gateway, platform: Platform) -> None:
    platform.respond(outcome(503))
    # Enough of them, however fast the machine is.
    retries = {"budget_ratio": 1}
    async with start_gateway(circuit_breaker=SETTINGS, retries=retries) as gateway:
        for path in ("Patient/1", "Observation/1"):
            assert (await fetch(gateway.address, get(f"/fhir/{path}"))).status == 503
        assert len(platform.requests) == 6
        await wait_until(lambda: platform.gateway_requests)
        await asyncio.sleep(0)
        assert await gateway.metric("dhp_gateway_circuit_state") == 0


async def test_read_is_not_retried_once_circuit_is_open(start_gateway, platform: Platform) -> None:
    """The caller gets the platform's response, or circuit-open if nothing was sent."""
    platform.respond(outcome(503))
    async with start_gateway(
        circuit_breaker={**SETTINGS, "min_requests": 1}, retries={"backoff": 2}
    ) as gateway:
        await fetch(gateway.address, post("/fhir/Patient", b"{}"))
        reading = asyncio.create_task(fetch(gateway.address, get("/fhir/Patient/1")))
        await wait_until_open(gateway)
        response = await reading
        assert (response.status, response.reason) in {(503, None), (503, "circuit-open")}
        attempts = sum(request.method == "GET" for request in platform.requests)
        assert (response.reason is None) == (attempts > 0)
