"""A base URL in the platform's CapabilityStatement that the settings lack is logged."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from tests.doubles.platform import Platform, declaring, fhir
from tests.doubles.wire import fetch, get

# Base URLs that a platform uses for itself; `{port}` is its port.
BASES = {
    "another host": "http://fhir.internal:{port}/r5",
    "another port": "http://127.0.0.1:1/r5",
    "another path": "http://127.0.0.1:{port}/fhir",
    "IPv6": "http://[::1]:{port}/r5",
}
SEARCH = get("/fhir/Patient?name=a")


def statement(**implementation: Any) -> bytes:
    body = {"resourceType": "CapabilityStatement", "implementation": implementation}
    return fhir(json.dumps(body).encode())


def page(base: str) -> bytes:
    link = [{"relation": "next", "url": f"{base}/Patient?name=a&_page=2"}]
    return json.dumps({"resourceType": "Bundle", "type": "searchset", "link": link}).encode()


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the warnings that name the setting."""
    return [
        record.getMessage()
        for record in caplog.records
        if record.levelno == logging.WARNING and "rewrite.aliases" in record.getMessage()
    ]


async def search(start_gateway, settings: dict[str, Any]) -> bytes:
    """Return the body of a search, after the gateway has read the statement."""
    async with start_gateway(**settings) as gateway:
        bodies = [(await fetch(gateway.address, SEARCH)).body for _ in range(3)]
    assert len(set(bodies)) == 1
    return bodies[0]


@pytest.mark.parametrize("name", BASES)
async def test_an_unknown_base_of_the_statement_is_logged(
    start_gateway, platform: Platform, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    """With it in the settings all links name the gateway."""
    base = BASES[name].format(port=platform.url.rpartition(":")[2].partition("/")[0])
    platform.respond(declaring(statement(url=f"{base}/"), fhir(page(base))))
    assert await search(start_gateway, {}) == page(base)
    [warning] = warnings(caplog)
    assert f" {base}:" in warning
    caplog.clear()
    found = await search(start_gateway, {"rewrite": {"aliases": [base]}})
    assert found == page("http://gateway/fhir")
    assert warnings(caplog) == []


@pytest.mark.parametrize("url", ["{here}", "{here}/", "no URL", "urn:uuid:1", "", 5, None])
async def test_a_statement_without_an_unknown_base_is_not_logged(
    start_gateway, platform: Platform, caplog: pytest.LogCaptureFixture, url: object
) -> None:
    value = url.format(here=platform.url) if isinstance(url, str) else url
    platform.respond(declaring(statement(url=value), fhir(page(platform.url))))
    await search(start_gateway, {})
    assert warnings(caplog) == []


async def test_without_rewriting_no_base_is_logged(
    start_gateway, platform: Platform, caplog: pytest.LogCaptureFixture
) -> None:
    platform.respond(declaring(statement(url="https://fhir.clinic.uz/r5"), fhir(page("urn:x"))))
    await search(start_gateway, {"rewrite": {"enabled": False}})
    assert warnings(caplog) == []
