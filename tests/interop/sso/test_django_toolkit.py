"""The rows of django-oauth-toolkit, and ID tokens that are signed with the client's secret."""

from __future__ import annotations

import re
from typing import Any

import aiohttp
import pytest

from tests.interop.sso.django_toolkit import WEB_WITH_HS256, DjangoToolkit
from tests.interop.sso.rows import ClientRows, SignInRows
from tests.interop.sso.stage import Stage


class TestClients(ClientRows):
    """Clients without users."""

    server = DjangoToolkit


class TestSignIn(SignInRows):
    """Users of a browser."""

    server = DjangoToolkit


@pytest.mark.row("ID tokens signed with HS256")
@pytest.mark.column("SSO", DjangoToolkit.name)
def test_hs256(stage: Stage) -> None:
    landed, session = stage.begin(_sign_in(stage)).result()

    assert landed["resourceType"] == "Patient"
    assert session["user"] == DjangoToolkit.user


async def _sign_in(stage: Stage) -> tuple[dict[str, Any], dict[str, Any]]:
    server = stage.server
    assert isinstance(server, DjangoToolkit)
    origin = server.hs256_gateway
    await stage.start_login_gateway("hs256", origin, client_id=WEB_WITH_HS256)
    jar, browser = aiohttp.CookieJar(unsafe=True), {"Accept": "text/html"}
    async with aiohttp.ClientSession(cookie_jar=jar, headers=browser) as session:
        async with session.get(f"{origin}/fhir/Patient/1") as page:
            text = await page.text()
        (token,) = re.findall('name="csrfmiddlewaretoken" value="([^"]+)"', text)
        form = {
            "csrfmiddlewaretoken": token,
            "username": server.user,
            "password": server.password,
            "next": page.url.query["next"],
        }
        async with session.post(page.url, data=form) as response:
            landed = await response.json(content_type=None)
        async with session.get(f"{origin}/auth/session") as response:
            return landed, await response.json()
