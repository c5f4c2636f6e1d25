"""`platform.compression`: gzip towards the platform, as callers and the platform see it."""

from __future__ import annotations

import gzip

import pytest

from tests.doubles.platform import Platform, fhir, http, then_close
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


@pytest.mark.parametrize("mode", ["off", "answers"])
async def test_requests_are_sent_as_they_came(start_gateway, platform: Platform, mode: str) -> None:
    async with start_gateway(platform={"compression": mode}) as gateway:
        platform.respond(fhir(b"{}", 201, TAKES_GZIP))
        for _ in range(2):
            await fetch(gateway.address, post("/fhir/Basic", LARGE))
    assert [request.body for request in platform.requests] == [LARGE, LARGE]
