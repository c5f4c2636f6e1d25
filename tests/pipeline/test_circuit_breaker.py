"""The circuit breaker in front of the platform, as callers and the platform see it.

When it opens and closes is asked of a clock in tests/health/test_platform_judgement.py.
"""

from __future__ import annotations

import asyncio

import pytest

from tests.doubles.gateway import Running
from tests.doubles.platform import Line, Platform, fhir, outcome, page, read_body, silence
from tests.doubles.rest import until
from tests.doubles.wire import ask, get, post

ONCE = {"max_attempts": 1}
SETTINGS = {"failure_ratio": 0.5, "min_requests": 3, "window": 600, "open_for": 60}


async def until_open(gateway: Running, state: int = 2) -> None:
    """Wait for the state of the circuit."""
    await gateway.until_metric(state, "dhp_gateway_circuit_state")


async def test_failing_platform_is_left_alone(start_gateway, platform: Platform) -> None:
    """While the circuit is open the platform sees nothing, and readiness says why."""
    platform.answer(page(500))
    async with start_gateway(circuit_breaker=SETTINGS) as gateway:
        for path in ("Patient", "Observation", "Encounter"):
            assert (await ask(gateway.address, post(f"/fhir/{path}", b"{}"))).status == 500
        await until_open(gateway)
        reply = await ask(gateway.address, post("/fhir/Patient", b"{}"))
        assert (reply.status, reply.reason) == (503, "circuit-open")
        assert 1 <= int(reply.header("retry-after") or 0) <= 60
        assert len(platform.seen) == 3
        status, body = await gateway.ready()
        assert (status, body["failing"]) == (503, ["circuit", "platform"])


async def test_it_closes_when_the_gateway_itself_is_answered(
    start_gateway, platform: Platform
) -> None:
    """Although no caller asks."""
    platform.answer(outcome(500))
    async with start_gateway(
        circuit_breaker={**SETTINGS, "open_for": 0.5}, retries=ONCE
    ) as gateway:
        for path in ("Patient/1", "Observation/1", "Encounter/1"):
            await ask(gateway.address, get(f"/fhir/{path}"))
        await until_open(gateway)
        platform.answer(fhir())
        await until_open(gateway, 0)
        assert (await ask(gateway.address, get("/fhir/Patient/1"))).status == 200
        assert (await gateway.ready())[0] == 200


async def test_a_platform_that_hangs_closes_no_circuit_for_a_minute(
    start_gateway, platform: Platform
) -> None:
    """The question has a limit of its own, much shorter than that of a request."""
    platform.answer(silence)
    # Seconds, in which a request that hangs takes one connection of the only two.
    slow = {"response_timeout": 0.5, "max_connections": 2}
    async with start_gateway(platform=slow, circuit_breaker=SETTINGS, retries=ONCE) as gateway:
        for path in ("Patient/1", "Observation/1", "Encounter/1"):
            reply = await ask(gateway.address, get(f"/fhir/{path}"))
            assert reply.reason == "upstream-timeout"
        await until_open(gateway)


@pytest.mark.parametrize("code", [404, 422, 501])
async def test_errors_of_callers_do_not_open_it(
    start_gateway, platform: Platform, code: int
) -> None:
    """Answers such as these say that the platform works."""
    async with start_gateway(circuit_breaker={"min_requests": 2}) as gateway:
        platform.answer(outcome(code))
        for _ in range(5):
            await ask(gateway.address, post("/fhir/Patient", b"{}"))
        platform.answer(fhir())
        assert (await ask(gateway.address, get("/fhir/Patient/1"))).status == 200


async def broken_record(line: Line) -> None:
    """One record is answered 500, everything else as it should be."""
    await read_body(line.reader, line.seen)
    line.writer.write(outcome(500) if line.seen.target.endswith("/broken") else fhir())


async def test_one_caller_s_broken_record_takes_nothing_from_another(
    start_gateway, platform: Platform
) -> None:
    """It is polled without an end; another caller is served each time, and all is well."""
    platform.answer(broken_record)
    callers = [{"name": name, "api_key": f"planted-key-of-{name}"} for name in ("polls", "reads")]
    async with start_gateway(circuit_breaker=SETTINGS, retries=ONCE, callers=callers) as gateway:

        async def call(name: str, path: str) -> tuple[int, str | None, bytes]:
            key = f"X-Api-Key: planted-key-of-{name}"
            reply = await ask(gateway.address, get(f"/fhir/{path}", key))
            return reply.status, reply.reason, reply.body

        served = [(await call("reads", "Patient/good"))[0]]
        polled = []
        for _ in range(60):
            polled.append((await call("polls", "Patient/broken"))[:2])
            served.append((await call("reads", "Patient/good"))[0])
        assert set(served) == {200}
        assert polled == [(500, None)] * 3 + [(503, "circuit-open")] * 57
        body = (await call("polls", "Patient/broken"))[2]
        assert b"held-off=read Patient; caller=polls" in body
        assert b"for your system alone" in body
        assert (await call("polls", "Observation/1"))[0] == 200, "another kind"
        await until(lambda: platform.questions)
        assert await gateway.metric("dhp_gateway_circuit_state") == 0
        assert (await gateway.ready())[0] == 200


async def test_a_request_counts_once_whatever_its_attempts(
    start_gateway, platform: Platform
) -> None:
    """Two reads of three attempts each are fewer than three requests."""
    platform.answer(outcome(503))
    # Enough of them, however fast the machine is.
    retries = {"budget_ratio": 1}
    async with start_gateway(circuit_breaker=SETTINGS, retries=retries) as gateway:
        for path in ("Patient/1", "Observation/1"):
            assert (await ask(gateway.address, get(f"/fhir/{path}"))).status == 503
        assert len(platform.seen) == 6
        await until(lambda: platform.questions)
        await asyncio.sleep(0)
        assert await gateway.metric("dhp_gateway_circuit_state") == 0


async def test_a_get_is_not_sent_again_to_a_platform_that_is_left_alone(
    start_gateway, platform: Platform
) -> None:
    """What the caller is told is what the platform answered, not that nothing was sent."""
    platform.answer(outcome(503))
    async with start_gateway(
        circuit_breaker={**SETTINGS, "min_requests": 1}, retries={"backoff": 2}
    ) as gateway:
        await ask(gateway.address, post("/fhir/Patient", b"{}"))
        reading = asyncio.create_task(ask(gateway.address, get("/fhir/Patient/1")))
        await until_open(gateway)
        reply = await reading
        assert (reply.status, reply.reason) in {(503, None), (503, "circuit-open")}
        attempts = sum(seen.method == "GET" for seen in platform.seen)
        assert (reply.reason is None) == (attempts > 0)
