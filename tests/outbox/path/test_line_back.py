"""How soon what waits goes on when the platform can be reached again."""

from __future__ import annotations

from tests.doubles.platform import outcome
from tests.outbox.path.conftest import Open
from tests.outbox.path.hospital import Hospital, Reply

# Seconds: longer than any test may take.
_LONG = 3000


async def test_a_read_ends_a_hold_of_the_whole_line(hospital: Hospital) -> None:
    """A 503 with Retry-After holds deliveries until the next read succeeds, not for so long."""
    kept = await _held(hospital)
    assert (await hospital.ask("GET", "/Patient/1")).status == 200
    assert (await hospital.ended(kept.location)).status == 200
    # At once: the next that the platform was asked, and not after a question of the gateway's own.
    asked = [seen.target.rpartition("/r5")[2] for seen in hospital.platform.requests]
    assert asked[asked.index("/Patient/1") + 1] == "/Observation/1"


async def test_without_traffic_a_light_question_ends_it(hospital: Hospital) -> None:
    """A probe ends the outage long before its end, without other requests to the platform."""
    kept = await _held(hospital)
    assert (await hospital.ended(kept.location)).status == 200
    assert any(seen.target.endswith("/metadata") for seen in hospital.platform.gateway_requests)


async def test_the_question_passes_an_open_circuit(opened: Open) -> None:
    """A line that is back is noticed without traffic, however long the circuit stays open."""
    breaker = {"min_requests": 2, "open_for": _LONG}
    async with opened(circuit_breaker=breaker) as hospital:
        hospital.line.cut()
        for _ in range(3):
            await hospital.ask("GET", "/Patient/1")
        kept = await hospital.write()
        assert kept.status == 202
        assert (await hospital.gateway.ready())[1]["checks"]["circuit"] == "failed"
        assert (await hospital.mended(kept.location)).status == 200


async def _held(hospital: Hospital) -> Reply:
    """The answer to a write of which the caller and the delivery were told to wait."""
    hospital.answer_writes(*[outcome(503, ("Retry-After", str(_LONG)))] * 2)
    kept = await hospital.write()
    assert kept.status == 202
    await hospital.wait_until_sent(2)
    await hospital.until("waiting", kept.location)
    return kept
