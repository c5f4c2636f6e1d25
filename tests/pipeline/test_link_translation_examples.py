"""The example data with its traps through a running gateway, in JSON and XML, both ways."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from tests.doubles.gateway import Running
from tests.doubles.platform import Platform, http
from tests.doubles.wire import Reply, ask, get, post
from tests.fhir.examples import CHANGES, FILES, PLATFORM, strings

GATEWAY = "http://gateway/fhir"


def of_platform(path: Path, platform: Platform) -> bytes:
    """The example as this platform would send it: its base in links and traps alike."""
    return path.read_bytes().replace(PLATFORM.encode(), platform.url.encode())


def media_type(path: Path) -> str:
    """The example's type, as the platform writes it."""
    return f"application/fhir+{path.suffix[1:]}; charset=utf-8"


def answered(path: Path, body: bytes, *headers: tuple[str, str]) -> bytes:
    """The platform's answer with a body of the example's type."""
    return http(200, body, ("Content-Type", media_type(path)), *headers)


def in_pieces(path: Path, body: bytes) -> bytes:
    """The same answer in many chunks."""
    pieces = [body[at : at + 61] for at in range(0, len(body), 61)]
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
    kind, coding = ("Content-Type", media_type(path)), ("Transfer-Encoding", "chunked")
    return http(200, b"", kind, coding, length=False) + chunks + b"0\r\n\r\n"


def assert_only_links_changed(path: Path, sent: bytes, received: bytes, platform: Platform) -> None:
    """Exactly the listed places lead to the gateway, and no other byte differs."""
    changes = CHANGES.get(path.stem, set())
    assert received.count(GATEWAY.encode()) == len(changes)
    assert received.replace(GATEWAY.encode(), platform.url.encode()) == sent
    if path.suffix == ".json":
        before, after = strings(json.loads(sent)), strings(json.loads(received))
        assert {place for place in before if before[place] != after[place]} == changes


async def served(gateway: Running, path: Path, *headers: str) -> Reply:
    """What a caller gets who reads the example."""
    accept = f"Accept: {media_type(path).partition(';')[0]}"
    return await ask(gateway.address, get("/fhir/Basic/1", accept, *headers))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
async def test_links_lead_to_the_gateway_and_traps_hold(
    gateway: Running, platform: Platform, path: Path
) -> None:
    """An answer's links change, all else is the platform's to the byte."""
    sent = of_platform(path, platform)
    platform.answer(answered(path, sent))
    reply = await served(gateway, path)
    assert_only_links_changed(path, sent, reply.body, platform)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
async def test_traps_hold_in_chunks_and_in_gzip(
    gateway: Running, platform: Platform, path: Path
) -> None:
    """Neither chunks nor compression make a difference."""
    sent = of_platform(path, platform)
    compressed_answer = answered(path, gzip.compress(sent), ("Content-Encoding", "gzip"))
    platform.script(in_pieces(path, sent), compressed_answer)
    in_chunks = (await served(gateway, path)).body
    compressed = (await served(gateway, path, "Accept-Encoding: gzip")).body
    assert_only_links_changed(path, sent, in_chunks, platform)
    assert gzip.decompress(compressed) == in_chunks


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
async def test_what_a_caller_got_comes_back_as_the_platforms_own(
    gateway: Running, platform: Platform, path: Path
) -> None:
    """Sent back unchanged, an answer reaches the platform as the platform had sent it."""
    sent = of_platform(path, platform)
    platform.script(answered(path, sent))
    received = (await served(gateway, path)).body
    kind = f"Content-Type: {media_type(path)}"
    await ask(gateway.address, post("/fhir/Basic/1", received, kind, method="PUT"))
    assert platform.seen[-1].body == sent
