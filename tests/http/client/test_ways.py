"""The way to the platform: a certificate of our own, an outgoing proxy, and both."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import trustme

from tests.doubles.connect_proxy import ConnectProxy
from tests.doubles.gateway import Running, running
from tests.doubles.platform import Platform
from tests.doubles.sso import Sso
from tests.doubles.tls_peer import TlsPeer
from tests.doubles.wire import ask, post

NAME = "fhir.hospital.test"


@pytest.fixture
def ca(tmp_path: Path) -> trustme.CA:
    """The platform's CA, whose certificate is in a file."""
    made = trustme.CA()
    made.cert_pem.write_to_path(tmp_path / "ca.pem")
    return made


@pytest.fixture
async def platform(ca: trustme.CA) -> AsyncIterator[Platform]:
    """A platform with TLS for a name that only the proxy knows, and for localhost."""
    async with Platform(tls=server_tls(ca)) as double:
        yield double


@pytest.fixture
async def proxy() -> AsyncIterator[ConnectProxy]:
    """A proxy that knows the name."""
    async with ConnectProxy(hosts={NAME: "127.0.0.1"}) as double:
        yield double


def server_tls(ca: trustme.CA, *, clients: trustme.CA | None = None) -> ssl.SSLContext:
    """TLS of the platform, which may ask for a client's certificate."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    ca.issue_cert(NAME, "localhost").configure_cert(context)
    if clients is not None:
        clients.configure_trust(context)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


async def read(gateway: Running) -> tuple[int, str, str]:
    """Status, reason and diagnostics of a read."""
    url = f"{gateway.url}/Patient/1"
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        body = await answer.json(content_type=None)
        issue = body.get("issue", [{}])[0]
        reason = answer.headers.get("X-Gateway-Error", "")
        return answer.status, reason, issue.get("diagnostics", "")


def far(platform: Platform, **more: Any) -> dict[str, Any]:
    """Settings for the platform by its name."""
    return {"fhir_base_url": f"https://{NAME}:{platform.port}/r5", "connect_timeout": 2, **more}


async def test_tunnel(platform: Platform, sso: Sso, proxy: ConnectProxy, tmp_path: Path) -> None:
    """Requests go through a tunnel on kept connections; the proxy sees a name and no token."""
    section = far(platform, ca_file=str(tmp_path / "ca.pem"), proxy_url=proxy.url)
    async with running(platform.url, sso.token_url, platform=section) as gateway:
        assert [(await read(gateway))[0] for _ in range(3)] == [200] * 3
    assert proxy.targets == [f"CONNECT {NAME}:{platform.port}"]
    assert {seen.header("host") for seen in platform.seen} == {f"{NAME}:{platform.port}"}
    assert {seen.header("authorization") for seen in platform.seen} == {"Bearer token-1"}
    assert b"token-1" not in proxy.relayed + b"".join(proxy.heads)


async def test_tunnel_to_plain_http(sso: Sso, proxy: ConnectProxy) -> None:
    """An http platform is reached by a tunnel too."""
    async with Platform() as platform:
        section = {"proxy_url": proxy.url, "fhir_base_url": platform.url}
        async with running(platform.url, sso.token_url, platform=section) as gateway:
            assert (await read(gateway))[0] == 200
        assert proxy.targets == [f"CONNECT 127.0.0.1:{platform.port}"]
        assert platform.seen[0].target == "/r5/Patient/1"


async def test_certificate_through_a_tunnel(
    platform: Platform, sso: Sso, proxy: ConnectProxy, tmp_path: Path
) -> None:
    """Through a tunnel the platform's certificate and name are verified like without one."""
    proxy.hosts["other.test"] = "127.0.0.1"
    trusted = {"ca_file": str(tmp_path / "ca.pem"), "proxy_url": proxy.url}
    cases = [
        far(platform, proxy_url=proxy.url),
        {**far(platform, **trusted), "fhir_base_url": f"https://other.test:{platform.port}/r5"},
    ]
    for section in cases:
        async with running(platform.url, sso.token_url, platform=section) as gateway:
            assert (await read(gateway))[:2] == (502, "upstream-tls")
    assert platform.seen == []


REFUSALS = {
    "forbidden": b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n",
    "wants a password": b"HTTP/1.1 407 Auth\r\nProxy-Authenticate: Basic\r\n\r\n",
    "redirect": b"HTTP/1.1 302 Found\r\nLocation: http://login/\r\n\r\n",
    "no HTTP": b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
    "nothing": b"",
    "endless": b"HTTP/1.1 200 OK\r\nX: " + b"x" * 20_000,
    "speaks first": b"HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 200 OK\r\n\r\n{}",
}


@pytest.mark.parametrize("case", REFUSALS)
async def test_no_tunnel(platform: Platform, sso: Sso, proxy: ConnectProxy, case: str) -> None:
    """What is no tunnel is never taken for one: nothing was delivered, and a later attempt may."""
    proxy.answer = REFUSALS[case]
    section = far(platform, proxy_url=proxy.url)
    async with running(platform.url, sso.token_url, platform=section) as gateway:
        assert (await read(gateway))[:2] == (503, "upstream-unreachable")
    assert platform.connections == 0


async def test_no_proxy(platform: Platform, sso: Sso) -> None:
    """A proxy that is not there makes the platform unreachable; it is not passed by."""
    async with ConnectProxy() as proxy:
        pass
    section = {"proxy_url": proxy.url, "fhir_base_url": platform.url}
    async with running(platform.url, sso.token_url, platform=section) as gateway:
        assert (await read(gateway))[:2] == (503, "upstream-unreachable")
    assert platform.connections == 0


async def test_silent_proxy(platform: Platform, sso: Sso, proxy: ConnectProxy) -> None:
    """A proxy that says nothing is given up after platform.connect_timeout."""
    proxy.silent = True
    section = {**far(platform, proxy_url=proxy.url), "connect_timeout": 0.2}
    async with running(platform.url, sso.token_url, platform=section) as gateway:
        assert (await read(gateway))[:2] == (503, "upstream-unreachable")


@pytest.fixture
def clients(tmp_path: Path) -> trustme.CA:
    """A CA for hospitals, and our certificate and key of it in files."""
    made = trustme.CA()
    ours = made.issue_cert("hospital-17.test")
    ours.private_key_pem.write_to_path(tmp_path / "key.pem")
    ours.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    return made


def identity(directory: Path) -> dict[str, str]:
    """Settings for our certificate and the platform's CA."""
    names = {"ca_file": "ca", "client_cert_file": "cert", "client_key_file": "key"}
    return {key: str(directory / f"{name}.pem") for key, name in names.items()}


@pytest.mark.parametrize("tunnelled", [False, True])
async def test_mutual_tls(
    sso: Sso,
    ca: trustme.CA,
    clients: trustme.CA,
    proxy: ConnectProxy,
    tmp_path: Path,
    tunnelled: bool,
) -> None:
    """A platform that asks for a certificate gets ours, through a tunnel too."""
    way = {"proxy_url": proxy.url} if tunnelled else {}
    async with Platform(tls=server_tls(ca, clients=clients)) as platform:
        section = {"fhir_base_url": platform.url, **identity(tmp_path), **way}
        async with running(platform.url, sso.token_url, platform=section) as gateway:
            assert (await read(gateway))[0] == 200
    assert bool(proxy.heads) == tunnelled


async def test_certificate_of_a_stranger(
    sso: Sso, ca: trustme.CA, clients: trustme.CA, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A platform that says so is believed: a write is told that nothing was delivered, and why."""
    caplog.set_level(logging.INFO)
    context = server_tls(ca, clients=trustme.CA())
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    async with TlsPeer(context) as peer:
        section = {"fhir_base_url": f"https://localhost:{peer.port}/r5", **identity(tmp_path)}
        async with running("", sso.token_url, platform=section) as gateway:
            asking = asyncio.ensure_future(ask(gateway.address, post("/fhir/Patient", b"{}")))
            line = await peer.accept()
            with pytest.raises(ssl.SSLError):
                await line.shake_hands()
            reply = await asking
            (record,) = await gateway.audit()
    assert (reply.status, reply.reason) == (502, "upstream-tls")
    assert (record["reason"], record["attempts"]) == ("upstream-tls", 1)
    assert "did not accept our certificate" in caplog.text
    assert "platform.client_cert_file" in caplog.text
