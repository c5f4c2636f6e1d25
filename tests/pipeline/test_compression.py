"""`platform.compression`: gzip towards the platform, as callers and the platform see it."""

from __future__ import annotations

import gzip
import os

import pytest

from tests.doubles.platform import Platform, fhir, http, outcome, then_close, unauthorized
from tests.doubles.wire import fetch, get, post
from tests.pipeline.testbed import page_that_links

GZIP = ("Content-Encoding", "gzip")
TAKES_GZIP = ("Accept-Encoding", "gzip")
LARGE = b'{"resourceType":"Basic","text":{"status":"empty","div":"' + b"x " * 2000 + b'"}}'


@pytest.mark.parametrize("pad", [0, 300_000])
@pytest.mark.parametrize(
    "accept",
    [(), *((f"Accept-Encoding: {coding}",) for coding in ("identity", "br", "gzip;q=0, *"))],
)
async def test_responses_are_decoded_for_callers_that_do_not_accept_gzip(
    start_gateway, platform: Platform, accept: tuple[str, ...], pad: int
) -> None:
    """The platform is asked for gzip; the caller gets rewritten JSON with its length."""
    async with start_gateway(platform={"compression": "answers"}) as gateway:
        sent = page_that_links(platform, pad)
        platform.respond(fhir(gzip.compress(sent), 200, GZIP, ("Content-MD5", "x")))
        response = await fetch(gateway.address, get("/fhir/Patient", *accept))
    assert platform.requests[0].header("accept-encoding") == "gzip"
    assert response.header("content-encoding") is None
    assert response.header("content-md5") is None
    assert response.body == sent.replace(platform.url.encode(), b"http://gateway/fhir")


async def test_callers_that_accept_gzip_get_gzip(start_gateway, platform: Platform) -> None:
    """Their own Accept-Encoding reaches the platform."""
    async with start_gateway(platform={"compression": "answers"}) as gateway:
        platform.respond(fhir(gzip.compress(page_that_links(platform)), 200, GZIP))
        response = await fetch(gateway.address, get("/fhir/Patient", "Accept-Encoding: gzip;q=0.5"))
    assert platform.requests[0].header("accept-encoding") == "gzip;q=0.5"
    assert response.header("content-encoding") == "gzip"
    assert b"http://gateway/fhir/Patient?_page=2" in gzip.decompress(response.body)


async def test_binaries_are_decoded_and_not_rewritten(start_gateway, platform: Platform) -> None:
    """Also what is not FHIR, and with rewriting switched off."""
    changes = {"platform": {"compression": "answers"}, "rewrite": {"enabled": False}}
    async with start_gateway(**changes) as gateway:
        sent = bytes(range(256)) * 40
        kind = ("Content-Type", "image/png")
        platform.respond(http(200, gzip.compress(sent), kind, GZIP))
        response = await fetch(gateway.address, get("/fhir/Binary/1"))
    assert response.body == sent
    assert response.header("content-encoding") is None


async def test_ranges_are_not_requested_in_gzip(start_gateway, platform: Platform) -> None:
    """A range of a compressed body cannot be decoded."""
    async with start_gateway(platform={"compression": "answers"}) as gateway:
        await fetch(gateway.address, get("/fhir/Binary/1", "Range: bytes=0-9"))
    assert platform.requests[0].header("accept-encoding") == "identity"


async def test_a_compressed_error_page_is_recognised(start_gateway, platform: Platform) -> None:
    """Also under a FHIR type."""
    async with start_gateway(platform={"compression": "answers"}) as gateway:
        platform.respond(fhir(gzip.compress(b"<html>Bad gateway</html>"), 502, GZIP))
        response = await fetch(gateway.address, post("/fhir/Basic", b"{}"))
    assert (response.status, response.reason) == (502, "upstream-non-fhir")


@pytest.mark.parametrize(("cut", "status"), [(None, 200), (-9, 502)])
async def test_a_compressed_response_delimited_by_close(
    start_gateway, platform: Platform, cut: int | None, status: int
) -> None:
    """It passes when its content is complete, else it is a 502."""
    async with start_gateway(
        platform={"compression": "answers"}, retries={"max_attempts": 1}
    ) as gateway:
        kind = ("Content-Type", "application/fhir+json")
        body = gzip.compress(LARGE)[:cut]
        platform.respond(then_close(http(200, body, kind, GZIP, length=False)))
        response = await fetch(gateway.address, get("/fhir/Basic/1"))
    assert response.status == status
    if status == 200:
        assert response.body == LARGE


async def test_requests_are_compressed_once_the_platform_accepts_gzip(
    start_gateway, platform: Platform
) -> None:
    """After a response with `Accept-Encoding: gzip`, and only bodies of some size."""
    async with start_gateway(platform={"compression": "both"}) as gateway:
        platform.respond(fhir(b"{}", 201, TAKES_GZIP))
        for body in (LARGE, LARGE, b"{}"):
            await fetch(gateway.address, post("/fhir/Basic", body))
    first, second, small = platform.requests
    assert (first.header("content-encoding"), first.body) == (None, LARGE)
    assert second.header("content-encoding") == "gzip"
    assert second.header("content-length") == str(len(second.body))
    assert gzip.decompress(second.body) == LARGE
    assert small.header("content-encoding") is None


async def test_a_415_ends_compression(start_gateway, platform: Platform) -> None:
    """The request is sent again without the coding, and all later ones too."""
    async with start_gateway(platform={"compression": "both"}) as gateway:
        created = fhir(b"{}", 201, TAKES_GZIP)
        platform.script(created, outcome(415), created, created)
        responses = [await fetch(gateway.address, post("/fhir/Basic", LARGE)) for _ in range(3)]
    assert [response.status for response in responses] == [201, 201, 201]
    codings = [request.header("content-encoding") for request in platform.requests]
    assert codings == [None, "gzip", None, None]
    assert platform.requests[2].body == platform.requests[3].body == LARGE


async def test_a_415_that_remains_without_the_coding_reaches_the_caller(
    start_gateway, platform: Platform
) -> None:
    """The coding was not its cause and is used again."""
    async with start_gateway(platform={"compression": "both"}) as gateway:
        platform.script(fhir(b"{}", 201, TAKES_GZIP), outcome(415), outcome(415))
        responses = [await fetch(gateway.address, post("/fhir/Basic", LARGE)) for _ in range(3)]
    assert [response.status for response in responses] == [201, 415, 200]
    assert platform.requests[-1].header("content-encoding") == "gzip"


@pytest.mark.parametrize("refused", [False, True])
async def test_a_body_that_cannot_be_retained_is_sent_complete_and_uncompressed(
    start_gateway, platform: Platform, refused: bool
) -> None:
    """Also when compression gained nothing, or was rejected."""
    body = b"x" * 5000 if refused else os.urandom(5000)
    limits = {"replay_buffer_bytes": 1024}
    async with start_gateway(
        platform={"compression": "both"}, limits=limits, rewrite={"enabled": False}
    ) as gateway:
        created = fhir(b"{}", 201, TAKES_GZIP)
        platform.script(created, *([outcome(415)] if refused else []), created)
        await fetch(gateway.address, post("/fhir/Basic", b"{}"))
        response = await fetch(gateway.address, post("/fhir/Binary", body))
    assert response.status == 201
    assert platform.requests[-1].header("content-encoding") is None
    assert platform.requests[-1].body == body


async def test_a_compressed_request_is_sent_again_complete_after_a_401(
    start_gateway, platform: Platform
) -> None:
    async with start_gateway(platform={"compression": "both"}) as gateway:
        platform.script(fhir(b"{}", 201, TAKES_GZIP), unauthorized(), fhir(b"{}", 201))
        responses = [await fetch(gateway.address, post("/fhir/Basic", LARGE)) for _ in range(2)]
    assert [response.status for response in responses] == [201, 201]
    assert platform.requests[1].body == platform.requests[2].body
    assert gzip.decompress(platform.requests[2].body) == LARGE


@pytest.mark.parametrize("mode", ["off", "answers"])
async def test_without_both_no_request_is_compressed(
    start_gateway, platform: Platform, mode: str
) -> None:
    async with start_gateway(platform={"compression": mode}) as gateway:
        platform.respond(fhir(b"{}", 201, TAKES_GZIP))
        for _ in range(2):
            await fetch(gateway.address, post("/fhir/Basic", LARGE))
    assert [request.body for request in platform.requests] == [LARGE, LARGE]
