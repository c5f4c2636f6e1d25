"""Requests in a session, signed in at oidc-provider, get the responses of Medplum's router."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import aiohttp

from tests.doubles.processes import GatewayProcess, free_port, start_gateway
from tests.doubles.recording_proxy import RecordingProxy
from tests.doubles.sections import gateway_settings
from tests.interop.bearer_guard import BearerGuard
from tests.interop.drive import LEGS, World, compare_routes
from tests.interop.servers import Medplum, token_of
from tests.interop.stages import AUDIENCE, SECRETS, Sso

# What answers to a session have in addition.
FOR_BROWSERS = frozenset(
    (
        "content-security-policy",
        "cross-origin-resource-policy",
        "referrer-policy",
        "vary",
        "x-content-type-options",
    )
)
USER_CLIENT = {"id": "web", "secret": "the-secret-of-web", "authMethod": "client_secret_post"}


@contextlib.asynccontextmanager
async def medplum(node: str, sso: Sso, tmp_path: Path) -> AsyncIterator[RecordingProxy]:
    server = Medplum(tmp_path, node=node)
    try:
        await asyncio.to_thread(server.start)
        async with aiohttp.request("GET", sso.jwks_url) as answer:
            guard = BearerGuard(await answer.json(), sso.issuer, AUDIENCE)
        async with RecordingProxy(server.origin, guard).running() as proxy:
            yield proxy
    finally:
        server.end()


@contextlib.asynccontextmanager
async def worlds(base: str, token: str, gateway: GatewayProcess) -> AsyncIterator[list[World]]:
    async with aiohttp.ClientSession() as session:
        bearer = {"Authorization": f"Bearer {token}"}
        yield [World(session, base, bearer), World(session, gateway.url, behind=base)]


@contextlib.contextmanager
def gateway_with_sign_in(
    sso: Sso, base: str, listen: str, directory: Path
) -> Iterator[GatewayProcess]:
    settings = gateway_settings(
        base,
        sso.token_url,
        listen={"address": listen},
        sso={"authorize_url": f"{sso.issuer}/auth"},
        credentials={"default": sso.credential("lab-basic")},
        login={
            "enabled": True,
            "client_id": "web",
            "client_secret": USER_CLIENT["secret"],
            "redirect_uri": f"http://{listen}/auth/callback",
            "scope": "openid",
        },
    )
    gateway = start_gateway(settings, directory)
    try:
        yield gateway
    finally:
        gateway.process.terminate()


async def sign_in(session: aiohttp.ClientSession, url: str) -> None:
    """Go where a browser is sent, fill in two forms, and end at the statement."""
    fields = {"prompt": "login", "login": "dilnoza", "password": "any"}
    async with session.get(url, headers={"Accept": "text/html"}) as answer:
        page = await answer.text()
    for form in (fields, {"prompt": "consent"}):
        action = re.search(r'action="([^"]+)"', page)
        assert action is not None, page
        async with session.post(action[1], data=form) as answer:
            page = await answer.text()
    assert json.loads(page)["resourceType"] == "CapabilityStatement"


async def test_responses_in_a_session_equal_direct_ones(
    node: str, start_sso: Callable[..., Sso], tmp_path: Path
) -> None:
    listen = f"127.0.0.1:{free_port()}"
    origin = f"http://{listen}"
    sso = start_sso(300, user_clients=[USER_CLIENT | {"redirectUri": f"{origin}/auth/callback"}])
    async with medplum(node, sso, tmp_path) as server:
        base = f"{server.url}/fhir/R4"
        with gateway_with_sign_in(sso, base, listen, tmp_path) as gateway:
            await gateway.wait_for_status(200)
            token = await token_of(sso.token_url, "lab-post", SECRETS["lab-post"])
            async with (
                aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as session,
                worlds(base, token, gateway) as (direct, without_session),
            ):
                await sign_in(session, f"{origin}/auth/login?return_to=/fhir/metadata")
                legs = [each for each in LEGS if each not in Medplum.not_offered]
                page = {"X-Requested-With": "page", "Origin": origin}
                await compare_routes(
                    direct, World(session, gateway.url, page, base, FOR_BROWSERS), legs
                )
                await session.post(f"{origin}/auth/logout", headers=page)
                for world in (World(session, gateway.url, page), without_session):
                    await world.ask("GET", "/Patient")
                    assert world.answers[-1].status == 401
    assert "web" in server.guard.clients
