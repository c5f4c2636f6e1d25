"""FHIR servers of others: what each shows directly, it shows through the gateway.

All get the same requests, behind a proxy that checks oidc-provider's tokens and records what
arrives. The doubles of other tests know only the cases that their authors thought of.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from tests.doubles.processes import GatewayProcess, free_port, start_gateway
from tests.doubles.recording_proxy import RecordingProxy
from tests.interop.bearer_guard import BearerGuard
from tests.interop.drive import LEGS, World, driven_both_ways
from tests.interop.servers import FhirServer, Fhirstarter, Hapi, Medplum, Sekmet, token_of
from tests.interop.stages import AUDIENCE, SECRETS, Sso
from tests.interop.table import describe, not_offered

pytestmark = pytest.mark.asyncio(loop_scope="module")

SERVERS: dict[type[FhirServer], Callable[[pytest.FixtureRequest], dict[str, Any]]] = {
    Sekmet: lambda request: {"python": request.getfixturevalue("sekmet_python")},
    Fhirstarter: lambda request: {"python": request.getfixturevalue("fhirstarter_python")},
    Hapi: lambda request: request.getfixturevalue("hapi"),
    Medplum: lambda request: {"node": request.getfixturevalue("node")},
}


@dataclass(frozen=True, slots=True)
class Place:
    """A server, the proxy before it, and a gateway that has the same client for all callers."""

    server: FhirServer
    front: RecordingProxy
    guard: BearerGuard
    settings: dict[str, Any]
    gateway: GatewayProcess
    token: str

    @contextlib.asynccontextmanager
    async def worlds(self) -> AsyncIterator[tuple[World, World]]:
        """Yield the way without the gateway, and the one through it."""
        base = f"{self.server.public}{self.server.base_path}"
        async with aiohttp.ClientSession() as session:
            bearer = {"Authorization": f"Bearer {self.token}"}
            yield World(session, base, bearer), World(session, self.gateway.url, behind=base)


@pytest_asyncio.fixture(
    scope="module",
    loop_scope="module",
    params=[
        pytest.param(each, marks=pytest.mark.column("FHIR servers", each.name), id=each.__name__)
        for each in SERVERS
    ],
)
async def place(
    request: pytest.FixtureRequest, sso: Sso, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Place]:
    """Yield each server once, running."""
    kind: type[FhirServer] = request.param
    directory = tmp_path_factory.mktemp(kind.__name__)
    port = free_port()
    server = kind(directory, public=f"http://127.0.0.1:{port}", **SERVERS[kind](request))
    async with aiohttp.request("GET", sso.jwks_url) as answer:
        guard = BearerGuard(await answer.json(), sso.issuer, AUDIENCE)
    settings = {
        "platform": {"fhir_base_url": f"{server.public}{server.base_path}"},
        "sso": {"token_url": sso.token_url},
        "credentials": {"default": sso.credential("lab-basic")},
    }
    try:
        await asyncio.to_thread(server.start)
        async with RecordingProxy(server.origin, guard).running(port) as front:
            token = await token_of(sso.token_url, "lab-post", SECRETS["lab-post"])
            gateway = start_gateway(settings, directory)
            try:
                await gateway.until_status(200)
                yield Place(server, front, guard, settings, gateway, token)
            finally:
                gateway.process.terminate()
    finally:
        server.end()


@pytest.fixture(autouse=True)
def _described(request: pytest.FixtureRequest, place: Place) -> None:
    server = place.server
    describe(request.node, f"{server.version()}, {server.seconds:.1f} s to start")


@pytest.mark.parametrize(
    "leg", [pytest.param(each, marks=pytest.mark.row(each), id=each) for each in LEGS]
)
async def test_all_is_as_it_is_without_a_gateway(
    place: Place, leg: str, request: pytest.FixtureRequest
) -> None:
    """Every answer is equal in status, fields and octets, but for links, which lead here."""
    if leg in place.server.not_offered:
        return not_offered(request.node, place.server.not_offered[leg])
    async with place.worlds() as (direct, through):
        return await driven_both_ways(direct, through, [leg])
