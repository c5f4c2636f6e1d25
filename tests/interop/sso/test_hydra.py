"""The rows of Ory Hydra, and a user who revokes what she consented to."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import pytest

from tests.interop.sso.hydra import Hydra
from tests.interop.sso.rows import ClientRows, SignInRows
from tests.interop.sso.stage import Stage


class TestClients(ClientRows):
    """Clients without users."""

    server = Hydra


class TestSignIn(SignInRows):
    """Users of a browser."""

    server = Hydra


@pytest.mark.row("consent revoked at the SSO")
@pytest.mark.column("SSO", Hydra.name)
def test_revoked_consent(stage: Stage) -> None:
    landed, statuses, refreshes = stage.begin(_revoke_consent(stage)).result()

    assert landed["resourceType"] == "Patient"
    assert set(statuses[:-1]) == {200}
    assert statuses[-1] == 401
    assert refreshes == [400]


async def _revoke_consent(stage: Stage) -> tuple[dict[str, Any], list[int], list[int]]:
    """Return the page after the sign-in, and what reads and refreshes got after the revocation."""
    server = stage.server
    assert isinstance(server, Hydra)
    origin = server.second_gateway
    await stage.start_login_gateway("revoked-consent", origin)
    jar = aiohttp.CookieJar(unsafe=True)
    async with aiohttp.ClientSession(cookie_jar=jar) as session:
        page = {"Accept": "text/html"}
        async with session.get(f"{origin}/fhir/Patient/1", headers=page) as response:
            url = response.url
        user = {"username": server.user, "password": server.password}
        async with session.post(url, data=user, headers=page) as response:
            url = response.url
        async with session.post(url, headers=page) as response:
            landed = await response.json(content_type=None)
        before = len(stage.front.token_requests)
        consent = f"oauth2/auth/sessions/consent?subject={server.user}&all=true"
        await asyncio.to_thread(server.administer, "DELETE", consent)
        statuses = [200]
        while statuses[-1] == 200:
            await asyncio.sleep(0.1)
            async with session.get(f"{origin}/fhir/Patient/2") as response:
                statuses.append(response.status)
    requests = stage.front.token_requests[before:]
    refreshes = [each.status for each in requests if each.grant_type == "refresh_token"]
    return landed, statuses, refreshes
