"""Where the discovery document of an SSO is found, and what happens without it.

The addresses are those of servers as they are installed: Keycloak, Glewlwyd (with its doubled
slash), django-oauth-toolkit, LemonLDAP::NG, zitadel/oidc, Better Auth, and the ministry's SSO.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.doubles.platform import Platform
from tests.doubles.sso import ReceivedRequest, ScriptedResponse, json_body, status, token
from tests.login.provider import Provider, back, signed_in
from tests.login.stage import Browser, Stage, stage

KEYCLOAK = "/realms/clinic/protocol/openid-connect"
DOCUMENT = "/.well-known/openid-configuration"


@asynccontextmanager
async def open_gateway(
    sso: Provider,
    authorize: str | None,
    token_path: str,
    issuer: str | None = None,
    scope: str | None = "openid",
) -> AsyncIterator[Stage]:
    """Yield a gateway with these settings; the paths are of the SSO's origin."""
    urls = {"token_url": token_path, "authorize_url": authorize, "issuer": issuer}
    settings = {key: f"{sso.origin}{path}" for key, path in urls.items() if path is not None}
    async with (
        Platform() as platform,
        stage(platform.url, sso.token_url, "", sso=settings, login={"scope": scope}) as scene,
    ):
        yield scene


def metadata_requests(sso: Provider) -> list[str]:
    """Return the paths at which the SSO was asked for a document."""
    return [seen.target for seen in sso.requests if seen.target.endswith(DOCUMENT)]


# By server: the path of the issuer and its final slash; authorize_url, token_url and issuer.
FOUND: dict[str, tuple[tuple[str, str], tuple[str | None, str, str | None]]] = {
    "Keycloak": (("/realms/clinic", ""), (f"{KEYCLOAK}/auth", f"{KEYCLOAK}/token", None)),
    "Glewlwyd": (("/api/oidc", ""), ("//api/oidc/auth", "//api/oidc/token", None)),
    "Django": (("/o", ""), ("/o/authorize/", "/o/token/", None)),
    "LemonLDAP::NG": (("", "/"), ("/oauth2/authorize", "/oauth2/token", None)),
    "zitadel": (("", "/"), ("/authorize", "/oauth/token", None)),
    "Better Auth": (
        ("/api/auth", ""),
        ("/api/auth/oauth2/authorize", "/api/auth/oauth2/token", None),
    ),
    "at the origin": (("", ""), ("/authorize", "/oauth/token", None)),
    "the issuer as authorize_url": (
        ("/realms/clinic", ""),
        ("/realms/clinic", f"{KEYCLOAK}/token", None),
    ),
    "below token_url only": (("/realms/clinic", ""), ("/sign-in", f"{KEYCLOAK}/token", None)),
    "named": (("/tenant", ""), ("/login/authorize", "/login/token", "/tenant")),
    "named with a final slash": (("/tenant", ""), ("/authorize", "/token", "/tenant/")),
    "named, with a final slash itself": (("/tenant", "/"), ("/authorize", "/token", "/tenant")),
    "named by its document": (("/tenant", ""), ("/authorize", "/token", f"/tenant{DOCUMENT}")),
    "named alone": (("/tenant", ""), (None, "/token", "/tenant")),
}


@pytest.mark.parametrize("name", FOUND)
async def test_metadata_is_found(name: str) -> None:
    (path, slash), settings = FOUND[name]
    async with (
        Provider(openid=True, path=path, slash=slash) as sso,
        open_gateway(sso, *settings) as scene,
    ):
        browser = await scene.browser()
        begun = await browser.begin()
        assert begun.location.startswith(f"{sso.base}/found/authorize?")
        await signed_in_as(browser, sso, expected=502, iss="https://evil.example")
        await signed_in_as(browser, sso, expected=302)
        out = json.loads((await browser.post("/auth/logout")).text)
        assert out["end_session_url"].startswith(f"{sso.base}/bye?")
        assert len(sso.revocations) == 1


async def signed_in_as(browser: Browser, sso: Provider, *, expected: int, **claims: Any) -> None:
    """Sign in with an ID token of these claims; the callback has the expected status."""
    begun = await browser.begin()
    id_token = sso.id_token(begun.query["nonce"], **claims)
    sso.user_tokens(token("opaque", id_token=id_token, refresh_token="planted-refresh"))
    assert (await browser.open(back(begun))).status == expected


MISSING: dict[str, tuple[dict[str, Any], tuple[str, str, str | None]]] = {
    "none": ({"openid": False}, ("/authorize", "/oauth/token", None)),
    "the ministry's": ({"openid": False}, ("", "/oauth/token", None)),
    "another issuer's": (
        {"openid": True, "path": "/realms/other"},
        (f"{KEYCLOAK}/auth", f"{KEYCLOAK}/token", None),
    ),
    "not where it is said to be": (
        {"openid": True},
        ("/authorize", "/oauth/token", "/realms/clinic"),
    ),
}


@pytest.mark.parametrize("name", MISSING)
async def test_without_metadata_the_scope_openid_makes_the_login_unavailable(name: str) -> None:
    options, settings = MISSING[name]
    async with Provider(**options) as sso, open_gateway(sso, *settings) as scene:
        page = await (await scene.browser()).open("/auth/login?return_to=/fhir/Patient")
        assert (page.status, page.headers["Content-Type"]) == (503, "text/html; charset=utf-8")
        assert "Retry-After" in page.headers
        assert "Location" not in page.headers


@pytest.mark.parametrize("name", MISSING)
async def test_without_metadata_oauth_without_openid_works(name: str) -> None:
    options, settings = MISSING[name]
    async with Provider(**options) as sso, open_gateway(sso, *settings, scope=None) as scene:
        browser = await scene.browser()
        begun = await browser.begin()
        assert begun.location.startswith(f"{sso.origin}{settings[0]}?")
        assert (await browser.open(back(begun))).status == 302
        assert (await browser.get("/fhir/Patient/1")).status == 200


@pytest.mark.parametrize(
    "issuer",
    ["https://evil.example", "http://127.0.0.1:1", "{base}/other", "{base}//", "", None, 7],
)
async def test_metadata_of_another_issuer_is_ignored(issuer: Any) -> None:
    """Its issuer has to be the one below which it was found (mix-up)."""
    async with (
        Provider(openid=True, path="/realms/clinic") as sso,
        open_gateway(sso, f"{KEYCLOAK}/auth", f"{KEYCLOAK}/token") as scene,
    ):
        sso.says["issuer"] = issuer.format(base=sso.base) if isinstance(issuer, str) else issuer
        page = await (await scene.browser()).open("/auth/login")
        assert page.status == 503


async def test_metadata_published_later_is_found() -> None:
    async with (
        Provider(openid=False, path="/o") as sso,
        open_gateway(sso, "/o/authorize/", "/o/token/") as scene,
    ):
        browser = await scene.browser()
        assert (await browser.open("/auth/login")).status == 503
        sso.openid = True
        page = await browser.open("/auth/login")
        for _ in range(100):
            if page.status == 302:
                break
            await asyncio.sleep(0.3)
            page = await browser.open("/auth/login")
        assert page.location.startswith(f"{sso.base}/found/authorize?")


async def test_metadata_is_cached() -> None:
    async with (
        Provider(openid=True, path="/o") as sso,
        open_gateway(sso, "/o/authorize/", "/o/token/") as scene,
    ):
        browser = await scene.browser()
        await browser.begin()
        sso.openid = False
        await signed_in_as(browser, sso, expected=302)


async def test_no_code_is_redeemed_without_metadata() -> None:
    async with (
        Provider(openid=True, path="/o") as sso,
        open_gateway(sso, "/o/authorize/", "/o/token/") as scene,
    ):
        browser = await scene.browser()
        begun = await browser.begin()
        sso.openid = False
        await scene.gateway.gateway.reload(scene.gateway.settings)
        assert (await browser.open(back(begun))).status == 503
        assert sso.user_requests == []


class Redirecting(Provider):
    """An SSO that answers a request for a document with a redirect."""

    elsewhere = ""

    def response_to(self, request: ReceivedRequest) -> ScriptedResponse:
        if request.target.endswith(DOCUMENT):
            return status(302, ("Location", self.elsewhere))
        return super().response_to(request)


async def test_redirects_of_metadata_are_not_followed() -> None:
    async with Provider(openid=True) as other, Redirecting() as sso:
        sso.elsewhere = f"{other.issuer}{DOCUMENT}"
        async with open_gateway(sso, "/authorize", "/oauth/token") as scene:
            assert (await (await scene.browser()).open("/auth/login")).status == 503
    async with Provider(openid=True) as other, Provider(openid=True) as sso:
        sso.says["jwks_uri"] = f"{other.issuer}/jwks"
        async with open_gateway(sso, "/authorize", "/oauth/token") as scene:
            await signed_in_as(await scene.browser(), sso, expected=302)
        assert [request.target for request in other.requests] == ["/jwks"]


async def test_metadata_requests_are_bounded() -> None:
    path = "/a" * 60
    async with Provider() as sso, open_gateway(sso, f"{path}/auth", f"{path}/token") as scene:
        browser = await scene.browser()
        for _ in range(3):
            assert (await browser.open("/auth/login")).status == 503
        assert 1 < len(metadata_requests(sso)) <= 24


async def test_invalid_metadata_is_ignored() -> None:
    async with Documented() as sso, open_gateway(sso, "/authorize", "/oauth/token") as scene:
        browser = await scene.browser()
        for document in ([], {}, "x" * 100_000, {"issuer": ["a"]}, {"issuer": None}):
            sso.document = document
            assert (await browser.open("/auth/login")).status == 503


class Documented(Provider):
    """An SSO with any document."""

    document: Any = None

    def response_to(self, request: ReceivedRequest) -> ScriptedResponse:
        if request.target.endswith(DOCUMENT):
            return json_body(self.document)
        return super().response_to(request)


@pytest.mark.parametrize("url", ["http://[", "ftp://127.0.0.1/x", "http://127.0.0.1:99999/x", 7])
async def test_unusable_urls_in_metadata_are_ignored(url: Any) -> None:
    names = ("end_session_endpoint", "revocation_endpoint", "authorization_endpoint")
    async with (
        Provider(openid=True) as sso,
        open_gateway(sso, "/authorize", "/oauth/token") as scene,
    ):
        sso.says.update(dict.fromkeys(names[:2], url), jwks_uri=f"{sso.base}/jwks")
        browser = await scene.browser()
        await signed_in_as(browser, sso, expected=302)
        assert (await browser.post("/auth/logout")).status == 200
    async with (
        Provider(openid=True) as sso,
        open_gateway(sso, "/authorize", "/oauth/token") as scene,
    ):
        sso.says["jwks_uri"] = url
        await signed_in_as(await scene.browser(), sso, expected=502)
        assert (await signed_in(await scene.browser())).status == 502
