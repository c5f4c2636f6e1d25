"""A platform, an SSO, and a gateway between them and its callers."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import ssl
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest
import trustme
import uvloop

from tests.doubles.gateway import Running, running
from tests.doubles.platform import Platform
from tests.doubles.rest import come_to_rest
from tests.doubles.sso import Sso
from tests.http.client.tls_stage import VERSIONS
from tests.pipeline.stage import Stage

StartGateway = Callable[..., AbstractAsyncContextManager[Running]]
LoopFactory = Callable[[], asyncio.AbstractEventLoop]


def pytest_asyncio_loop_factories(item: pytest.Item) -> Mapping[str, LoopFactory]:
    """Run the tests of what depends on the event loop on both loops: Windows has asyncio's own."""
    loops: dict[str, LoopFactory] = {"asyncio": asyncio.new_event_loop}
    if any(name in item.nodeid for name in ("/test_tls_", "/test_listener", "/test_half_closed")):
        loops["uvloop"] = uvloop.new_event_loop
    return loops


@pytest.fixture
def start_gateway(platform: Platform, sso: Sso) -> StartGateway:
    """Return a function that starts a gateway with some settings changed.

    At its end no request may be in flight.
    """

    @contextlib.asynccontextmanager
    async def start(**sections: Any) -> AsyncIterator[Running]:
        async with running(platform.url, sso.token_url, **sections) as gateway:
            yield gateway
            await come_to_rest(gateway)

    return start


@pytest.fixture
async def gateway(start_gateway: StartGateway) -> AsyncIterator[Running]:
    """Yield a gateway with default settings."""
    async with start_gateway() as started:
        yield started


@pytest.fixture
async def stage(platform: Platform, sso: Sso) -> AsyncIterator[Stage]:
    """Yield a platform, an SSO, and what the test opens between them."""
    stage = Stage(platform, sso)
    async with stage.stack:
        yield stage


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    """Return the CA of the platform."""
    return trustme.CA()


@pytest.fixture(params=VERSIONS, ids=["1.2", "1.3"])
def version(request: pytest.FixtureRequest) -> ssl.TLSVersion:
    """Return each TLS version in use."""
    found: ssl.TLSVersion = request.param
    return found


@pytest.fixture
def uncollected() -> Iterator[None]:
    """Disable the garbage collector, so that only reference counts free objects."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()
