"""Every failed request can be found by the id that its caller got."""

from __future__ import annotations

from tests.doubles.platform import Platform, page
from tests.doubles.wire import fetch, get, post
from tests.lifecycle.conftest import StartService


async def test_in_outage_each_failed_requests_id_is_in_audit_and_the_log_is_short(
    start_service: StartService, platform: Platform
) -> None:
    platform.respond(page(500))
    service = await start_service.ready(circuit_breaker={"min_requests": 50}, shutdown={"delay": 0})
    given = set()
    for number in range(150):
        request = get("/fhir/Patient/1") if number % 2 else post("/fhir/Patient", b"{}")
        response = await fetch(service.address, request)
        assert response.status >= 500
        given.add(response.header("x-request-id"))
    await service.end()
    assert given == {record["request_id"] for record in service.audit("exchange")}
    assert len(service.process.stderr.splitlines()) < 40
