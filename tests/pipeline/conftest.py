"""A platform, an SSO, and a gateway between them and its callers."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import ssl
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
import uvloop

from tests.doubles.certificates import Pki
from tests.doubles.gateway import RunningGateway, running_gateway
from tests.doubles.hurried_loop import HurriedLoop
from tests.doubles.platform import Platform
from tests.doubles.sso import Sso
from tests.doubles.waiting import wait_until_idle
from tests.http.client.tls_ends import VERSIONS
from tests.pipeline import shared
from tests.pipeline.testbed import Testbed

servers, sections = shared.servers, shared.sections

StartGateway = Callable[..., AbstractAsyncContextManager[RunningGateway]]
LoopFactory = Callable[[], asyncio.AbstractEventLoop]


# By a part of a test's path: it depends on the event loop; it waits for timeouts.
_ON_BOTH = ("/test_tls_", "/test_listener", "/test_half_closed")
_WAITING = (
    *(
        "/faults/",
        "/test_silent_callers",
        "/test_poisoned",
        "/test_forced_fetches",
        "/test_half_closed",
    ),
    *("/test_condition_guard", "/test_second_attempts", "/test_resilience", "/test_circuit_"),
    *("/test_kept_", "/test_upstream_pool", "/test_non_fhir", "/test_tls_handshake"),
    *("/test_listener.py::test_a_caller", "/test_listener.py::test_a_closed"),
)


def pytest_asyncio_loop_factories(item: pytest.Item) -> Mapping[str, LoopFactory]:
    """Run tests that depend on the event loop on asyncio's, as on Windows, and on uvloop."""
    waits = any(name in item.nodeid for name in _WAITING)
    loops: dict[str, LoopFactory] = {"asyncio": HurriedLoop if waits else asyncio.new_event_loop}
    if any(name in item.nodeid for name in _ON_BOTH):
        loops["uvloop"] = uvloop.new_event_loop
    return loops


@pytest.fixture
def start_gateway(platform: Platform, sso: Sso) -> StartGateway:
    """Return a function that starts a gateway with some settings changed.

    At its end no request may be in flight.
    """

    @contextlib.asynccontextmanager
    async def start(**sections: Any) -> AsyncIterator[RunningGateway]:
        async with running_gateway(platform.url, sso.token_url, **sections) as gateway:
            yield gateway
            await wait_until_idle(gateway)

    return start


@pytest.fixture
async def gateway(start_gateway: StartGateway) -> AsyncIterator[RunningGateway]:
    """Yield a gateway with default settings."""
    async with start_gateway() as started:
        yield started


@pytest.fixture
async def testbed(platform: Platform, sso: Sso) -> AsyncIterator[Testbed]:
    testbed = Testbed(platform, sso)
    async with testbed.stack:
        yield testbed


@pytest.fixture(params=VERSIONS, ids=["1.2", "1.3"])
def version(request: pytest.FixtureRequest) -> ssl.TLSVersion:
    found: ssl.TLSVersion = request.param
    return found


@pytest.fixture
def tls(tmp_path: Path) -> tuple[dict[str, Any], ssl.SSLContext]:
    """Return the settings of a TLS listener, and a context that trusts it."""
    pki = Pki(tmp_path)
    return {"tls": pki.settings()["tls"]}, pki.client()


@pytest.fixture
def uncollected() -> Iterator[None]:
    """Disable the garbage collector, so that only reference counts free objects."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()
