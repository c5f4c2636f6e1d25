"""The platform's connection breaks at every byte of its answer: what does the caller see?

Held against a strict reading of the bytes that reached the caller: either they are the whole
answer, or an error of the gateway's, or they show that something is missing.
"""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import pytest

from tests.doubles.gateway import Running
from tests.doubles.platform import Answer, Line, Platform, read_body
from tests.doubles.reference import Complete, InvalidResponseError, read_answer
from tests.doubles.wire import Wire, get, post
from tests.pipeline.conftest import StartGateway

_PREFETCH: Final = 64 * 1024
# Never open the circuit, always repeat what may be repeated.
_SETTINGS: Final = {
    "retries": {"max_attempts": 2, "backoff": 0.0001, "budget_ratio": 1.0},
    "circuit_breaker": {"failure_ratio": 1.0, "min_requests": 1_000_000},
    # All answers are bad here: the gateway would ask by itself, too, and be counted.
    "admin": {"probe_interval": 0},
}


@dataclass(frozen=True)
class Case:
    """An answer, the shortest part of it that is whole, and the content the caller should get."""

    stream: bytes
    whole_at: int
    content: bytes
    coded: bool = False


def bundle(platform: Platform, pad: int) -> tuple[bytes, bytes]:
    """A page with a link to the platform, and what the caller should get of it."""
    page = '{"resourceType":"Bundle","link":[{"relation":"self","url":"%s/Patient"}],"x":"%s"}'
    return (
        (page % (platform.url, "x" * pad)).encode(),
        (page % ("http://gateway/fhir", "x" * pad)).encode(),
    )


def head(*fields: str) -> bytes:
    """The head of an answer."""
    lines = ["HTTP/1.1 200 OK", "Content-Type: application/fhir+json", *fields, "", ""]
    return "\r\n".join(lines).encode()


def with_length(platform: Platform, pad: int = 0) -> Case:
    """Content-Length."""
    page, content = bundle(platform, pad)
    stream = head(f"Content-Length: {len(page)}") + page
    return Case(stream, len(stream), content)


def in_chunks(platform: Platform, pad: int = 0) -> Case:
    """Chunked, with an extension and a trailer."""
    page, content = bundle(platform, pad)
    middle = len(page) // 2
    pieces = (page[:7], page[7:middle], page[middle:])
    coded = b"".join(b"%x;a=b\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
    stream = head("Transfer-Encoding: chunked") + coded + b"0\r\nX-Sum: 1\r\n\r\n"
    return Case(stream, len(stream), content)


def until_close(platform: Platform, pad: int = 0) -> Case:
    """Framed by the connection's end; complete JSON only with its last byte."""
    page, content = bundle(platform, pad)
    stream = head() + page
    return Case(stream, len(stream), content)


def in_gzip(platform: Platform, pad: int = 0) -> Case:
    """Compressed, with a length."""
    page, content = bundle(platform, pad)
    packed = gzip.compress(page, 0 if pad else 9)
    stream = head("Content-Encoding: gzip", f"Content-Length: {len(packed)}") + packed
    return Case(stream, len(stream), content, coded=True)


def broken_off(stream: bytes, *, reset: bool) -> Answer:
    """Send the bytes, then break the connection."""

    async def answer(line: Line) -> None:
        await read_body(line.reader, line.seen)
        line.writer.write(stream)
        await line.writer.drain()
        if reset:
            # Let the gateway read first: a reset throws away what was not read.
            await asyncio.sleep(0.001)
            line.reset()
        else:
            line.writer.close()

    return answer


async def received(gateway: Running, request: bytes) -> tuple[bytes, bool]:
    """All bytes up to the connection's end, and whether that was a clean one."""
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
    """A read or a create whose answer is the connection's last."""
    fields = ("Connection: close", "Accept-Encoding: gzip")
    if method == "GET":
        return get("/fhir/Patient", *fields, version=version)
    return post("/fhir/Patient", b'{"a":1}', *fields).replace(
        b"HTTP/1.1", b"HTTP/" + version.encode()
    )


def judge(raw: bytes, clean: bool, case: Case, *, whole: bool, http10: bool) -> str:
    """What the caller saw: `whole`, `error` or `cut`; fails for anything else."""
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
    gateway: Running, platform: Platform, case: Case, length: int, *, request: bytes, reset: bool
) -> str:
    """Let the answer break after `length` bytes, and judge what the caller saw of it."""
    before = len(platform.seen)
    platform.answer(broken_off(case.stream[:length], reset=reset))
    raw, clean = await received(gateway, request)
    attempts = len(platform.seen) - before
    whole = length >= case.whole_at
    seen = judge(raw, clean, case, whole=whole, http10=b" HTTP/1.0\r\n" in request)
    if not request.startswith(b"GET") or seen == "cut":
        assert attempts == 1
    elif seen == "error" and length < _PREFETCH:
        assert attempts == 2
    return seen


def at_every_byte(case: Case, *, thoroughly: bool) -> list[int]:
    """All lengths, or else some of each part and all at the end: the same code reads it."""
    end = len(case.stream) + 1
    return [*range(end)] if thoroughly else [*range(0, end - 20, 7), *range(end - 20, end)]


@pytest.mark.parametrize("reset", [False, True], ids=["fin", "rst"])
@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("version", ["1.1", "1.0"])
@pytest.mark.parametrize("make", [with_length, in_chunks, until_close, in_gzip])
async def test_small_answer_breaks_at_every_byte(
    start_gateway: StartGateway,
    platform: Platform,
    make: Callable[[Platform], Case],
    version: str,
    method: str,
    reset: bool,
) -> None:
    """A small answer is passed on whole or is a 502; reads are repeated once more, writes never."""
    case, request = make(platform), request_of(method, version)
    lengths = at_every_byte(case, thoroughly=(version, method) == ("1.1", "GET"))
    async with start_gateway(**_SETTINGS) as gateway:
        seen = [
            await break_off_at(gateway, platform, case, length, request=request, reset=reset)
            for length in lengths
        ]
        assert len(await gateway.audit(len(lengths))) == len(lengths)
    assert set(seen[:-1]) == {"error"}
    # A reset can overtake the last bytes, and no reset ends an answer that only an end delimits.
    assert seen[-1] == "whole" or (reset and seen[-1] == "error")
    assert reset or seen[-1] == "whole"


def interesting(case: Case) -> list[int]:
    """Lengths around the first byte that goes on, and those at the end."""
    around = range(_PREFETCH - 2, _PREFETCH + 600, 47)
    return [*around, *range(len(case.stream) - 40, len(case.stream) + 1)]


@pytest.mark.parametrize("reset", [False, True], ids=["fin", "rst"])
@pytest.mark.parametrize("version", ["1.1", "1.0"])
@pytest.mark.parametrize("rewrite", [True, False], ids=["rewritten", "unchanged"])
@pytest.mark.parametrize("make", [with_length, in_chunks, until_close, in_gzip])
async def test_streamed_answer_breaks_in_the_middle(
    start_gateway: StartGateway,
    platform: Platform,
    make: Callable[..., Case],
    rewrite: bool,
    version: str,
    reset: bool,
) -> None:
    """Of a large answer the caller gets a 502, all of it, or a part that shows it is one."""
    case, request = make(platform, pad=70_000), request_of("GET", version)
    if not rewrite:
        case = Case(case.stream, case.whole_at, bundle(platform, 70_000)[0], case.coded)
    seen = []
    async with start_gateway(rewrite={"enabled": rewrite}, **_SETTINGS) as gateway:
        for length in interesting(case):
            seen.append(
                await break_off_at(gateway, platform, case, length, request=request, reset=reset)
            )
    if make is until_close or (version == "1.0" and (make is in_chunks or rewrite)):
        # Held back or collected: nothing was sent before the end.
        assert "cut" not in seen
    else:
        assert "cut" in seen
    assert reset or seen[-1] == "whole"
