"""The platform's connection breaks at every octet of its response.

The octets that the caller received are parsed strictly: they must be the complete response, a local
error, or visibly truncated.
"""

from __future__ import annotations

import asyncio
import gzip
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import pytest

from tests.doubles.gateway import RunningGateway
from tests.doubles.platform import Platform, PlatformConnection, ScriptedResponse, read_body
from tests.doubles.reference import Complete, InvalidResponseError, read_answer
from tests.doubles.wire import Wire, get, post
from tests.extent import left_to_ci
from tests.pipeline.conftest import StartGateway

_PREFETCH: Final = 64 * 1024
# Never open the circuit, always repeat what may be repeated.
_SETTINGS: Final = {
    "retries": {"max_attempts": 2, "backoff": 0.0001, "budget_ratio": 1.0},
    "circuit_breaker": {"failure_ratio": 1.0, "min_requests": 1_000_000},
    # All responses are invalid here: probes of the gateway would be counted.
    "admin": {"probe_interval": 0},
}


@dataclass(frozen=True)
class Case:
    """A response, the length of its shortest complete part, and the content for the caller."""

    stream: bytes
    whole_at: int
    content: bytes
    coded: bool = False


def bundle(platform: Platform, pad: int) -> tuple[bytes, bytes]:
    """Return a page with a link to the platform, and the content for the caller."""
    page = '{"resourceType":"Bundle","link":[{"relation":"self","url":"%s/Patient"}],"x":"%s"}'
    return (
        (page % (platform.url, "x" * pad)).encode(),
        (page % ("http://gateway/fhir", "x" * pad)).encode(),
    )


def head(*fields: str) -> bytes:
    lines = ["HTTP/1.1 200 OK", "Content-Type: application/fhir+json", *fields, "", ""]
    return "\r\n".join(lines).encode()


def with_length(platform: Platform, pad: int = 0) -> Case:
    page, content = bundle(platform, pad)
    stream = head(f"Content-Length: {len(page)}") + page
    return Case(stream, len(stream), content)


def in_chunks(platform: Platform, pad: int = 0) -> Case:
    """Return a chunked response with an extension and a trailer."""
    page, content = bundle(platform, pad)
    middle = len(page) // 2
    pieces = (page[:7], page[7:middle], page[middle:])
    coded = b"".join(b"%x;a=b\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
    stream = head("Transfer-Encoding: chunked") + coded + b"0\r\nX-Sum: 1\r\n\r\n"
    return Case(stream, len(stream), content)


def delimited_by_close(platform: Platform, pad: int = 0) -> Case:
    page, content = bundle(platform, pad)
    stream = head() + page
    return Case(stream, len(stream), content)


def in_gzip(platform: Platform, pad: int = 0) -> Case:
    """Return a compressed response with a length."""
    page, content = bundle(platform, pad)
    packed = gzip.compress(page, 0 if pad else 9)
    stream = head("Content-Encoding: gzip", f"Content-Length: {len(packed)}") + packed
    return Case(stream, len(stream), content, coded=True)


def broken_off(stream: bytes, *, reset: bool) -> ScriptedResponse:
    """Send the octets, then break the connection."""

    async def respond(connection: PlatformConnection) -> None:
        await read_body(connection.reader, connection.request)
        connection.writer.write(stream)
        await connection.writer.drain()
        if reset:
            # Let the gateway read first: a reset throws away what was not read.
            await asyncio.sleep(0.001)
            connection.reset()
        else:
            connection.writer.close()

    return respond


async def received(gateway: RunningGateway, request: bytes) -> tuple[bytes, bool]:
    """Return all octets up to the connection's end, and whether it ended with a FIN."""
    pieces = []
    async with await Wire.open(gateway.address) as wire:
        await wire.send(request)
        try:
            while piece := await wire.reader.read(2**20):
                pieces.append(piece)
        except ConnectionError:
            return b"".join(pieces), False
    return b"".join(pieces), True


def request_of(method: str, version: str) -> bytes:
    """Return a read or a create that is the last of its connection."""
    fields = ("Connection: close", "Accept-Encoding: gzip")
    if method == "GET":
        return get("/fhir/Patient", *fields, version=version)
    return post("/fhir/Patient", b'{"a":1}', *fields).replace(
        b"HTTP/1.1", b"HTTP/" + version.encode()
    )


def result_of(raw: bytes, clean: bool, case: Case, *, whole: bool, http10: bool) -> str:
    """Return what the caller received: `whole`, `error` or `cut`; else fail."""
    try:
        seen = read_answer(raw, head=False, ended=clean)
    except InvalidResponseError:
        # HTTP/1.0 has nothing but the reset to tell (and the missing bytes, where a length was).
        assert not (http10 and clean), "a clean end in the middle of an answer"
        return "cut"
    assert seen.rest == b""
    assert seen.bounded, "an answer that only its end delimits"
    if b"\r\nX-Gateway-Error: upstream-failed\r\n" in raw:
        assert seen.status == 502
        assert b'"OperationOutcome"' in seen.body
        return "error"
    assert whole, "a broken answer looks complete"
    _judge_whole(seen, case)
    return "whole"


def _judge_whole(seen: Complete, case: Case) -> None:
    assert seen.status == 200
    assert (gzip.decompress(seen.body) if case.coded else seen.body) == case.content


async def break_off_at(
    gateway: RunningGateway,
    platform: Platform,
    case: Case,
    length: int,
    *,
    request: bytes,
    reset: bool,
) -> str:
    """Break the response after `length` octets, and return what the caller received."""
    before = len(platform.requests)
    platform.respond(broken_off(case.stream[:length], reset=reset))
    raw, clean = await received(gateway, request)
    attempts = len(platform.requests) - before
    whole = length >= case.whole_at
    seen = result_of(raw, clean, case, whole=whole, http10=b" HTTP/1.0\r\n" in request)
    if not request.startswith(b"GET") or seen == "cut":
        assert attempts == 1
    elif seen == "error" and length < _PREFETCH:
        assert attempts == 2
    return seen


def lengths_to_test(case: Case, *, thoroughly: bool) -> list[int]:
    """Return all lengths, or some of each part and all at the end, which the same code reads."""
    end = len(case.stream) + 1
    return [*range(end)] if thoroughly else [*range(0, end - 20, 7), *range(end - 20, end)]


MAKERS = (with_length, in_chunks, delimited_by_close, in_gzip)
VERSIONS = ("1.1", "1.0")
ENDS = ("fin", "rst")


@pytest.mark.parametrize(
    ("make", "version", "method", "end"),
    left_to_ci(itertools.product(MAKERS, VERSIONS, ("GET", "POST"), ENDS), but=11),
)
async def test_a_small_response_that_breaks_is_complete_or_a_502(
    start_gateway: StartGateway,
    platform: Platform,
    make: Callable[[Platform], Case],
    version: str,
    method: str,
    end: str,
) -> None:
    """Reads are retried once, writes never."""
    case, request, reset = make(platform), request_of(method, version), end == "rst"
    lengths = lengths_to_test(case, thoroughly=(version, method) == ("1.1", "GET"))
    async with start_gateway(**_SETTINGS) as gateway:
        seen = [
            await break_off_at(gateway, platform, case, length, request=request, reset=reset)
            for length in lengths
        ]
        assert len(await gateway.audit(len(lengths))) == len(lengths)
    assert set(seen[:-1]) == {"error"}
    # A reset can overtake the last octets, and does not end a response delimited by close.
    assert seen[-1] == "whole" or (reset and seen[-1] == "error")
    assert reset or seen[-1] == "whole"


def interesting(case: Case) -> list[int]:
    """Return lengths around the first octet that is forwarded, and those at the end."""
    around = range(_PREFETCH - 2, _PREFETCH + 600, 47)
    return [*around, *range(len(case.stream) - 40, len(case.stream) + 1)]


@pytest.mark.parametrize(
    ("make", "rewrite", "version", "end"),
    left_to_ci(itertools.product(MAKERS, (True, False), VERSIONS, ENDS), but=11),
)
async def test_a_large_response_that_breaks_is_a_502_complete_or_visibly_truncated(
    start_gateway: StartGateway,
    platform: Platform,
    make: Callable[..., Case],
    rewrite: bool,
    version: str,
    end: str,
) -> None:
    case, request = make(platform, pad=70_000), request_of("GET", version)
    reset = end == "rst"
    if not rewrite:
        case = Case(case.stream, case.whole_at, bundle(platform, 70_000)[0], case.coded)
    seen = []
    async with start_gateway(rewrite={"enabled": rewrite}, **_SETTINGS) as gateway:
        for length in interesting(case):
            seen.append(
                await break_off_at(gateway, platform, case, length, request=request, reset=reset)
            )
    if make is delimited_by_close or (version == "1.0" and (make is in_chunks or rewrite)):
        # Held back or collected: nothing was sent before the end.
        assert "cut" not in seen
    else:
        assert "cut" in seen
    assert reset or seen[-1] == "whole"
