"""The circuit breaker in front of the platform."""

from __future__ import annotations

import logging

import pytest

from gateway.config.outbound_settings import CircuitBreakerSettings
from gateway.errors import GatewayError
from gateway.health.evidence import CircuitState
from gateway.pipeline.circuit_breaker import CircuitBreaker
from tests.doubles.clock import FakeClock
from tests.doubles.platform import Platform, fhir, outcome, page
from tests.doubles.wire import ask, get, post

SETTINGS = CircuitBreakerSettings(failure_ratio=0.5, min_requests=4, window=10, open_for=15)


def feed(circuit: CircuitBreaker, *failures: bool) -> None:
    """Admit and record one request each."""
    for failed in failures:
        circuit.record(circuit.admit(), failed=failed)


@pytest.fixture
def clock() -> FakeClock:
    """A clock that stands still until it is moved."""
    return FakeClock()


@pytest.fixture
def circuit(clock: FakeClock) -> CircuitBreaker:
    """A closed circuit."""
    return CircuitBreaker(SETTINGS, clock)


async def test_opening_and_closing_are_told_once(
    circuit: CircuitBreaker, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    """The operator reads when, why and for how long, and when it is over; a failed try is quiet."""
    caplog.set_level(logging.WARNING)
    for _ in range(4):
        circuit.record(circuit.admit(), failed=True, cause="nothing listens there")
    await clock.advance(15)
    feed(circuit, True)
    await clock.advance(15)
    feed(circuit, False, False)
    assert [record.getMessage() for record in caplog.records] == [
        "circuit opened for 15 s: 4 of 4 requests failed, last cause: nothing listens there",
        "circuit closed: the platform answers again",
    ]


def test_opens_at_the_ratio(circuit: CircuitBreaker) -> None:
    """Half of at least four requests failing opens the circuit."""
    feed(circuit, True, False, False)
    assert circuit.state is CircuitState.CLOSED
    feed(circuit, True)
    assert circuit.state is CircuitState.OPEN
    with pytest.raises(GatewayError) as refused:
        circuit.admit()
    assert refused.value.reason.code == "circuit-open"
    assert refused.value.retry_after == 15


def test_few_requests_never_open_it(circuit: CircuitBreaker) -> None:
    """Three failures are too few to judge."""
    feed(circuit, True, True, True)
    assert circuit.state is CircuitState.CLOSED


def test_old_failures_are_forgotten(circuit: CircuitBreaker, clock: FakeClock) -> None:
    """What happened before the window does not count."""
    feed(circuit, True, True, True)
    clock.now += 11
    feed(circuit, True, False, False, False)
    assert circuit.state is CircuitState.CLOSED


def test_one_request_probes(circuit: CircuitBreaker, clock: FakeClock) -> None:
    """After the whole pause one request at a time tries; its success closes the circuit."""
    feed(circuit, True, True, True, True)
    clock.now += 14.5
    with pytest.raises(GatewayError):
        circuit.admit()
    clock.now += 0.5
    assert circuit.state is CircuitState.HALF_OPEN
    probe = circuit.admit()
    with pytest.raises(GatewayError):
        circuit.admit()
    circuit.record(probe, failed=False)
    assert circuit.state is CircuitState.CLOSED


def test_failed_probe_opens_it_again(circuit: CircuitBreaker, clock: FakeClock) -> None:
    """A probe that fails starts the pause anew."""
    feed(circuit, True, True, True, True)
    clock.now += 16
    feed(circuit, True)
    assert circuit.state is CircuitState.OPEN


def test_probe_that_tells_nothing_lets_another_try(
    circuit: CircuitBreaker, clock: FakeClock
) -> None:
    """A probe that was given up by its caller does not keep others from trying."""
    feed(circuit, True, True, True, True)
    clock.now += 16
    circuit.discard(circuit.admit())
    circuit.admit()


def test_late_news_has_no_say(circuit: CircuitBreaker, clock: FakeClock) -> None:
    """A request from before the opening neither closes the circuit nor frees the probe's place."""
    late, later = circuit.admit(), circuit.admit()
    feed(circuit, True, True, True, True)
    clock.now += 16
    circuit.admit()
    circuit.discard(late)
    circuit.record(later, failed=False)
    assert circuit.state is not CircuitState.CLOSED
    with pytest.raises(GatewayError):
        circuit.admit()


async def test_failing_platform_is_left_alone(start_gateway, platform: Platform) -> None:
    """While the circuit is open the platform sees nothing, and readiness says why."""
    settings = {"failure_ratio": 0.5, "min_requests": 3, "window": 10, "open_for": 60}
    async with start_gateway(circuit_breaker=settings) as gateway:
        platform.answer(page(500))
        for _ in range(3):
            assert (await ask(gateway.address, post("/fhir/Patient", b"{}"))).status == 500
        reply = await ask(gateway.address, post("/fhir/Patient", b"{}"))
        assert (reply.status, reply.reason) == (503, "circuit-open")
        assert 1 <= int(reply.header("retry-after") or 0) <= 60
        assert len(platform.seen) == 3
        assert await gateway.metric("dhp_gateway_circuit_state") == 2
        status, body = await gateway.ready()
        assert (status, body["failing"]) == (503, ["circuit"])


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


def test_every_answer_is_told(clock: FakeClock) -> None:
    """Also one of before the circuit opened; a failure is none."""
    told: list[float] = []
    circuit = CircuitBreaker(SETTINGS, clock, lambda: told.append(clock.now))
    early = circuit.admit()
    for _ in range(SETTINGS.min_requests):
        circuit.record(circuit.admit(), failed=True)
    assert circuit.state is CircuitState.OPEN
    assert told == []
    circuit.record(early, failed=False)
    assert len(told) == 1
    assert circuit.state is CircuitState.OPEN


def test_a_question_passes_an_open_circuit(circuit: CircuitBreaker, clock: FakeClock) -> None:
    """A failed probe does not prolong the open state; a successful one closes the circuit."""
    for _ in range(SETTINGS.min_requests):
        circuit.record(circuit.admit(), failed=True)
    clock.now += SETTINGS.open_for - 1
    circuit.record(circuit.admit(allow_when_open=True), failed=True)
    clock.now += 1
    assert circuit.state is CircuitState.HALF_OPEN
    circuit.record(circuit.admit(), failed=True)
    assert circuit.state is CircuitState.OPEN
    circuit.record(circuit.admit(allow_when_open=True), failed=False)
    assert circuit.state is CircuitState.CLOSED
