"""Compression that was not requested: a caller gets only content codings that it accepts."""

from __future__ import annotations

import gzip
import secrets
import zlib
from collections.abc import Callable

import pytest

from tests.doubles.gateway import RunningGateway
from tests.doubles.platform import Platform, chunked, fhir, http, outcome
from tests.doubles.wire import TruncatedResponseError, fetch, get
from tests.pipeline.testbed import page_that_links

Pack = Callable[[bytes], bytes]

LARGE = 300_000
# 300 KB that shrink to less than a read.
PADS = [0, LARGE]


def bare_deflate(data: bytes) -> bytes:
    """Return deflate without zlib's header, as old servers send it."""
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


CODINGS = [("gzip", gzip.compress), ("X-GZIP", gzip.compress)]
CODINGS += [("deflate", zlib.compress), ("deflate", bare_deflate)]
OPENED_FOR = [(), ("br",), ("identity",), ("gzip;q=0, deflate;q=0, *",), ("*;q=0",)]


def accepting(codings: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"Accept-Encoding: {each}" for each in codings)


@pytest.mark.parametrize("pad", PADS)
@pytest.mark.parametrize(("name", "pack"), CODINGS)
@pytest.mark.parametrize("codings", OPENED_FOR)
async def test_a_coding_is_decoded_where_the_caller_does_not_accept_it(
    gateway: RunningGateway,
    platform: Platform,
    codings: tuple[str, ...],
    name: str,
    pack: Pack,
    pad: int,
) -> None:
    """Whatever the coding and the size; links are rewritten."""
    sent = page_that_links(platform, pad)
    ties = (("ETag", '"3"'), ("Content-MD5", "x"), ("Accept-Ranges", "bytes"))
    platform.respond(fhir(pack(sent), 200, ("Content-Encoding", name), *ties))
    response = await fetch(gateway.address, get("/fhir/Patient", *accepting(codings)))
    assert response.body == sent.replace(platform.url.encode(), b"http://gateway/fhir")
    values = [
        response.header(each) for each in ("content-encoding", "content-md5", "accept-ranges")
    ]
    assert values == [None, None, None]
    assert (response.header("etag"), response.header("vary")) == ('W/"3"', "Accept-Encoding")


@pytest.mark.parametrize("pad", PADS)
@pytest.mark.parametrize("rewrite", [True, False])
@pytest.mark.parametrize(("name", "pack"), CODINGS)
async def test_a_coding_is_kept_where_the_caller_accepts_it(
    start_gateway, platform: Platform, name: str, pack: Pack, rewrite: bool, pad: int
) -> None:
    """With links rewritten."""
    async with start_gateway(rewrite={"enabled": rewrite}) as gateway:
        sent = page_that_links(platform, pad)
        platform.respond(fhir(pack(sent), 200, ("Content-Encoding", name), ("Vary", "accept")))
        asked = get("/fhir/Patient", "Accept-Encoding: gzip, deflate")
        response = await fetch(gateway.address, asked)
    assert response.header("content-encoding") == name
    assert response.all("vary") == ["accept", "Accept-Encoding"]
    bits = zlib.MAX_WBITS + 32 if not rewrite or pack is not bare_deflate else zlib.MAX_WBITS
    if pack is bare_deflate and not rewrite:
        bits = -zlib.MAX_WBITS
    plain = zlib.decompress(response.body, bits)
    assert plain == (
        sent.replace(platform.url.encode(), b"http://gateway/fhir") if rewrite else sent
    )


@pytest.mark.parametrize(
    ("codings", "asked"),
    [
        ((), "identity"),
        (("",), "identity"),
        (("identity",), "identity"),
        (("br, deflate, zstd",), "identity"),
        (("gzip;q=0",), "identity"),
        (("gzip;q=0.0, *",), "identity"),
        (("*;q=0",), "identity"),
        (("gzip",), "gzip"),
        (("gzip, deflate, br",), "gzip"),
        (("br", "x-gzip;q=0.5"), "x-gzip;q=0.5"),
        (("br, gzip;q=0.5",), "gzip;q=0.5"),
        (("identity;q=0.5, GZIP;q=1.0",), "identity;q=0.5, GZIP;q=1.0"),
        (("*",), "gzip"),
        (("identity;q=0, *;q=0.5",), "gzip, identity;q=0"),
        (("gzip, *;q=0",), "gzip, *;q=0"),
    ],
)
@pytest.mark.parametrize("rewrite", [True, False])
async def test_accept_encoding_names_gzip_or_identity(
    start_gateway, platform: Platform, codings: tuple[str, ...], asked: str, rewrite: bool
) -> None:
    """As the caller accepts them; identity where it names neither."""
    async with start_gateway(rewrite={"enabled": rewrite}) as gateway:
        await fetch(gateway.address, get("/fhir/Patient/1", *accepting(codings)))
    assert platform.requests[0].header("accept-encoding") == asked


@pytest.mark.parametrize("status", [200, 304])
@pytest.mark.parametrize("codings", [(), ("gzip",)])
async def test_head_and_304_have_the_fields_of_the_get(
    gateway: RunningGateway, platform: Platform, codings: tuple[str, ...], status: int
) -> None:
    """Coding, length and validator."""
    coded = [("Content-Encoding", "gzip"), ("ETag", '"3"'), ("Content-Length", "77")]
    platform.respond(http(status, b"", ("Content-Type", "application/json"), *coded, length=False))
    method = "HEAD" if status == 200 else "GET"
    asked = get("/fhir/Binary/1", *accepting(codings), method=method)
    response = await fetch(gateway.address, asked, head=True)
    values = [response.header(each) for each in ("content-encoding", "etag", "content-length")]
    assert values == (["gzip", '"3"', "77"] if codings else [None, 'W/"3"', None])
    assert response.header("vary") == "Accept-Encoding"


@pytest.mark.parametrize(("codings", "status"), [((), 502), (("gzip",), 206)])
async def test_a_range_of_a_compressed_body_needs_a_caller_that_accepts_it(
    gateway: RunningGateway, platform: Platform, codings: tuple[str, ...], status: int
) -> None:
    """It cannot be decoded."""
    part = gzip.compress(b"x" * 99)[:10]
    fields = (("Content-Encoding", "gzip"), ("Content-Range", "bytes 0-9/20"))
    platform.respond(http(206, part, ("Content-Type", "image/png"), *fields))
    asked = get("/fhir/Binary/1", "Range: bytes=0-9", *accepting(codings))
    response = await fetch(gateway.address, asked)
    assert response.status == status
    assert response.reason == (None if codings else "upstream-failed")
    assert not codings or response.body == part


async def test_a_body_with_two_codings_passes_unchanged(
    gateway: RunningGateway, platform: Platform
) -> None:
    body = gzip.compress(gzip.compress(page_that_links(platform)))
    twice = (("Content-Encoding", "gzip"), ("Content-Encoding", "gzip"))
    platform.respond(fhir(body, 200, *twice))
    response = await fetch(gateway.address, get("/fhir/Basic"))
    assert (response.all("content-encoding"), response.body) == (["gzip", "gzip"], body)


@pytest.mark.parametrize(
    "wrong",
    [b"<html>no gzip</html>", gzip.compress(b"{}" * 99)[:-1]],
    ids=["another format", "cut"],
)
async def test_a_body_that_is_not_in_its_coding_becomes_a_502(
    gateway: RunningGateway, platform: Platform, wrong: bytes
) -> None:
    platform.respond(fhir(wrong, 200, ("Content-Encoding", "gzip")))
    response = await fetch(gateway.address, get("/fhir/Patient"))
    assert (response.status, response.reason) == (502, "upstream-failed")


async def test_a_coding_error_in_a_long_body_aborts_the_connection(
    gateway: RunningGateway, platform: Platform
) -> None:
    noise = secrets.token_hex(1_000_000).encode()
    body = gzip.compress(b'{"resourceType":"Basic","x":"' + noise + b'"}')
    cut = len(body) // 2
    head = chunked(body[:cut], b"wrong" * 99, body[cut:])
    platform.respond(head.replace(b"\r\n", b"\r\nContent-Encoding: gzip\r\n", 1))
    with pytest.raises(TruncatedResponseError):
        await fetch(gateway.address, get("/fhir/Basic/1"))


async def test_the_audit_counts_decoded_octets(gateway: RunningGateway, platform: Platform) -> None:
    sent = page_that_links(platform, LARGE)
    platform.respond(fhir(gzip.compress(sent), 200, ("Content-Encoding", "gzip")))
    response = await fetch(gateway.address, get("/fhir/Patient"))
    (record,) = await gateway.audit(1)
    assert record["response_bytes"] == len(response.body)


async def test_errors_are_decoded_too(gateway: RunningGateway, platform: Platform) -> None:
    plain = outcome(422).partition(b"\r\n\r\n")[2]
    platform.respond(fhir(gzip.compress(plain), 422, ("Content-Encoding", "gzip")))
    response = await fetch(gateway.address, get("/fhir/Patient/1"))
    assert (response.status, response.body) == (422, plain)


@pytest.mark.parametrize("codings", [("gzip",), ("identity",)])
@pytest.mark.parametrize("suffix", ["-gzip", "--gzip"])
async def test_a_version_is_freed_of_the_suffix_of_a_server_that_compresses(
    gateway: RunningGateway, platform: Platform, codings: tuple[str, ...], suffix: str
) -> None:
    """Apache 2.4.71 appends the first, Jetty the second; with it an If-Match would be 412."""
    packed = gzip.compress(b'{"resourceType":"Patient"}')
    etag = ("ETag", f'W/"1{suffix}"')
    platform.script(fhir(packed, 200, ("Content-Encoding", "gzip"), etag), http(304, b"", etag))
    asked = get("/fhir/Patient/1", *accepting(codings))
    responses = [await fetch(gateway.address, asked) for _ in range(2)]
    assert [each.status for each in responses] == [200, 304]
    assert [each.header("etag") for each in responses] == ['W/"1"'] * 2


@pytest.mark.parametrize("etag", ['"1-gzip"', 'W/"1"', 'W/"gzip"'])
async def test_another_etag_of_a_compressed_response_stays(
    gateway: RunningGateway, platform: Platform, etag: str
) -> None:
    packed = gzip.compress(b'{"resourceType":"Patient"}')
    platform.respond(fhir(packed, 200, ("Content-Encoding", "gzip"), ("ETag", etag)))
    asked = get("/fhir/Patient/1", "Accept-Encoding: gzip")
    assert (await fetch(gateway.address, asked)).header("etag") == etag


async def test_a_version_that_ends_in_gzip_stays(
    gateway: RunningGateway, platform: Platform
) -> None:
    """In a response that is not compressed."""
    platform.respond(fhir(b'{"resourceType":"Patient"}', 200, ("ETag", 'W/"1-gzip"')))
    response = await fetch(gateway.address, get("/fhir/Patient/1"))
    assert response.header("etag") == 'W/"1-gzip"'
