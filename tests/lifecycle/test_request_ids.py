"""Every failed request can be found in the log by the id that its caller got."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from gateway.config.value_types import ListenAddress
from tests.doubles import sso as sso_answers
from tests.doubles.platform import Platform, http
from tests.doubles.processes import start_gateway
from tests.doubles.sso import Sso
from tests.doubles.wire import fetch, get, post


@pytest.mark.parametrize("log_format", ["json", "console"])
async def test_in_outage_each_failed_requests_id_is_in_log(tmp_path: Path, log_format: str) -> None:
    """Also without an audit, in few and short lines."""
    async with Platform() as platform, Sso() as sso:
        sso.respond(sso_answers.token("a-token"))
        platform.respond(http(500, b"<html>", ("Content-Type", "text/html")))
        configuration = {
            "platform": {"fhir_base_url": platform.url},
            "sso": {"token_url": sso.token_url},
            "credentials": {"default": {"client_id": "a", "client_secret": "planted-secret"}},
            "audit": {"sink": "off"},
            "log": {"format": log_format},
            "circuit_breaker": {"min_requests": 50},
            "shutdown": {"delay": 0},
        }
        process = start_gateway(configuration, tmp_path)
        await process.wait_for_status(200)
        url = urlsplit(process.url)
        address = ListenAddress(host="127.0.0.1", port=url.port or 0)
        given = set()
        for number in range(150):
            request = get("/fhir/Patient/1") if number % 2 else post("/fhir/Patient", b"{}")
            response = await fetch(address, request)
            assert response.status >= 500
            given.add(response.header("x-request-id"))
        assert process.process.terminate() == 0
    log = process.process.stderr
    assert [each for each in given if str(each) not in log] == []
    assert max(map(len, log.splitlines())) < 4096
    assert len(log.splitlines()) < 40
    if log_format == "json":
        lines = [json.loads(line) for line in log.splitlines()]
        assert sum(len(line.get("request_ids", ())) for line in lines) > 100
