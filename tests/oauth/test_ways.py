"""The way to the SSO: trust roots of one's own, an outgoing proxy, and both."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import trustme

from gateway.app.tls_contexts import sso_tls
from gateway.config.settings import Settings
from gateway.oauth.client_authentication import client_secret_post
from gateway.oauth.token_endpoint import TokenEndpoint
from gateway.oauth.token_response import TokenRequestError
from gateway.secret import Secret
from tests.doubles.certificates import server_context
from tests.doubles.connect_proxy import ConnectProxy
from tests.doubles.sso import Sso

SECRET = "planted-secret"
NAME = "sso.hospital.test"


@pytest.fixture
async def sso(ca: trustme.CA) -> AsyncIterator[Sso]:
    """An SSO with a certificate of that CA for a name that only the proxy knows."""
    async with Sso(tls=server_context(ca, NAME)) as running:
        yield running


@pytest.fixture
async def proxy() -> AsyncIterator[ConnectProxy]:
    async with ConnectProxy(hosts={NAME: "127.0.0.1"}) as running:
        yield running


async def ask(token_url: str, **sso: Any) -> str:
    """The token that a gateway with these settings gets, or the cause why there is none."""
    settings = Settings.model_validate(
        {
            "environment": "dhp-playground",
            "sso": {"token_url": token_url, "timeout": 5, **sso},
        }
    )
    authenticate = client_secret_post("id", Secret(SECRET))
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session:
        endpoint = TokenEndpoint(session=session, sso=settings.sso, tls=sso_tls(settings))
        try:
            return (
                await endpoint.request(authenticate, "grant_type=client_credentials")
            ).access_token.reveal()
        except TokenRequestError as error:
            return error.cause if error.kind == "transient" else error.kind


def url(sso: Sso) -> str:
    return f"https://{NAME}:{sso.port}/oauth/token"


async def test_an_https_sso_is_reached_by_connect(
    sso: Sso, proxy: ConnectProxy, tmp_path: Path, ca: trustme.CA
) -> None:
    assert await ask(url(sso), ca_file=tmp_path / "ca.pem", proxy_url=proxy.url) == "token-1"
    assert proxy.targets == [f"CONNECT {NAME}:{sso.port}"]
    assert len(sso.requests) == 1
    (request,) = sso.requests
    assert request.form["client_secret"] == SECRET
    assert request.headers["Host"] == f"{NAME}:{sso.port}"
    assert not [name for name in request.headers if name.lower().startswith("proxy")]
    assert SECRET.encode() not in proxy.relayed + b"".join(proxy.heads)
    assert b"token-1" not in proxy.relayed


async def test_an_http_sso_is_asked_through_the_proxy(proxy: ConnectProxy) -> None:
    async with Sso() as sso:
        assert await ask(sso.token_url, proxy_url=proxy.url) == "token-1"
        assert len(sso.requests) == 1
    assert len(proxy.targets) == 1
    assert "/oauth/token" in proxy.targets[0] or proxy.targets[0].startswith("CONNECT")


async def test_an_untrusted_certificate_is_rejected_in_the_tunnel(
    sso: Sso, proxy: ConnectProxy, ca: trustme.CA
) -> None:
    assert await ask(url(sso), proxy_url=proxy.url) == "certificate"
    assert sso.requests == []


async def test_the_certificate_must_name_the_sso(
    sso: Sso, proxy: ConnectProxy, ca: trustme.CA, tmp_path: Path
) -> None:
    proxy.hosts["other.test"] = "127.0.0.1"
    other = f"https://other.test:{sso.port}/oauth/token"
    cause = await ask(other, ca_file=tmp_path / "ca.pem", proxy_url=proxy.url)
    assert cause == "certificate name"
    assert sso.requests == []


async def test_ca_file_has_the_only_trusted_roots(ca: trustme.CA, tmp_path: Path) -> None:
    async with Sso(tls=server_context(ca)) as sso:
        here = f"https://localhost:{sso.port}/oauth/token"
        assert await ask(here, ca_file=tmp_path / "ca.pem") == "token-1"
        trustme.CA().cert_pem.write_to_path(tmp_path / "other.pem")
        assert await ask(here, ca_file=tmp_path / "other.pem") == "certificate"
        assert await ask(here) == "certificate"
        assert len(sso.requests) == 1


@pytest.mark.parametrize(
    ("code", "cause"),
    [
        (403, "proxy"),
        (407, "proxy password"),
        # Squid 5.7 and privoxy 3.0.34, for a host that refuses connections and an unknown name.
        (503, "proxy route"),
        (404, "proxy route"),
        (302, "proxy"),
    ],
)
async def test_a_refused_tunnel_is_transient(
    sso: Sso, proxy: ConnectProxy, code: int, cause: str
) -> None:
    proxy.response = b"HTTP/1.1 %d No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n" % code
    assert await ask(url(sso), proxy_url=proxy.url) == cause
    assert sso.requests == []


async def test_an_unreachable_proxy_is_transient(sso: Sso) -> None:
    async with ConnectProxy() as proxy:
        pass
    assert await ask(url(sso), proxy_url=proxy.url) == "proxy"


async def test_a_silent_proxy_times_out(sso: Sso, proxy: ConnectProxy) -> None:
    proxy.silent = True
    assert await ask(url(sso), proxy_url=proxy.url, timeout=0.2) == "time-out"


async def test_proxies_of_the_environment_are_ignored(
    sso: Sso, proxy: ConnectProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("https_proxy", proxy.url)
    monkeypatch.setenv("HTTPS_PROXY", proxy.url)
    assert await ask(url(sso)) == "name not found"
    assert proxy.heads == []
