"""Every failed request can be found in the log by the id that its caller got."""

from __future__ import annotations

import json

import pytest

from tests.doubles.platform import Platform, page
from tests.doubles.processes import free_port
from tests.doubles.wire import fetch, get, post
from tests.lifecycle.conftest import StartService


@pytest.mark.parametrize("log_format", ["json", "console"])
async def test_in_outage_each_failed_requests_id_is_in_log(
    start_service: StartService, platform: Platform, log_format: str
) -> None:
    platform.respond(page(500))
    service = await start_service.ready(
        # The log has the address as JSON only.
        listen={"address": f"127.0.0.1:{free_port()}"},
        audit={"sink": "off"},
        log={"format": log_format},
        circuit_breaker={"min_requests": 50},
        shutdown={"delay": 0},
    )
    given = set()
    for number in range(150):
        request = get("/fhir/Patient/1") if number % 2 else post("/fhir/Patient", b"{}")
        response = await fetch(service.address, request)
        assert response.status >= 500
        given.add(response.header("x-request-id"))
    await service.end()
    log = service.process.stderr
    assert [each for each in given if str(each) not in log] == []
    assert max(map(len, log.splitlines())) < 4096
    assert len(log.splitlines()) < 40
    if log_format == "json":
        lines = [json.loads(line) for line in log.splitlines()]
        assert sum(len(line.get("request_ids", ())) for line in lines) > 100
