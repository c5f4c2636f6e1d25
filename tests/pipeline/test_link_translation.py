"""Platform URLs and gateway URLs in messages, as callers and the platform see them."""

from __future__ import annotations

import asyncio
import gzip
import json

import pytest

from tests.doubles.gateway import RunningGateway
from tests.doubles.platform import PATIENT, Platform, PlatformConnection, chunked, fhir, http
from tests.doubles.wire import Wire, fetch, get, post
from tests.environments import needs_ipv6


def searchset(platform: Platform, pad: int = 0) -> bytes:
    """Return a page whose links and text name the platform, with a decimal to detect rewriting."""
    return (
        '{"resourceType":"Bundle","type":"searchset","total":1.10,"link":[{"relation":"next",'
        f'"url":"{platform.url}/Patient?_page=2"}}],"entry":[{{"fullUrl":"{platform.url}/Patient/1",'
        f'"resource":{{"resourceType":"Patient","id":"1","text":{{"status":"generated","div":'
        f'"<div>{platform.url}/Patient/1{" " * pad}</div>"}}}}}}]}}'
    ).encode()


def rewritten(page: bytes, platform: Platform, gateway_url: str) -> bytes:
    """Return the page that the caller should get: links changed, text and numbers unchanged."""
    text = page.decode().replace(f'"{platform.url}', f'"{gateway_url}')
    return text.encode()


async def test_links_of_a_response_name_the_host_of_the_request(
    gateway: RunningGateway, platform: Platform
) -> None:
    """All other octets are unchanged."""
    platform.respond(fhir(searchset(platform)))
    response = await fetch(gateway.address, get("/fhir/Patient"))
    assert response.body == rewritten(searchset(platform), platform, "http://gateway/fhir")


@pytest.mark.parametrize("bound", ["127.0.0.1", pytest.param("[::1]", marks=needs_ipv6)])
async def test_without_a_host_links_name_the_connections_address(
    start_gateway, platform: Platform, bound: str
) -> None:
    """As for callers of HTTP/1.0."""
    request = "GET {} HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"
    created = fhir(PATIENT, 201, ("Location", f"{platform.url}/Patient/1/_history/1"))
    platform.script(fhir(searchset(platform)), fhir(searchset(platform)), created)
    async with (
        start_gateway(listen={"address": f"{bound}:0"}) as gateway,
        await Wire.open(gateway.address) as wire,
    ):
        base = f"http://{bound}:{gateway.address.port}/fhir"
        page = await wire.fetch(request.format("/fhir/Patient").encode())
        assert page.body == rewritten(searchset(platform), platform, base)
        following = page.json()["link"][0]["url"].removeprefix(base.removesuffix("/fhir"))
        assert (await wire.fetch(request.format(following).encode())).body == page.body
        post_ = request.replace("GET", "POST").format("/fhir/Patient")[:-2]
        response = await wire.fetch(f"{post_}Content-Length: 2\r\n\r\n{{}}".encode())
        assert response.header("location") == f"{base}/Patient/1/_history/1"
        # A Host is believed as ever.
        named = await wire.fetch(get("/fhir/Patient/1", version="1.0"))
    assert named.status == 200
    assert platform.requests[1].target == "/r5/Patient?_page=2"


async def test_links_name_public_url_where_it_is_set(start_gateway, platform: Platform) -> None:
    """Whatever the Host."""
    public = "https://gw.clinic.uz/fhir"
    async with start_gateway(listen={"public_url": public}) as gateway:
        platform.respond(fhir(searchset(platform)))
        response = await fetch(gateway.address, get("/fhir/Patient"))
    assert response.body == rewritten(searchset(platform), platform, public)


async def test_rewriting_can_be_switched_off(start_gateway, platform: Platform) -> None:
    async with start_gateway(rewrite={"enabled": False}) as gateway:
        platform.respond(fhir(searchset(platform), 200, ("Location", f"{platform.url}/Patient/1")))
        response = await fetch(gateway.address, get("/fhir/Patient"))
    assert response.body == searchset(platform)
    assert response.header("location") == f"{platform.url}/Patient/1"


async def test_links_in_fields_are_rewritten(gateway: RunningGateway, platform: Platform) -> None:
    """Location, Content-Location and Link; a relative Location is unchanged."""
    platform.script(
        fhir(
            b"{}",
            201,
            ("Location", f"{platform.url}/Patient/1/_history/1"),
            ("Content-Location", f"{platform.base_path}/Patient/1"),
            ("Link", f'<{platform.url}/Patient?_page=2>; rel="next"'),
        ),
        fhir(b"{}", 201, ("Location", "Patient/1/_history/1")),
    )
    response = await fetch(gateway.address, post("/fhir/Patient", b"{}"))
    assert response.header("location") == "http://gateway/fhir/Patient/1/_history/1"
    assert response.header("content-location") == "/fhir/Patient/1"
    assert response.header("link") == '<http://gateway/fhir/Patient?_page=2>; rel="next"'
    response = await fetch(gateway.address, post("/fhir/Patient", b"{}"))
    assert response.header("location") == "Patient/1/_history/1"


async def test_digest_of_a_changed_body_is_dropped(
    gateway: RunningGateway, platform: Platform
) -> None:
    """A digest of an unchanged body is kept."""
    digest = ("Content-MD5", "Q2hlY2sgSW50ZWdyaXR5IQ==")
    mentioned = f'{{"resourceType":"Basic","a":"{platform.url}/Patient/1"}}'.encode()
    bodies = (searchset(platform), PATIENT, mentioned)
    platform.script(*(fhir(body, 200, digest) for body in bodies))
    responses = [await fetch(gateway.address, get("/fhir/Patient")) for _ in bodies]
    assert [response.header("content-md5") for response in responses] == [
        None,
        digest[1],
        digest[1],
    ]


async def test_ranges_are_unchanged(gateway: RunningGateway, platform: Platform) -> None:
    body = searchset(platform)
    platform.respond(fhir(body, 206, ("Content-Range", "bytes 0-9/20")))
    assert (await fetch(gateway.address, get("/fhir/Patient/1", "Range: bytes=0-9"))).body == body


async def test_a_request_larger_than_the_replay_buffer_is_rewritten_in_chunks(
    gateway: RunningGateway, platform: Platform
) -> None:
    text = "x" * 1_500_000
    body = (
        f'{{"resourceType":"Observation","note":[{{"text":"{text}"}}],'
        '"subject":{"reference":"http://gateway/fhir/Patient/1"}}'
    ).encode()
    await fetch(gateway.address, post("/fhir/Observation", body))
    seen = platform.requests[0]
    assert seen.header("transfer-encoding") == "chunked"
    assert json.loads(seen.body)["subject"]["reference"] == f"{platform.url}/Patient/1"
    assert len(seen.body) == len(body) - len("http://gateway/fhir") + len(platform.url)


async def test_a_rewritten_body_is_sent_again_after_a_401(
    gateway: RunningGateway, platform: Platform
) -> None:
    platform.script(http(401, b"{}", ("Content-Type", "application/fhir+json")))
    body = b'{"resourceType":"Observation","subject":{"reference":"http://gateway/fhir/Patient/1"}}'
    await fetch(gateway.address, post("/fhir/Observation", body))
    first, second = (request.body for request in platform.requests)
    assert first == second
    assert platform.url.encode() in first


async def test_a_truncated_rewritten_response_does_not_look_complete(
    gateway: RunningGateway, platform: Platform
) -> None:
    async def cut(connection: PlatformConnection) -> None:
        page = searchset(platform, pad=300_000)
        connection.writer.write(chunked(page[:200_000], end=False))
        await connection.writer.drain()
        connection.writer.close()

    platform.respond(cut)
    async with await Wire.open(gateway.address) as wire:
        await wire.send(get("/fhir/Patient"))
        received = await wire.reader.read()
    assert received.startswith(b"HTTP/1.1 200")
    assert not received.endswith(b"0\r\n\r\n")


async def test_rewriting_a_long_body_does_not_block_other_callers(
    gateway: RunningGateway, platform: Platform
) -> None:
    """A small compressed body may decode to a long one."""
    text = b'{"resourceType":"Basic","a":[' + b'"%s/x",' % platform.url.encode() * 60_000 + b"0]}"
    packed = gzip.compress(text)
    assert len(packed) < 64 * 1024
    kind, coding = ("Content-Type", "application/fhir+json"), ("Content-Encoding", "gzip")
    platform.script(http(200, packed, kind, coding), fhir())
    long = asyncio.create_task(
        fetch(gateway.address, get("/fhir/Patient/1", "Accept-Encoding: gzip"))
    )
    await platform.wait_for_requests(1)
    assert (await fetch(gateway.address, get("/fhir/Patient/2"))).status == 200
    assert not long.done()
    assert gzip.decompress((await long).body) == text


@pytest.mark.parametrize("version", ["1.0", "1.1"])
async def test_a_compressed_response_that_decodes_to_a_long_one_arrives_complete(
    start_gateway, platform: Platform, version: str
) -> None:
    """In chunks, or with its length for HTTP/1.0."""
    text = (
        b'{"resourceType":"Basic","subject":{"reference":"%s/Patient/1"},"x":"'
        % platform.url.encode()
    )
    text += b" " * 3_000_000 + b'"}'
    kind, coding = ("Content-Type", "application/fhir+json"), ("Content-Encoding", "gzip")
    platform.respond(http(200, gzip.compress(text), kind, coding))
    async with start_gateway(platform={"compression": "answers"}) as gateway:
        response = await fetch(gateway.address, get("/fhir/Basic/1", version=version))
    assert response.body == text.replace(platform.url.encode(), b"http://gateway/fhir")
    assert (response.header("content-length") is None) == (version == "1.1")
