"""Platform URLs and gateway URLs in messages that pass, as callers and the platform see them."""

from __future__ import annotations

import asyncio
import gzip
import json
from urllib.parse import quote

import pytest

from tests.doubles.gateway import Running
from tests.doubles.platform import PATIENT, Line, Platform, chunked, fhir, http
from tests.doubles.wire import Wire, ask, get, post


def searchset(platform: Platform, pad: int = 0) -> bytes:
    """A page whose links and text name the platform; a decimal tells whether bytes survive."""
    return (
        '{"resourceType":"Bundle","type":"searchset","total":1.10,"link":[{"relation":"next",'
        f'"url":"{platform.url}/Patient?_page=2"}}],"entry":[{{"fullUrl":"{platform.url}/Patient/1",'
        f'"resource":{{"resourceType":"Patient","id":"1","text":{{"status":"generated","div":'
        f'"<div>{platform.url}/Patient/1{" " * pad}</div>"}}}}}}]}}'
    ).encode()


def rewritten(page: bytes, platform: Platform, gateway_url: str) -> bytes:
    """What the caller should get: links changed, text and numbers not."""
    text = page.decode().replace(f'"{platform.url}', f'"{gateway_url}')
    return text.encode()


async def test_links_of_an_answer_lead_to_the_gateway(gateway: Running, platform: Platform) -> None:
    """Links become URLs of the Host that the caller used; all other bytes stay."""
    platform.answer(fhir(searchset(platform)))
    reply = await ask(gateway.address, get("/fhir/Patient"))
    assert reply.body == rewritten(searchset(platform), platform, "http://gateway/fhir")


@pytest.mark.parametrize("bound", ["127.0.0.1", "[::1]"])
async def test_without_a_host_links_name_the_connections_address(
    start_gateway, platform: Platform, bound: str
) -> None:
    """A caller of HTTP/1.0 that sends no Host stays with the gateway, page by page."""
    request = "GET {} HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"
    created = fhir(PATIENT, 201, ("Location", f"{platform.url}/Patient/1/_history/1"))
    platform.script(fhir(searchset(platform)), fhir(searchset(platform)), created)
    async with (
        start_gateway(listen={"address": f"{bound}:0"}) as gateway,
        await Wire.open(gateway.address) as wire,
    ):
        base = f"http://{bound}:{gateway.address.port}/fhir"
        page = await wire.ask(request.format("/fhir/Patient").encode())
        assert page.body == rewritten(searchset(platform), platform, base)
        following = page.json()["link"][0]["url"].removeprefix(base.removesuffix("/fhir"))
        assert (await wire.ask(request.format(following).encode())).body == page.body
        post_ = request.replace("GET", "POST").format("/fhir/Patient")[:-2]
        reply = await wire.ask(f"{post_}Content-Length: 2\r\n\r\n{{}}".encode())
        assert reply.header("location") == f"{base}/Patient/1/_history/1"
        # A Host is believed as ever.
        named = await wire.ask(get("/fhir/Patient/1", version="1.0"))
    assert named.status == 200
    assert platform.seen[1].target == "/r5/Patient?_page=2"


async def test_public_url_is_used_when_it_is_set(start_gateway, platform: Platform) -> None:
    """With `listen.public_url` links carry it, whatever Host was sent."""
    public = "https://gw.clinic.uz/fhir"
    async with start_gateway(listen={"public_url": public}) as gateway:
        platform.answer(fhir(searchset(platform)))
        reply = await ask(gateway.address, get("/fhir/Patient"))
    assert reply.body == rewritten(searchset(platform), platform, public)


async def test_rewriting_can_be_switched_off(start_gateway, platform: Platform) -> None:
    """With `rewrite.enabled: false` an answer passes byte for byte."""
    async with start_gateway(rewrite={"enabled": False}) as gateway:
        platform.answer(fhir(searchset(platform), 200, ("Location", f"{platform.url}/Patient/1")))
        reply = await ask(gateway.address, get("/fhir/Patient"))
    assert reply.body == searchset(platform)
    assert reply.header("location") == f"{platform.url}/Patient/1"


async def test_streamed_answer_is_rewritten(gateway: Running, platform: Platform) -> None:
    """An answer that streams is rewritten too, wherever its chunks are cut."""
    page = searchset(platform, pad=200_000)
    platform.answer(chunked(*(page[at : at + 777] for at in range(0, len(page), 777))))
    reply = await ask(gateway.address, get("/fhir/Patient"))
    assert reply.body == rewritten(page, platform, "http://gateway/fhir")


@pytest.mark.parametrize("pad", [0, 300_000])
async def test_gzip_answer_is_rewritten_inside(
    gateway: Running, platform: Platform, pad: int
) -> None:
    """A gzip answer is opened, rewritten and compressed again."""
    page = searchset(platform, pad)
    platform.answer(fhir(gzip.compress(page, 0), 200, ("Content-Encoding", "gzip")))
    reply = await ask(gateway.address, get("/fhir/Patient", "Accept-Encoding: br, gzip;q=0.5"))
    assert platform.seen[0].header("accept-encoding") == "gzip;q=0.5"
    assert reply.header("content-encoding") == "gzip"
    assert gzip.decompress(reply.body) == rewritten(page, platform, "http://gateway/fhir")


async def test_header_links_are_rewritten(gateway: Running, platform: Platform) -> None:
    """Location, Content-Location and Link lead to the gateway; a relative Location stays."""
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
    reply = await ask(gateway.address, post("/fhir/Patient", b"{}"))
    assert reply.header("location") == "http://gateway/fhir/Patient/1/_history/1"
    assert reply.header("content-location") == "/fhir/Patient/1"
    assert reply.header("link") == '<http://gateway/fhir/Patient?_page=2>; rel="next"'
    reply = await ask(gateway.address, post("/fhir/Patient", b"{}"))
    assert reply.header("location") == "Patient/1/_history/1"


async def test_digest_of_a_changed_body_is_dropped(gateway: Running, platform: Platform) -> None:
    """A digest stays with a body that passed unchanged and goes from one that did not."""
    digest = ("Content-MD5", "Q2hlY2sgSW50ZWdyaXR5IQ==")
    mentioned = f'{{"resourceType":"Basic","a":"{platform.url}/Patient/1"}}'.encode()
    bodies = (searchset(platform), PATIENT, mentioned)
    platform.script(*(fhir(body, 200, digest) for body in bodies))
    replies = [await ask(gateway.address, get("/fhir/Patient")) for _ in bodies]
    assert [reply.header("content-md5") for reply in replies] == [None, digest[1], digest[1]]


async def test_binary_and_parts_are_not_touched(gateway: Running, platform: Platform) -> None:
    """The content of a Binary, be it FHIR, and a part of a body pass byte for byte."""
    body = searchset(platform)
    platform.script(fhir(body), fhir(body, 206, ("Content-Range", "bytes 0-9/20")))
    assert (await ask(gateway.address, get("/fhir/Binary/1"))).body == body
    assert (await ask(gateway.address, get("/fhir/Patient/1", "Range: bytes=0-9"))).body == body


async def test_gateway_urls_of_a_request_lead_to_the_platform(
    gateway: Running, platform: Platform
) -> None:
    """References and query values with gateway URLs reach the platform as its own."""
    body = b'{"resourceType":"Observation","subject":{"reference":"http://gateway/fhir/Patient/1"}}'
    await ask(gateway.address, post("/fhir/Observation", body))
    sent = json.loads(platform.seen[0].body)
    assert sent["subject"]["reference"] == f"{platform.url}/Patient/1"
    assert platform.seen[0].header("content-length") == str(len(platform.seen[0].body))

    value = quote("http://gateway/fhir/Patient/1", safe="")
    await ask(gateway.address, get(f"/fhir/Observation?subject={value}&x=%2C"))
    expected = quote(f"{platform.url}/Patient/1", safe="")
    assert platform.seen[1].target == f"/r5/Observation?subject={expected}&x=%2C"


async def test_if_none_exist_is_rewritten(gateway: Running, platform: Platform) -> None:
    """A gateway URL in If-None-Exist, which is a query, becomes the platform's."""
    await ask(
        gateway.address,
        post("/fhir/Observation", b"{}", "If-None-Exist: subject=http://gateway/fhir/Patient/1"),
    )
    assert platform.seen[0].header("if-none-exist") == f"subject={platform.url}/Patient/1"


async def test_large_request_is_rewritten_as_it_streams(
    gateway: Running, platform: Platform
) -> None:
    """A body beyond the replay buffer goes on in chunks, rewritten."""
    text = "x" * 1_500_000
    body = (
        f'{{"resourceType":"Observation","note":[{{"text":"{text}"}}],'
        '"subject":{"reference":"http://gateway/fhir/Patient/1"}}'
    ).encode()
    await ask(gateway.address, post("/fhir/Observation", body))
    seen = platform.seen[0]
    assert seen.header("transfer-encoding") == "chunked"
    assert json.loads(seen.body)["subject"]["reference"] == f"{platform.url}/Patient/1"
    assert len(seen.body) == len(body) - len("http://gateway/fhir") + len(platform.url)


async def test_rewritten_body_is_sent_again_after_a_401(
    gateway: Running, platform: Platform
) -> None:
    """The second time the platform gets the same rewritten body."""
    platform.script(http(401, b"{}", ("Content-Type", "application/fhir+json")))
    body = b'{"resourceType":"Observation","subject":{"reference":"http://gateway/fhir/Patient/1"}}'
    await ask(gateway.address, post("/fhir/Observation", body))
    first, second = (seen.body for seen in platform.seen)
    assert first == second
    assert platform.url.encode() in first


async def test_truncated_rewritten_stream_is_cut(gateway: Running, platform: Platform) -> None:
    """A rewritten answer that breaks in the middle never looks complete to its caller."""

    async def cut(line: Line) -> None:
        page = searchset(platform, pad=300_000)
        line.writer.write(chunked(page[:200_000], end=False))
        await line.writer.drain()
        line.writer.close()

    platform.answer(cut)
    async with await Wire.open(gateway.address) as wire:
        await wire.send(get("/fhir/Patient"))
        received = await wire.reader.read()
    assert received.startswith(b"HTTP/1.1 200")
    assert not received.endswith(b"0\r\n\r\n")


async def test_long_work_on_one_body_leaves_others_their_turn(
    gateway: Running, platform: Platform
) -> None:
    """While a small compressed answer unpacks to a long one, another caller is served."""
    text = b'{"resourceType":"Basic","a":[' + b'"%s/x",' % platform.url.encode() * 60_000 + b"0]}"
    packed = gzip.compress(text)
    assert len(packed) < 64 * 1024
    kind, coding = ("Content-Type", "application/fhir+json"), ("Content-Encoding", "gzip")
    platform.script(http(200, packed, kind, coding), fhir())
    long = asyncio.create_task(
        ask(gateway.address, get("/fhir/Patient/1", "Accept-Encoding: gzip"))
    )
    await platform.until_seen(1)
    assert (await ask(gateway.address, get("/fhir/Patient/2"))).status == 200
    assert not long.done()
    assert gzip.decompress((await long).body) == text


@pytest.mark.parametrize("version", ["1.0", "1.1"])
async def test_small_compressed_answer_that_becomes_long_arrives_whole(
    start_gateway, platform: Platform, version: str
) -> None:
    """Opened for the caller it goes out in pieces, or with its length to who knows no chunks."""
    text = (
        b'{"resourceType":"Basic","subject":{"reference":"%s/Patient/1"},"x":"'
        % platform.url.encode()
    )
    text += b" " * 3_000_000 + b'"}'
    kind, coding = ("Content-Type", "application/fhir+json"), ("Content-Encoding", "gzip")
    platform.answer(http(200, gzip.compress(text), kind, coding))
    async with start_gateway(platform={"compression": "answers"}) as gateway:
        reply = await ask(gateway.address, get("/fhir/Basic/1", version=version))
    assert reply.body == text.replace(platform.url.encode(), b"http://gateway/fhir")
    assert (reply.header("content-length") is None) == (version == "1.1")
