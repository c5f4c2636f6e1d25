"""`platform.compression`: gzip towards the platform, as callers and the platform see it."""

from __future__ import annotations

import gzip
import os

import pytest

from tests.doubles.platform import Platform, fhir, http, outcome, then_close, unauthorized
from tests.doubles.wire import ask, get, post
from tests.pipeline.stage import page_that_links

GZIP = ("Content-Encoding", "gzip")
TAKES_GZIP = ("Accept-Encoding", "gzip")
LARGE = b'{"resourceType":"Basic","text":{"status":"empty","div":"' + b"x " * 2000 + b'"}}'


@pytest.mark.parametrize("pad", [0, 300_000])
@pytest.mark.parametrize(
    "accept",
    [(), *((f"Accept-Encoding: {coding}",) for coding in ("identity", "br", "gzip;q=0, *"))],
)
async def test_answers_are_opened_for_who_does_not_accept_gzip(
    start_gateway, platform: Platform, accept: tuple[str, ...], pad: int
) -> None:
    """The platform is asked for gzip; the caller gets plain, rewritten JSON of its length."""
    async with start_gateway(platform={"compression": "answers"}) as gateway:
        sent = page_that_links(platform, pad)
        platform.answer(fhir(gzip.compress(sent), 200, GZIP, ("Content-MD5", "x")))
        reply = await ask(gateway.address, get("/fhir/Patient", *accept))
    assert platform.seen[0].header("accept-encoding") == "gzip"
    assert reply.header("content-encoding") is None
    assert reply.header("content-md5") is None
    assert reply.body == sent.replace(platform.url.encode(), b"http://gateway/fhir")


async def test_gzip_goes_on_to_who_accepts_it(start_gateway, platform: Platform) -> None:
    """A caller that accepts gzip gets gzip, and its own field reaches the platform."""
    async with start_gateway(platform={"compression": "answers"}) as gateway:
        platform.answer(fhir(gzip.compress(page_that_links(platform)), 200, GZIP))
        reply = await ask(gateway.address, get("/fhir/Patient", "Accept-Encoding: gzip;q=0.5"))
    assert platform.seen[0].header("accept-encoding") == "gzip;q=0.5"
    assert reply.header("content-encoding") == "gzip"
    assert b"http://gateway/fhir/Patient?_page=2" in gzip.decompress(reply.body)


async def test_binaries_are_opened_without_rewriting(start_gateway, platform: Platform) -> None:
    """Whatever the content: also what is no FHIR, and with rewriting switched off."""
    changes = {"platform": {"compression": "answers"}, "rewrite": {"enabled": False}}
    async with start_gateway(**changes) as gateway:
        sent = bytes(range(256)) * 40
        kind = ("Content-Type", "image/png")
        platform.answer(http(200, gzip.compress(sent), kind, GZIP))
        reply = await ask(gateway.address, get("/fhir/Binary/1"))
    assert reply.body == sent
    assert reply.header("content-encoding") is None


async def test_parts_are_not_asked_for_in_gzip(start_gateway, platform: Platform) -> None:
    """A part of a compressed body could not be opened."""
    async with start_gateway(platform={"compression": "answers"}) as gateway:
        await ask(gateway.address, get("/fhir/Binary/1", "Range: bytes=0-9"))
    assert platform.seen[0].header("accept-encoding") == "identity"


async def test_head_tells_of_what_get_would_give(start_gateway, platform: Platform) -> None:
    """No coding and no length are promised that the opened body would not have."""
    async with start_gateway(platform={"compression": "answers"}) as gateway:
        platform.answer(fhir(b"", 200, GZIP))
        reply = await ask(gateway.address, get("/fhir/Patient/1", method="HEAD"), head=True)
    assert (reply.status, reply.header("content-encoding")) == (200, None)
    assert reply.header("content-length") is None


async def test_compressed_error_page_is_recognised(start_gateway, platform: Platform) -> None:
    """An HTML page in gzip, even under a FHIR type, does not pass for a FHIR error."""
    async with start_gateway(platform={"compression": "answers"}) as gateway:
        platform.answer(fhir(gzip.compress(b"<html>Bad gateway</html>"), 502, GZIP))
        reply = await ask(gateway.address, post("/fhir/Basic", b"{}"))
    assert (reply.status, reply.reason) == (502, "upstream-non-fhir")


@pytest.mark.parametrize(("cut", "status"), [(None, 200), (-9, 502)])
async def test_compressed_answer_without_length(
    start_gateway, platform: Platform, cut: int | None, status: int
) -> None:
    """One framed by the connection's end passes when its content is whole, else it is a 502."""
    async with start_gateway(
        platform={"compression": "answers"}, retries={"max_attempts": 1}
    ) as gateway:
        kind = ("Content-Type", "application/fhir+json")
        body = gzip.compress(LARGE)[:cut]
        platform.answer(then_close(http(200, body, kind, GZIP, length=False)))
        reply = await ask(gateway.address, get("/fhir/Basic/1"))
    assert reply.status == status
    if status == 200:
        assert reply.body == LARGE


async def test_requests_are_compressed_once_the_platform_takes_that(
    start_gateway, platform: Platform
) -> None:
    """Only after an answer with `Accept-Encoding: gzip`, and only bodies of some size."""
    async with start_gateway(platform={"compression": "both"}) as gateway:
        platform.answer(fhir(b"{}", 201, TAKES_GZIP))
        for body in (LARGE, LARGE, b"{}"):
            await ask(gateway.address, post("/fhir/Basic", body))
    first, second, small = platform.seen
    assert (first.header("content-encoding"), first.body) == (None, LARGE)
    assert second.header("content-encoding") == "gzip"
    assert second.header("content-length") == str(len(second.body))
    assert gzip.decompress(second.body) == LARGE
    assert small.header("content-encoding") is None


async def test_415_ends_compression(start_gateway, platform: Platform) -> None:
    """A platform that refuses the coding gets the same request without it, and all later ones."""
    async with start_gateway(platform={"compression": "both"}) as gateway:
        created = fhir(b"{}", 201, TAKES_GZIP)
        platform.script(created, outcome(415), created, created)
        replies = [await ask(gateway.address, post("/fhir/Basic", LARGE)) for _ in range(3)]
    assert [reply.status for reply in replies] == [201, 201, 201]
    codings = [seen.header("content-encoding") for seen in platform.seen]
    assert codings == [None, "gzip", None, None]
    assert platform.seen[2].body == platform.seen[3].body == LARGE


async def test_415_for_another_reason_reaches_the_caller(start_gateway, platform: Platform) -> None:
    """When it stays without the coding, the coding was not the reason and is used again."""
    async with start_gateway(platform={"compression": "both"}) as gateway:
        platform.script(fhir(b"{}", 201, TAKES_GZIP), outcome(415), outcome(415))
        replies = [await ask(gateway.address, post("/fhir/Basic", LARGE)) for _ in range(3)]
    assert [reply.status for reply in replies] == [201, 415, 200]
    assert platform.seen[-1].header("content-encoding") == "gzip"


@pytest.mark.parametrize("refused", [False, True])
async def test_a_body_that_cannot_be_retained_is_sent_whole_without_the_coding(
    start_gateway, platform: Platform, refused: bool
) -> None:
    """It was taken to compress it, which gained nothing, or was refused."""
    body = b"x" * 5000 if refused else os.urandom(5000)
    limits = {"replay_buffer_bytes": 1024}
    async with start_gateway(
        platform={"compression": "both"}, limits=limits, rewrite={"enabled": False}
    ) as gateway:
        created = fhir(b"{}", 201, TAKES_GZIP)
        platform.script(created, *([outcome(415)] if refused else []), created)
        await ask(gateway.address, post("/fhir/Basic", b"{}"))
        reply = await ask(gateway.address, post("/fhir/Binary", body))
    assert reply.status == 201
    assert platform.seen[-1].header("content-encoding") is None
    assert platform.seen[-1].body == body


async def test_compressed_request_is_sent_again_after_a_401(
    start_gateway, platform: Platform
) -> None:
    """The second time it is as whole as the first."""
    async with start_gateway(platform={"compression": "both"}) as gateway:
        platform.script(fhir(b"{}", 201, TAKES_GZIP), unauthorized(), fhir(b"{}", 201))
        replies = [await ask(gateway.address, post("/fhir/Basic", LARGE)) for _ in range(2)]
    assert [reply.status for reply in replies] == [201, 201]
    assert platform.seen[1].body == platform.seen[2].body
    assert gzip.decompress(platform.seen[2].body) == LARGE


@pytest.mark.parametrize("mode", ["off", "answers"])
async def test_requests_pass_as_they_are(start_gateway, platform: Platform, mode: str) -> None:
    """Without `both` no body is compressed, whatever the platform accepts."""
    async with start_gateway(platform={"compression": mode}) as gateway:
        platform.answer(fhir(b"{}", 201, TAKES_GZIP))
        for _ in range(2):
            await ask(gateway.address, post("/fhir/Basic", LARGE))
    assert [seen.body for seen in platform.seen] == [LARGE, LARGE]
