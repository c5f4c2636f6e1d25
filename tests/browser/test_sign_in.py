"""Sign-in with a real browser at the sandbox's SSO and at oidc-provider, and attacks on it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from joserfc.jwk import ECKey

from tests.browser.conftest import BrowserUser, Sso
from tests.browser.pages import malicious_page, program, read, sign_out
from tests.doubles.platform import Platform
from tests.doubles.sections import CLIENT_SECRET
from tests.login.stage import LoggedSandbox, Stage, free_port, sandbox, stage


@contextlib.asynccontextmanager
async def demo() -> AsyncIterator[tuple[LoggedSandbox, Stage]]:
    """Yield the embedded platform with its example page, and a gateway that it may call."""
    port = free_port()
    base = f"http://127.0.0.1:{port}"
    async with sandbox(gateway_url=base) as platform:
        login = {
            "allowed_return_origins": [platform.origin],
            "cors_origins": [platform.origin],
        }
        async with stage(
            platform.fhir_base_url,
            platform.token_url,
            platform.authorize_url,
            login=login,
            port=port,
        ) as scene:
            yield platform, scene


async def agree(user: BrowserUser, tab: int = 0) -> None:
    """Sign in at the sandbox's page."""
    await user.do("fill", tab=tab, selector="#username", value="dr.karimova")
    await user.do("click", tab=tab, selector="button[value=allow]")


async def test_the_example_page_lists_patients(user: BrowserUser) -> None:
    async with demo() as (platform, _):
        await user.do("open", url=f"{platform.origin}/example")
        await user.do("wait", selector="#who", text="No user")
        await user.do("click", selector="#sign-in")
        await agree(user)
        listed = await user.do("wait", selector="#patients li")
        assert "Signed in: dr.karimova" in listed["text"]
        (cookie,) = (await user.do("cookies"))["cookies"]
        assert cookie["name"] == "dhp-session"
        assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Lax")
        await user.do("click", selector="#sign-out")
        await user.do("wait", selector="#who", text="No user")
        assert (await user.do("cookies"))["cookies"] == []


async def test_sign_in_works_in_two_tabs_and_after_the_back_button(user: BrowserUser) -> None:
    async with demo() as (_, scene):
        wanted = [f"{scene.base}/fhir/Patient?_count={n}" for n in (1, 2)]
        for tab, url in enumerate(wanted):
            await user.do("open", tab=tab, url=url)
        for tab in (1, 0):
            await agree(user, tab)
            await user.do("arrive", tab=tab, url=wanted[tab])
        await user.do("back", tab=0)
        await agree(user)
        await user.do("arrive", url=wanted[0])


async def test_a_certified_provider_with_private_key_jwt(
    user: BrowserUser, certified_sso: Sso, tmp_path: Path
) -> None:
    key = ECKey.generate_key("P-384", {"use": "sig", "alg": "ES384"}, auto_kid=True)
    file = tmp_path / "key.pem"
    file.write_bytes(key.as_pem(private=True))
    web = {
        "token_endpoint_auth_method": "private_key_jwt",
        "token_endpoint_auth_signing_alg": "ES384",
        "jwks": {"keys": [key.as_dict(private=False)]},
    }
    login = {"scope": "openid", "auth_method": "private_key_jwt", "private_key_file": str(file)}
    port = free_port()
    base = f"http://127.0.0.1:{port}"
    client = {"id": "hospital-17", "secret": CLIENT_SECRET}
    redirect_uri = f"{base}/auth/callback"
    async with (
        certified_sso(redirectUri=redirect_uri, client=client, lifetime=2, web=web) as issuer,
        Platform() as platform,
        program(free_port()) as page,
        stage(
            platform.url,
            f"{issuer}/token",
            issuer,
            login={**login, "cors_origins": [page]},
            port=port,
        ) as scene,
    ):
        await user.do("open", url=f"{base}/fhir/Patient/1")
        await user.do("fill", selector="input[name=login]", value="dr.karimova")
        await user.do("fill", selector="input[name=password]", value="any")
        await user.do("click", selector="button[type=submit]")
        await user.do("wait", selector="button", text="Continue")
        await user.do("click", selector="button[type=submit]")
        landed = await user.do("arrive", url=f"{base}/fhir/Patient/1")
        assert '"resourceType":"Patient"' in landed["text"]
        assert (await user.do("open", tab=1, url=f"{base}/fhir/Patient/2"))["status"] == 200
        for tab in (0, 1):
            await user.do("open", tab=tab, url=page)
        tokens: set[str | None] = set()
        while len(tokens) < 3:
            assert [await user.run(read(base), tab=tab) for tab in (0, 1)] == [200, 200]
            tokens = {request.header("authorization") for request in platform.requests}
        assert (await user.run(sign_out(base)))["signed_in"] is False
        assert [await user.run(read(base), tab=tab) for tab in (0, 1)] == [401, 401]
        (login,) = await scene.audit("login")
        assert (login["user"], login["outcome"]) == ("dr.karimova", "success")
        shown = str(await user.do("seen"))
        assert "dr.karimova" in shown
        assert [token for token in tokens if (token or "").removeprefix("Bearer ") in shown] == []


async def test_a_page_of_another_origin_cannot_write_read_or_sign_out(user: BrowserUser) -> None:
    async with demo() as (platform, scene), malicious_page() as evil:
        await user.do("open", url=f"{scene.base}/fhir/Patient?_count=1")
        await agree(user)
        await user.do("arrive", url=f"{scene.base}/fhir/Patient")
        before = platform.count(" /fhir/")
        await user.do("open", tab=1, url=evil)
        for path in ("/auth/logout", "/fhir/Patient"):
            blind, *readable = await _attempts(user, scene.base + path)
            assert blind in ("opaque", "failed")
            assert readable == ["failed", "failed"]
        await user.run(f"document.querySelector('iframe').src = '{scene.base}/auth/session'", tab=1)
        assert platform.count(" /fhir/") == before
        # As a whole page, where the browser sends the cookie of a form at most for a GET.
        whole = f"form.action = '{scene.base}/auth/logout', form.target = '_self', form.submit()"
        await user.run(f"void ({whole})", tab=1)
        # For each path a form and a fetch that needs no preflight, and the whole page.
        assert set(await _statuses_of_posts(scene, 5)) == {401, 403}
        await user.do("open", url=f"{scene.base}/auth/session")
        assert await user.run("JSON.parse(document.body.innerText).signed_in")


async def _statuses_of_posts(scene: Stage, count: int) -> list[int]:
    """Return the statuses of the POSTs, once there are so many."""
    async with asyncio.timeout(60):
        while True:
            records = await scene.audit("exchange")
            found = [each["status"] for each in records if each["method"] == "POST"]
            if len(found) >= count:
                return found
            await asyncio.sleep(0.05)


async def _attempts(user: BrowserUser, url: str) -> list[Any]:
    """Return the results of fetches in all modes, after a form was sent."""
    await user.run(f"void (form.action = '{url}', form.submit())", tab=1)
    options = [
        "{method: 'POST', mode: 'no-cors', credentials: 'include', body: '{}'}",
        "{method: 'POST', credentials: 'include', headers: {'X-Requested-With': 'x'}}",
        "{credentials: 'include'}",
    ]
    return [
        await user.run(
            f"fetch('{url}', {each}).then(answer => answer.type).catch(() => 'failed')", tab=1
        )
        for each in options
    ]
