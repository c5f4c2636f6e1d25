"""Client certificates and outgoing proxies on the way to the platform, and both."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import trustme

from tests.doubles.certificates import server_context
from tests.doubles.connect_proxy import ConnectProxy
from tests.doubles.gateway import RunningGateway, running_gateway
from tests.doubles.platform import Platform, fhir
from tests.doubles.sso import Sso
from tests.doubles.tls_peer import TlsPeer
from tests.doubles.wire import fetch, post

NAME = "fhir.hospital.test"


@pytest.fixture
async def platform(ca: trustme.CA) -> AsyncIterator[Platform]:
    """Yield a platform with TLS for a name that only the proxy knows, and for localhost."""
    async with Platform(tls=server_tls(ca)) as double:
        yield double


@pytest.fixture
async def proxy() -> AsyncIterator[ConnectProxy]:
    """Yield a proxy that knows the name."""
    async with ConnectProxy(hosts={NAME: "127.0.0.1"}) as double:
        yield double


def server_tls(ca: trustme.CA, *, clients: trustme.CA | None = None) -> ssl.SSLContext:
    """Return the platform's TLS context, which may request a client certificate."""
    return server_context(ca, NAME, "localhost", clients=clients)


async def read(gateway: RunningGateway) -> tuple[int, str, str]:
    """Return status, reason and diagnostics of a read."""
    url = f"{gateway.url}/Patient/1"
    async with aiohttp.request("GET", url) as answer:
        body = await answer.json(content_type=None)
        issue = body.get("issue", [{}])[0]
        reason = answer.headers.get("X-Gateway-Error", "")
        return answer.status, reason, issue.get("diagnostics", "")


def far(platform: Platform, **more: Any) -> dict[str, Any]:
    return {"fhir_base_url": f"https://{NAME}:{platform.port}/r5", "connect_timeout": 2, **more}


async def test_requests_use_persistent_tunnels(
    platform: Platform, sso: Sso, proxy: ConnectProxy, tmp_path: Path
) -> None:
    """The proxy receives a host name and no token."""
    section = far(platform, ca_file=str(tmp_path / "ca.pem"), proxy_url=proxy.url)
    async with running_gateway(platform.url, sso.token_url, platform=section) as gateway:
        assert [(await read(gateway))[0] for _ in range(3)] == [200] * 3
    assert proxy.targets == [f"CONNECT {NAME}:{platform.port}"]
    assert {request.header("host") for request in platform.requests} == {f"{NAME}:{platform.port}"}
    assert {request.header("authorization") for request in platform.requests} == {"Bearer token-1"}
    assert b"token-1" not in proxy.relayed + b"".join(proxy.heads)


async def test_an_http_platform_is_reached_by_a_tunnel(sso: Sso, proxy: ConnectProxy) -> None:
    async with Platform() as platform:
        section = {"proxy_url": proxy.url, "fhir_base_url": platform.url}
        async with running_gateway(platform.url, sso.token_url, platform=section) as gateway:
            assert (await read(gateway))[0] == 200
        assert proxy.targets == [f"CONNECT 127.0.0.1:{platform.port}"]
        assert platform.requests[0].target == "/r5/Patient/1"


async def test_certificate_and_name_are_verified_through_a_tunnel(
    platform: Platform, sso: Sso, proxy: ConnectProxy, tmp_path: Path
) -> None:
    proxy.hosts["other.test"] = "127.0.0.1"
    trusted = {"ca_file": str(tmp_path / "ca.pem"), "proxy_url": proxy.url}
    cases = [
        far(platform, proxy_url=proxy.url),
        {**far(platform, **trusted), "fhir_base_url": f"https://other.test:{platform.port}/r5"},
    ]
    for section in cases:
        async with running_gateway(platform.url, sso.token_url, platform=section) as gateway:
            assert (await read(gateway))[:2] == (502, "upstream-tls")
    assert platform.requests == []


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
async def test_a_rejected_tunnel_is_a_retryable_failure(
    platform: Platform, sso: Sso, proxy: ConnectProxy, case: str
) -> None:
    """Nothing was delivered."""
    proxy.response = REFUSALS[case]
    section = far(platform, proxy_url=proxy.url)
    async with running_gateway(platform.url, sso.token_url, platform=section) as gateway:
        assert (await read(gateway))[:2] == (503, "upstream-unreachable")
    assert platform.connections == 0


# What proxies answer to CONNECT: Squid 5.7 to a host that its ACL denies, that refuses connections,
# and that has no address; tinyproxy 1.11.1 and privoxy 3.0.34 likewise.
STATUS_LINES = {
    b"HTTP/1.1 403 Forbidden": "is the platform's host allowed there?",
    b"HTTP/1.1 403 Filtered": "is the platform's host allowed there?",
    b"HTTP/1.1 503 Service Unavailable": "it cannot reach the platform's host itself (status 503)",
    b"HTTP/1.1 500 Unable to connect": "it cannot reach the platform's host itself (status 500)",
    b"HTTP/1.1 404 No such domain": "it cannot reach the platform's host itself (status 404)",
    b"HTTP/1.0 407 Proxy Authentication Required": "it wants a user and password (status 407)",
}


@pytest.mark.parametrize("line", STATUS_LINES)
async def test_the_log_says_why_a_proxy_opened_no_tunnel(
    platform: Platform,
    sso: Sso,
    proxy: ConnectProxy,
    line: bytes,
    caplog: pytest.LogCaptureFixture,
) -> None:
    proxy.response = line + b"\r\nContent-Type: text/html\r\nContent-Length: 0\r\n\r\n"
    section = far(platform, proxy_url=proxy.url)
    async with running_gateway(platform.url, sso.token_url, platform=section) as gateway:
        await read(gateway)
    assert STATUS_LINES[line] in caplog.text


async def test_without_its_proxy_the_platform_is_unreachable(platform: Platform, sso: Sso) -> None:
    """It is not bypassed."""
    async with ConnectProxy() as proxy:
        pass
    section = {"proxy_url": proxy.url, "fhir_base_url": platform.url}
    async with running_gateway(platform.url, sso.token_url, platform=section) as gateway:
        assert (await read(gateway))[:2] == (503, "upstream-unreachable")
    assert platform.connections == 0


async def test_an_unresponsive_proxy_times_out(
    platform: Platform, sso: Sso, proxy: ConnectProxy
) -> None:
    """After platform.connect_timeout."""
    proxy.silent = True
    section = {**far(platform, proxy_url=proxy.url), "connect_timeout": 0.2}
    async with running_gateway(platform.url, sso.token_url, platform=section) as gateway:
        assert (await read(gateway))[:2] == (503, "upstream-unreachable")


@pytest.fixture
def clients(tmp_path: Path) -> trustme.CA:
    """Return a CA for clients, and files with a certificate and key of it."""
    made = trustme.CA()
    ours = made.issue_cert("hospital-17.test")
    ours.private_key_pem.write_to_path(tmp_path / "key.pem")
    ours.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    return made


def identity(directory: Path) -> dict[str, str]:
    names = {"ca_file": "ca", "client_cert_file": "cert", "client_key_file": "key"}
    return {key: str(directory / f"{name}.pem") for key, name in names.items()}


@pytest.mark.parametrize("tunnelled", [False, True])
async def test_a_requested_client_certificate_is_sent(
    sso: Sso,
    ca: trustme.CA,
    clients: trustme.CA,
    proxy: ConnectProxy,
    tmp_path: Path,
    tunnelled: bool,
) -> None:
    """Through a tunnel too."""
    way = {"proxy_url": proxy.url} if tunnelled else {}
    async with Platform(tls=server_tls(ca, clients=clients)) as platform:
        section = {"fhir_base_url": platform.url, **identity(tmp_path), **way}
        async with running_gateway(platform.url, sso.token_url, platform=section) as gateway:
            assert (await read(gateway))[0] == 200
    assert bool(proxy.heads) == tunnelled


async def test_a_client_certificate_is_sent_behind_the_handshake(
    sso: Sso, ca: trustme.CA, clients: trustme.CA, tmp_path: Path
) -> None:
    """Apache 2.4.71 requests it there, for a path with `SSLVerifyClient` (TLS 1.3)."""
    context = server_tls(ca, clients=clients)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.post_handshake_auth = True
    async with TlsPeer(context) as peer:
        section = {"fhir_base_url": f"https://localhost:{peer.port}/r5", **identity(tmp_path)}
        async with running_gateway("", sso.token_url, platform=section) as gateway:
            asking = asyncio.ensure_future(fetch(gateway.address, post("/fhir/Patient", b"{}")))
            line = await peer.accept()
            await line.shake_hands()
            await line.read_until(b"{}")
            assert line.tls.getpeercert() is None
            line.tls.verify_client_post_handshake()
            await line.send(line.record(b"HTTP/1.1 100 Continue\r\n\r\n"))
            while line.tls.getpeercert() is None:
                assert await line.receive()
                with contextlib.suppress(ssl.SSLWantReadError):
                    line.tls.read(1)
            await line.send(line.record(fhir()))
            assert (await asking).status == 200


async def test_a_rejected_client_certificate_delivers_nothing(
    sso: Sso, ca: trustme.CA, clients: trustme.CA, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The error of a write says so, and why."""
    caplog.set_level(logging.INFO)
    context = server_tls(ca, clients=trustme.CA())
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    async with TlsPeer(context) as peer:
        section = {"fhir_base_url": f"https://localhost:{peer.port}/r5", **identity(tmp_path)}
        async with running_gateway("", sso.token_url, platform=section) as gateway:
            asking = asyncio.ensure_future(fetch(gateway.address, post("/fhir/Patient", b"{}")))
            line = await peer.accept()
            with pytest.raises(ssl.SSLError):
                await line.shake_hands()
            response = await asking
            (record,) = await gateway.audit()
    assert (response.status, response.reason) == (502, "upstream-tls")
    assert (record["reason"], record["attempts"]) == ("upstream-tls", 1)
    assert "did not accept our certificate" in caplog.text
    assert "platform.client_cert_file" in caplog.text
