"""Targets in absolute form, as callers send them whose HTTP proxy is the gateway (RFC 9112)."""

from __future__ import annotations

import pytest

from tests.doubles.gateway import RunningGateway
from tests.doubles.platform import PATIENT, Platform, fhir
from tests.doubles.wire import Wire, fetch, get
from tests.pipeline import shared
from tests.pipeline.conftest import StartGateway

pytestmark = shared.one_loop
platform, sso, gateway = shared.platform, shared.sso, shared.gateway

PUBLIC = "http://fhir.clinic.uz:8080/fhir"


def absolute_read(
    authority: str, rest: str = "/fhir/Patient/1", *, host: str | None = "other", **how: str
):
    scheme, version = how.get("scheme", "http"), how.get("version", "1.1")
    field = "" if host is None else f"Host: {host}\r\n"
    return f"GET {scheme}://{authority}{rest} HTTP/{version}\r\n{field}\r\n".encode()


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost", "LocalHost", "[::1]", "127.0.0.9"])
@pytest.mark.parametrize("scheme", ["http", "HTTP", "https"])
async def test_the_listeners_own_address_is_accepted(
    gateway: RunningGateway, platform: Platform, name: str, scheme: str
) -> None:
    """By any loopback name for it; the platform receives origin form."""
    authority = f"{name}:{gateway.address.port}"
    async with await Wire.open(gateway.address) as wire:
        for _ in range(3):
            assert (await wire.fetch(absolute_read(authority, scheme=scheme))).body == PATIENT
    assert [request.target for request in platform.requests] == ["/r5/Patient/1"] * 3
    assert {request.header("host") for request in platform.requests} == {platform.url.split("/")[2]}


URLS = {
    "the same": ("http", "fhir.clinic.uz:8080", PUBLIC),
    "capitals": ("http", "FHIR.Clinic.UZ:8080", PUBLIC),
    "https for http": ("https", "fhir.clinic.uz:8080", PUBLIC),
    "a default port written out": ("http", "fhir.clinic.uz:80", "http://fhir.clinic.uz/fhir"),
    "a default port left out": ("http", "fhir.clinic.uz", "http://fhir.clinic.uz:80/fhir"),
    "default ports of both schemes": ("http", "fhir.clinic.uz", "https://fhir.clinic.uz/fhir"),
    "an IPv6 address": ("http", "[2001:DB8:0::1]:8080", "http://[2001:db8::1]:8080/fhir"),
}


@pytest.mark.parametrize("name", URLS)
async def test_the_host_of_public_url_is_accepted(
    start_gateway: StartGateway, platform: Platform, name: str
) -> None:
    """Compared as URLs are."""
    scheme, authority, public_url = URLS[name]
    async with start_gateway(listen={"public_url": public_url}) as gateway:
        response = await fetch(gateway.address, absolute_read(authority, scheme=scheme))
    assert response.body == PATIENT
    assert [request.target for request in platform.requests] == ["/r5/Patient/1"]


FOREIGN = {
    "another host": ("http", "other.invalid"),
    "a bare name": ("http", "stranger"),
    "another port": ("http", "127.0.0.1:1"),
    "no port": ("http", "127.0.0.1"),
    "another address": ("http", "127.1.invalid:{port}"),
    "an address of another machine": ("http", "192.0.2.1:{port}"),
    "the public host at another port": ("http", "fhir.clinic.uz:8081"),
    "the public host at no port": ("http", "fhir.clinic.uz"),
    "a host below the public one": ("http", "x.fhir.clinic.uz:8080"),
    "a host that begins like the public one": ("http", "fhir.clinic.uz.evil.example:8080"),
    "an empty port": ("http", "127.0.0.1:"),
    "an IPv6 address of nobody": ("http", "[2001:db8::1]:{port}"),
}


@pytest.mark.parametrize("followed_by", [b"", get("/fhir/Patient/smuggled")])
@pytest.mark.parametrize("name", FOREIGN)
async def test_any_other_host_is_misdirected(
    start_gateway: StartGateway, platform: Platform, name: str, followed_by: bytes
) -> None:
    """Whatever Host says. The error names the setting, and the connection ends."""
    scheme, template = FOREIGN[name]
    async with start_gateway(listen={"public_url": PUBLIC}) as gateway:
        port = gateway.address.port
        async with await Wire.open(gateway.address) as wire:
            request = absolute_read(
                template.format(port=port), scheme=scheme, host=f"127.0.0.1:{port}"
            )
            await wire.send(request + followed_by)
            response = await wire.read_response()
            assert await wire.at_end()
    assert (response.status, response.reason) == (421, "misdirected")
    assert response.header("connection") == "close"
    issue = response.json()["issue"][0]
    assert (issue["code"], issue["severity"]) == ("not-supported", "error")
    assert "listen.public_url" in issue["details"]["text"]
    assert "listen.public_url" in issue["diagnostics"]
    assert template.partition(":")[0] not in response.body.decode()
    assert platform.requests == []


async def test_an_upgrade_in_absolute_form_is_ignored(
    gateway: RunningGateway, platform: Platform
) -> None:
    """Each later request is routed by its own target."""
    upgrade = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAM\r\n\r\n"
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    own, other = (
        absolute_read(authority).removesuffix(b"\r\n") + upgrade
        for authority in (f"127.0.0.1:{gateway.address.port}", "other.invalid")
    )
    for last, status in ((other, 421), (preface, 400)):
        async with await Wire.open(gateway.address) as wire:
            await wire.send(own + own + last + get("/fhir/Patient/smuggled"))
            responses = [await wire.read_response() for _ in range(3)]
            assert [response.status for response in responses] == [200, 200, status]
            assert await wire.at_end()
    assert [request.target for request in platform.requests] == ["/r5/Patient/1"] * 4


STRICT = {
    "a user": "u:p@127.0.0.1:{port}/fhir/Patient/1",
    "two slashes and a host": "127.0.0.1:{port}//other.invalid/fhir/Patient/1",
    "dots": "127.0.0.1:{port}/fhir/../x",
    "dots behind slashes": "127.0.0.1:{port}/fhir//../x",
    "encoded dots": "127.0.0.1:{port}/fhir/%2e%2e/x",
    "an encoded slash": "127.0.0.1:{port}/fhir/Patient%2f1",
    "an empty segment": "127.0.0.1:{port}/fhir/Patient//1",
    "a whole URL for a path": "127.0.0.1:{port}/http://127.0.0.1:{port}/fhir/Patient/1?a=%ff",
    "a fragment": "127.0.0.1:{port}/fhir/Patient/1#x",
    "windows-1251": "127.0.0.1:{port}/fhir/Patient?name=%CE",
}


@pytest.mark.parametrize("name", STRICT)
async def test_the_path_is_checked_like_that_of_origin_form(
    gateway: RunningGateway, platform: Platform, name: str
) -> None:
    target = STRICT[name].format(port=gateway.address.port)
    async with await Wire.open(gateway.address) as wire:
        await wire.send(absolute_read(target, "") + get("/fhir/Patient/smuggled"))
        response = await wire.read_response()
        assert (response.status, response.reason) == (400, "bad-request")
        assert await wire.at_end()
    assert platform.requests == []


FIELDS = {
    "two Hosts": "Host: {own}\r\nHost: other\r\n",
    "the same Host twice": "Host: {own}\r\nHost: {own}\r\n",
    "a Host that is none": "Host: user@other\r\n",
    "no Host": "",
    "two framings": "Host: {own}\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n",
}


@pytest.mark.parametrize("name", FIELDS)
async def test_invalid_fields_are_rejected(
    gateway: RunningGateway, platform: Platform, name: str
) -> None:
    """An absolute target does not make up for an invalid Host."""
    own = f"127.0.0.1:{gateway.address.port}"
    first = f"POST http://{own}/fhir/Patient HTTP/1.1\r\n"
    async with await Wire.open(gateway.address) as wire:
        await wire.send(f"{first}{FIELDS[name].format(own=own)}\r\n".encode())
        assert (await wire.read_response()).reason == "bad-request"
        assert await wire.at_end()
    assert platform.requests == []


@pytest.mark.parametrize(
    ("version", "host"),
    [("1.0", None), ("1.0", "other.invalid"), ("1.1", "other.invalid"), ("1.1", "gateway:1")],
)
async def test_links_name_the_authority_of_the_target(
    gateway: RunningGateway, platform: Platform, version: str, host: str | None
) -> None:
    """Not Host; for each request."""
    link = f"{platform.url}/Patient?page=2".encode()
    bundle = b'{"resourceType":"Bundle","link":[{"relation":"next","url":"%s"}]}' % link
    platform.respond(fhir(bundle))
    for name in ("localhost", "127.0.0.1"):
        authority = f"{name}:{gateway.address.port}"
        request = absolute_read(authority, "/fhir/Patient", host=host, version=version)
        (found,) = (await fetch(gateway.address, request)).json()["link"]
        assert found["url"] == f"http://{authority}/fhir/Patient?page=2"


async def test_absolute_and_origin_form_may_alternate(
    gateway: RunningGateway, platform: Platform
) -> None:
    """On one connection with the same fields."""
    own = f"127.0.0.1:{gateway.address.port}"
    async with await Wire.open(gateway.address) as wire:
        for n in range(6):
            rest = f"/fhir/Patient/{n}"
            plain = f"GET {rest} HTTP/1.1\r\nHost: other\r\n\r\n".encode()
            assert (await wire.fetch(plain if n % 2 else absolute_read(own, rest))).body == PATIENT
        assert (await wire.fetch(absolute_read("other", "/fhir/Patient/9"))).status == 421
    assert [request.target for request in platform.requests] == [
        f"/r5/Patient/{n}" for n in range(6)
    ]


async def test_create_from_squid_is_forwarded(gateway: RunningGateway, platform: Platform) -> None:
    """Without the fields that Squid added."""
    own = f"127.0.0.1:{gateway.address.port}"
    raw = (
        f"POST http://{own}/fhir/Patient HTTP/1.1\r\n"
        "Content-Type: application/fhir+json\r\nContent-Length: 26\r\n"
        f"Via: 1.1 squid (squid/5.7)\r\nX-Forwarded-For: 10.20.0.5\r\nHost: {own}\r\n"
        "Proxy-Connection: keep-alive\r\nProxy-Authorization: Basic eDp5\r\n"
        'Cache-Control: max-age=0\r\nConnection: keep-alive\r\n\r\n{"resourceType":"Patient"}'
    )
    assert (await fetch(gateway.address, raw.encode())).status == 200
    (received,) = platform.requests
    assert (received.target, received.body) == ("/r5/Patient", b'{"resourceType":"Patient"}')
    assert received.all("via") == ["1.1 dhp-gateway"]
    gone = ("proxy-connection", "proxy-authorization", "x-forwarded-for", "connection")
    assert not any(received.all(name) for name in gone)
    assert len(received.all("authorization")) == 1


@pytest.mark.parametrize(("rest", "status"), [("", 404), ("?a=b", 404), ("/", 404), ("/fhir", 200)])
async def test_a_target_without_a_path(gateway: RunningGateway, rest: str, status: int) -> None:
    """An empty path is that of the root (RFC 9110 section 4.2.3)."""
    own = f"localhost:{gateway.address.port}"
    assert (await fetch(gateway.address, absolute_read(own, rest))).status == status
