"""A hospital's day at servers and SSOs of others: through the gateway all is as it is without it.

Servers: sekmet-fhir, and Medplum's router. SSOs: sekmet-fhir's own, and oidc-provider. The doubles
of the other tests show only the cases that their authors thought of. These programs are packages of
an index; Medplum's whole server is not.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import aiohttp
import yaml

from tests.doubles.processes import GATEWAY_COMMAND, GatewayProcess, free_port, start
from tests.doubles.recording_proxy import RecordingProxy
from tests.interop.bearer_guard import BearerGuard
from tests.interop.drive import Leg, World, binary_as_it_is, drive, export, in_xml
from tests.interop.servers import Medplum, Sekmet, in_front_of, token_of
from tests.interop.stages import AUDIENCE, SECRETS, Begin, Sso

PERSON = {"id": "web", "secret": "the-secret-of-web", "authMethod": "client_secret_post"}


@contextlib.asynccontextmanager
async def medplum(node: str, sso: Sso, tmp_path: Path) -> AsyncIterator[RecordingProxy]:
    """Medplum's router behind a check of oidc-provider's tokens."""
    server = Medplum(tmp_path, node=node)
    try:
        await asyncio.to_thread(server.start)
        async with aiohttp.request("GET", sso.jwks_url) as answer:
            guard = BearerGuard(await answer.json(), sso.issuer, AUDIENCE)
        async with RecordingProxy(server.origin, guard).running() as proxy:
            yield proxy
    finally:
        server.end()


async def driven_both_ways(direct: World, through: World, *more: Leg) -> None:
    """Both answer alike, and no answer through the gateway is its own."""
    await drive(direct, *more)
    await drive(through, *more)
    assert [each.request for each in through.answers] == [each.request for each in direct.answers]
    for one, other in zip(direct.answers, through.answers, strict=True):
        assert other == one, one.request


@contextlib.asynccontextmanager
async def worlds(base: str, token: str, gateway: GatewayProcess) -> AsyncIterator[list[World]]:
    """The way without the gateway, and the one through it."""
    async with aiohttp.ClientSession() as session:
        bearer = {"Authorization": f"Bearer {token}"}
        yield [World(session, base, bearer), World(session, gateway.url)]


async def test_a_drive_at_sekmet(sekmet: Sekmet, begin_gateway: Begin) -> None:
    """Its own SSO knows the gateway by a signed assertion, its links are absolute."""
    gateway = begin_gateway(in_front_of(sekmet))
    await gateway.until_status(200)
    token = await token_of(sekmet.token_url, "lab-post", SECRETS["lab-post"])
    async with worlds(sekmet.base, token, gateway) as both:
        await driven_both_ways(*both, export, in_xml)


async def test_a_drive_at_medplums_router(
    node: str, sso: Sso, begin_gateway: Begin, tmp_path: Path
) -> None:
    """oidc-provider gives the tokens, the base has two segments."""
    async with medplum(node, sso, tmp_path) as server:
        base = f"{server.url}/fhir/R4"
        settings = {
            "platform": {"fhir_base_url": base},
            "sso": {"token_url": sso.token_url},
            "credentials": {"default": sso.credential("lab-basic")},
        }
        gateway = begin_gateway(settings)
        await gateway.until_status(200)
        token = await token_of(sso.token_url, "lab-post", SECRETS["lab-post"])
        async with worlds(base, token, gateway) as both:
            await driven_both_ways(*both, binary_as_it_is)


@contextlib.contextmanager
def gateway_with_sign_in(
    sso: Sso, base: str, listen: str, directory: Path
) -> Iterator[GatewayProcess]:
    """A gateway at an address that its SSO knows already."""
    admin = f"127.0.0.1:{free_port()}"
    settings = {
        "environment": "custom",
        "listen": {"address": listen},
        "admin": {"address": admin},
        "platform": {"fhir_base_url": base},
        "sso": {"token_url": sso.token_url, "authorize_url": f"{sso.issuer}/auth"},
        "credentials": {"default": sso.credential("lab-basic")},
        "login": {
            "enabled": True,
            "client_id": "web",
            "client_secret": PERSON["secret"],
            "redirect_uri": f"http://{listen}/auth/callback",
            "scope": "openid",
        },
        "shutdown": {"delay": 0},
    }
    file = directory / "gateway.yaml"
    file.write_text(yaml.safe_dump(settings))
    process = start([GATEWAY_COMMAND, "run", "--config", file], directory, name="gateway")
    try:
        yield GatewayProcess(process, f"http://{listen}/fhir", f"http://{admin}")
    finally:
        process.terminate()


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


async def test_a_person_drives(node: str, start_sso: Callable[..., Sso], tmp_path: Path) -> None:
    """Signed in at oidc-provider's own pages, with a session in the place of a key."""
    listen = f"127.0.0.1:{free_port()}"
    origin = f"http://{listen}"
    sso = start_sso(300, people=[PERSON | {"redirectUri": f"{origin}/auth/callback"}])
    async with medplum(node, sso, tmp_path) as server:
        base = f"{server.url}/fhir/R4"
        with gateway_with_sign_in(sso, base, listen, tmp_path) as gateway:
            await gateway.until_status(200)
            token = await token_of(sso.token_url, "lab-post", SECRETS["lab-post"])
            async with (
                aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as session,
                worlds(base, token, gateway) as (direct, without_session),
            ):
                await sign_in(session, f"{origin}/auth/login?return_to=/fhir/metadata")
                page = {"X-Requested-With": "page", "Origin": origin}
                await driven_both_ways(direct, World(session, gateway.url, page), binary_as_it_is)
                await session.post(f"{origin}/auth/logout", headers=page)
                for world in (World(session, gateway.url, page), without_session):
                    await world.ask("GET", "/Patient")
                    assert world.answers[-1].status == 401
    assert "web" in server.guard.clients
