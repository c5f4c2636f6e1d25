"""How soon delivery continues after an outage."""

from __future__ import annotations

import pytest

from gateway.outbox import delivery
from tests.doubles.platform import outcome
from tests.outbox.path.conftest import Open
from tests.outbox.path.harness import OutboxSetup, Response

# Seconds: longer than any test may take.
_LONG = 3000


async def test_a_response_to_a_read_ends_the_outage_delay(
    setup: OutboxSetup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "PROBE_INTERVAL", _LONG)
    kept = await _delayed_write(setup)
    assert (await setup.ask("GET", "/Patient/1")).status == 200
    assert (await setup.final_response(kept.location)).status == 200
    # At once: the next that the platform was asked.
    asked = [seen.target.rpartition("/r5")[2] for seen in setup.platform.requests]
    assert asked[asked.index("/Patient/1") + 1] == "/Observation/1"


async def test_a_probe_ends_the_outage_delay(setup: OutboxSetup) -> None:
    kept = await _delayed_write(setup)
    assert (await setup.final_response(kept.location)).status == 200
    assert any(seen.target.endswith("/metadata") for seen in setup.platform.gateway_requests)


async def test_the_probe_passes_an_open_circuit(opened: Open) -> None:
    breaker = {"min_requests": 2, "open_for": _LONG}
    async with opened(circuit_breaker=breaker) as setup:
        setup.relay.cut()
        for _ in range(3):
            await setup.ask("GET", "/Patient/1")
        kept = await setup.write()
        assert kept.status == 202
        assert (await setup.gateway.ready())[1]["checks"]["circuit"] == "failed"
        assert (await setup.deliver(kept.location)).status == 200


async def _delayed_write(setup: OutboxSetup) -> Response:
    """Queue a write whose two attempts got 503 with Retry-After."""
    setup.answer_writes(*[outcome(503, ("Retry-After", str(_LONG)))] * 2)
    kept = await setup.write()
    assert kept.status == 202
    await setup.wait_until_sent(2)
    await setup.wait_until_state("waiting", kept.location)
    return kept
