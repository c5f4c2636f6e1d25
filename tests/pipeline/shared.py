"""Fixtures of modules whose tests share one gateway, because none changes what it knows.

Such a module takes the mark and three fixtures as its own. Its settings are those of `sections`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio

from tests.doubles.gateway import RunningGateway, running_gateway
from tests.doubles.platform import Platform
from tests.doubles.sso import Sso
from tests.doubles.waiting import wait_until_idle

one_loop = pytest.mark.asyncio(loop_scope="module")
# For a platform whose failures are the subject: the circuit stays closed.
NO_CIRCUIT = {"circuit_breaker": {"failure_ratio": 1.0, "min_requests": 1_000_000}}


@dataclass
class Servers:
    """What the tests of a module share."""

    platform: Platform
    sso: Sso
    gateway: RunningGateway


@pytest.fixture(scope="module")
def sections() -> dict[str, Any]:
    return {}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def servers(sections: dict[str, Any]) -> AsyncIterator[Servers]:
    async with (
        Platform() as platform,
        Sso() as sso,
        running_gateway(platform.url, sso.token_url, **sections) as gateway,
    ):
        yield Servers(platform, sso, gateway)


@pytest.fixture
def platform(servers: Servers) -> Platform:
    """Return the platform without the requests and responses of other tests."""
    servers.platform.reset()
    return servers.platform


@pytest.fixture
def sso(servers: Servers) -> Sso:
    return servers.sso


@pytest_asyncio.fixture(loop_scope="module")
async def gateway(servers: Servers, platform: Platform) -> AsyncIterator[RunningGateway]:
    """Yield the gateway, which must be idle after each test."""
    servers.gateway.skip_audit()
    yield servers.gateway
    await wait_until_idle(servers.gateway)
