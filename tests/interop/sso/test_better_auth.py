"""The rows of Better Auth, and sign-ins for which it gives no refresh token."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest

from tests.interop import table
from tests.interop.sso.better_auth import BetterAuth
from tests.interop.sso.conftest import row_of
from tests.interop.sso.front import TokenRequest
from tests.interop.sso.rows import ClientRows, SignInRows
from tests.interop.sso.stage import Stage


class TestClients(ClientRows):
    """Clients without users."""

    server = BetterAuth


class TestSignIn(SignInRows):
    """Users of a browser."""

    server = BetterAuth

    @pytest.fixture(autouse=True)
    def _note(self, request: pytest.FixtureRequest) -> None:
        if row_of(request.node) == "sign_out":
            table.note(request.node, "its page to confirm blocks the redirect to the gateway (CSP)")


@pytest.mark.row("doctor: wrong secret of the sign-in")
@pytest.mark.column("SSO", BetterAuth.name)
def test_doctor(stage: Stage) -> None:
    login = {
        **stage.server.login_settings(),
        "enabled": True,
        "client_secret": "wrong",
        "redirect_uri": f"{stage.server.gateway}/auth/callback",
    }
    credentials = {"default": stage.marked("doctor")}
    _, doctor = stage.begin(
        stage.check_and_doctor("doctor", credentials=credentials, login=login)
    ).result()

    assert "skipped login client: the SSO's response does not show it: invalid_grant" in doctor.out


@dataclass(frozen=True, slots=True)
class Seen:
    """What a user saw, from the sign-in to a page that was opened after the session's end."""

    landed: dict[str, Any]
    statuses: list[int]
    refreshes: list[TokenRequest]
    again: dict[str, Any]


@pytest.mark.row("session without a refresh token")
@pytest.mark.column("SSO", BetterAuth.name)
def test_no_refresh_token(stage: Stage) -> None:
    """The session ends with its token, and the next page leads through the SSO without a password.

    The one refresh has the cookie of the load balancer alone, and a POST with a cookie and without
    an Origin is refused there.
    """
    seen = stage.begin(_sign_in(stage)).result()

    assert seen.landed["resourceType"] == seen.again["resourceType"] == "Patient"
    assert set(seen.statuses[:-1]) == {200}
    assert seen.statuses[-1] == 401
    (refresh,) = seen.refreshes
    assert refresh.has_cookie
    assert 400 <= refresh.status < 500


def _has_token(request: TokenRequest) -> bool:
    return "refresh_token" in request.keys


async def _sign_in(stage: Stage) -> Seen:
    server = stage.server
    assert isinstance(server, BetterAuth)
    origin = server.second_gateway
    await stage.start_login_gateway("no-refresh-token", origin, scope="openid profile")
    page = {"Accept": "text/html"}
    jar = aiohttp.CookieJar(unsafe=True)
    async with aiohttp.ClientSession(cookie_jar=jar) as session:
        async with session.get(f"{origin}/fhir/Patient/1", headers=page) as response:
            query = response.url.raw_query_string
        answer = {"email": server.email, "password": server.password, "oauth_query": query}
        url = f"{server.public_url}/api/auth/sign-in/email"
        async with session.post(url, json=answer, headers={"Origin": server.public_url}) as told:
            callback = (await told.json())["url"]
        before = len(stage.front.token_requests)
        async with session.get(callback, headers=page) as response:
            landed = await response.json(content_type=None)
        statuses = [200]
        while statuses[-1] == 200:
            await asyncio.sleep(0.1)
            async with session.get(f"{origin}/fhir/Patient/2") as response:
                statuses.append(response.status)
        async with session.get(f"{origin}/fhir/Patient/3", headers=page) as response:
            again = await response.json(content_type=None)
    requests = stage.front.token_requests[before:]
    refreshes = [e for e in requests if e.grant_type == "refresh_token" and not _has_token(e)]
    return Seen(landed, statuses, refreshes, again)
