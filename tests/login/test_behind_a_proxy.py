"""The sign-in behind a trusted proxy."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from gateway.login import auth_routes
from tests.doubles.processes import free_port
from tests.login.provider import between_doubles, signed_in
from tests.login.stage import Stage

INSIDE: dict[str, Any] = {"name": "inside", "networks": ["127.0.0.0/8", "198.51.100.7/32"]}


@pytest.fixture
async def proxied() -> AsyncIterator[Stage]:
    """Yield a gateway with a caller identified by network and a trusted proxy on loopback."""
    port = free_port()
    listen = {"address": f"127.0.0.1:{port}", "trusted_proxies": ["127.0.0.1/32"]}
    async with between_doubles(port=port, listen=listen, callers=[INSIDE]) as made:
        yield made.scene


async def test_a_caller_network_is_compared_with_the_forwarded_address(proxied: Stage) -> None:
    browser = await proxied.browser()
    stranger = await browser.get("/fhir/Patient/1", X_Forwarded_For="203.0.113.5")
    assert (stranger.status, stranger.headers["X-Gateway-Error"]) == (401, "caller-unauthenticated")
    assert (await browser.get("/fhir/Patient/1", X_Forwarded_For="198.51.100.7")).status == 200
    assert (await browser.open("/fhir/Patient/1", X_Forwarded_For="203.0.113.5")).status == 302


async def test_forwarded_addresses_are_limited_separately(
    proxied: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A busy machine asks more slowly than is permitted.
    monkeypatch.setattr(auth_routes, "_ADDRESS_RATE", 0.01)
    browser = await proxied.browser()
    for _ in range(500):
        answer = await browser.get("/auth/session", X_Forwarded_For="203.0.113.5")
        if answer.status != 200:
            break
    assert (answer.status, answer.headers["X-Gateway-Error"]) == (429, "rate-limited")
    assert int(answer.headers["Retry-After"]) >= 1
    assert (await browser.get("/auth/session", X_Forwarded_For="203.0.113.6")).status == 200


async def test_the_audit_has_the_forwarded_address(proxied: Stage) -> None:
    browser = await proxied.browser()
    browser.session.headers["X-Forwarded-For"] = "203.0.113.5"
    await signed_in(browser)
    (login,) = await proxied.audit("login")
    assert login["remote"] == "203.0.113.5"
    exchanges = await proxied.audit("exchange", 2)
    assert {each["remote"] for each in exchanges} == {"203.0.113.5"}
